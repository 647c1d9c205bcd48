"""Tests of paired comparisons on simulated devices and on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chains import chain, crashes_when_run

from latlab.harness import Lab
from latlab.harness.compare.contestants import Candidate, named_apart, split_words, unique_names
from latlab.harness.compare.result import ComparisonResult, Question
from latlab.harness.compare.run import ComparisonRun
from latlab.harness.compare.wording import advice, pairs_to_tell, sentence
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.statistics.paired import Outcome
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.telemetry.recorded_pass import PassKind
from latlab.harness.transports.simulated.config import SimulatedDevice

SMALL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
LARGE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"
QUICK = Question(budget_s=8.0)


def lab(tmp_path: Path, **device: Any) -> Lab:
    made = Lab(tmp_path / "s.db")
    fields = {"transport": "simulated", "kind": "ideal", "noise": {"sigma": 0.02}, **device}
    made.inventory = Inventory({"sim": SimulatedDevice.model_validate(fields)})
    return made


def compare(made: Lab, archs: Sequence[str], question: Question = QUICK, **options: Any) -> ComparisonResult:
    (result,) = made.compare(archs, "sim", space="nasbench201", question=question, **options)
    return result


# Simulated devices


def test_the_larger_network_is_slower_and_all_is_in_the_store(tmp_path: Path) -> None:
    made = lab(tmp_path)
    result = compare(made, [LARGE, SMALL])
    (pair,) = result.pairs
    assert (result.status, result.simulated, pair.outcome) == ("decided", True, Outcome.SLOWER)
    assert result.order == (1, 0)
    large, small = result.models
    assert large.latency_ms is not None
    assert small.latency_ms is not None
    assert pair.interval.ratio == pytest.approx(small.latency_ms / large.latency_ms, rel=0.01)
    assert made.store.table().empty, "a comparison makes no label"
    rows = made.store.table(sustained=True)
    assert set(rows["role"]) == {Role.COMPARE}
    assert set(rows["selection"]) == {Selection.COMPARE}
    assert list(rows["arch"]) == [LARGE, SMALL]
    passes = [made.store.passes(int(row_id)) for row_id in rows["id"]]
    assert [len(one) for one in passes] == [large.passes, small.passes]
    assert {one.kind for own in passes for one in own} == {PassKind.COMPARE}
    blocks = [one.telemetry["block"] for one in passes[0]]
    assert blocks == sorted(blocks)
    assert blocks[-1] == result.blocks - 1


def test_a_network_and_itself_are_a_tie(tmp_path: Path) -> None:
    result = compare(lab(tmp_path), [SMALL, SMALL], Question(ties_percent=2, budget_s=15))
    (pair,) = result.pairs
    assert [one.name for one in result.models] == [SMALL, f"{SMALL} (2)"]
    assert pair.outcome is Outcome.TIE
    assert -2 < pair.low_percent < pair.high_percent < 2


def test_without_time_nothing_is_decided(tmp_path: Path) -> None:
    made = lab(tmp_path, noise={"sigma": 0.5})
    result = compare(made, [SMALL, SMALL], Question(budget_s=0.5))
    assert result.status == "undecided"
    assert all(one.outcome is Outcome.UNDECIDED for one in result.pairs)
    assert "--budget" in advice(result)


def test_the_order_of_three(tmp_path: Path) -> None:
    result = compare(lab(tmp_path), [LARGE, SMALL, LARGE], Question(ties_percent=2, budget_s=15))
    assert result.order[0] == 1
    assert len(result.pairs) == 3
    told = {sentence(result, pair)[0] for pair in pairs_to_tell(result)}
    assert "faster" in told
    assert result.pair(1, 0) is not None
    assert result.pair(0, 1) is not None
    assert json.loads(json.dumps(result.to_json()))["order"][0] == SMALL


def test_the_same_seed_and_device_compare_alike(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        results.append(compare(lab(tmp_path / name), [SMALL, LARGE]))
    orders = [result.order for result in results]
    assert orders[0] == orders[1]


def test_each_call_is_a_session_and_a_killed_one_is_closed(tmp_path: Path) -> None:
    made = lab(tmp_path)
    compare(made, [SMALL, LARGE])
    (first, _) = made.store.table(sustained=True)["id"]
    made.store.finish(int(first), Status.RUNNING, latency_ms=None)
    compare(made, [SMALL, LARGE])
    rows = made.store.table(sustained=True)
    assert list(rows["session"]) == [1, 1, 2, 2]
    assert (rows["status"] == Status.OK).all()
    assert (rows["latency_ms"] > 0).all()


def test_an_interruption_keeps_what_was_measured(tmp_path: Path) -> None:
    made = lab(tmp_path, pace=0.02)
    runs: list[ComparisonRun] = []

    def interrupt(_: Measurement | Incident) -> None:
        if runs[0].blocks >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(
            made,
            [SMALL, SMALL],
            Question(ties_percent=0, budget_s=3600),
            listener=RunListener(observe=interrupt),
            follow=runs.extend,
        )
    result = runs[0].result()
    assert result.status == "interrupted"
    assert result.blocks >= 2
    rows = made.store.table(sustained=True)
    assert list(rows["status"]) == ["ok", "ok"]
    kept = [len(made.store.passes(int(row_id))) for row_id in rows["id"]]
    assert kept == [one.passes for one in result.models]


@pytest.mark.parametrize("kind", ["disconnect", "crash", "hang"])
def test_a_device_that_is_lost_meanwhile_goes_on(tmp_path: Path, kind: str) -> None:
    made = lab(tmp_path, faults={"schedule": [{"kind": kind, "verb": "time", "after_requests": 90}]})
    result = compare(made, [SMALL, LARGE])
    assert (result.status, result.error) == ("decided", None)
    rows = made.store.table(sustained=True)
    assert list(rows["latency_ms"]) == [one.latency_ms for one in result.models]
    numbers = [one.number for one in made.store.passes(int(rows["id"][0]))]
    assert numbers == list(range(len(numbers)))


def test_a_network_that_does_not_fit_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    conv = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    made = lab(tmp_path, faults={"max_params": 900_000})
    result = compare(made, [SMALL, conv, LARGE])
    assert [one.status for one in result.models] == ["ok", "out_of_memory", "ok"]
    assert "do not fit" in (result.models[1].error or "")
    assert result.status == "decided"
    assert [(one.first, one.second) for one in result.pairs] == [(0, 2)]


def test_with_one_network_left_there_is_nothing_to_compare(tmp_path: Path) -> None:
    result = compare(lab(tmp_path, faults={"unsupported": 1.0}), [SMALL, LARGE])
    assert result.status == "failed"
    assert [one.status for one in result.models] == ["unsupported_op", "unsupported_op"]
    assert result.pairs == ()


def test_networks_that_kill_their_worker_are_blamed(tmp_path: Path) -> None:
    result = compare(lab(tmp_path, faults={"crashes": 1.0}), [SMALL, LARGE])
    assert result.status == "failed"
    assert "crash" in {one.status for one in result.models}


def test_a_device_that_is_gone_is_an_error(tmp_path: Path) -> None:
    gone = {"kind": "disconnect", "verb": "time", "connects": 10**6}
    with pytest.raises(LatlabError, match="not reached again"):
        compare(lab(tmp_path, reconnect_s=0, faults={"schedule": [gone]}), [SMALL, LARGE])
    late = lab(tmp_path, reconnect_s=0, faults={"schedule": [{**gone, "after_requests": 200}]})
    result = compare(late, [SMALL, SMALL], Question(ties_percent=0, budget_s=60))
    assert result.blocks
    assert "not reached again" in (result.error or "")


def test_several_devices_have_a_result_each(tmp_path: Path) -> None:
    made = lab(tmp_path)
    config = made.inventory.device("sim")
    made.inventory = Inventory({"one": config, "two": config})
    results = made.compare([SMALL, LARGE], ["two", "one"], space="nasbench201", question=QUICK)
    assert [one.device for one in results] == ["two", "one"]
    assert {one.status for one in results} == {"decided"}


@pytest.mark.parametrize(
    ("archs", "options", "message"),
    [
        ([SMALL], {}, "at least two"),
        ([SMALL, "x"], {}, "nasbench201"),
        ([SMALL, SMALL], {"space": "nowhere"}, "nowhere"),
    ],
)
def test_what_is_asked_for_must_make_sense(
    tmp_path: Path, archs: list[str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        lab(tmp_path).compare(archs, "sim", **{"space": "nasbench201", **options})


@pytest.mark.parametrize(
    "wrong",
    [{"ties_percent": -1}, {"confidence": 0.5}, {"confidence": 1}, {"budget_s": 0}, {"budget_s": float("inf")},
     {"limit_percent": -1}],
)  # fmt: skip
def test_a_question_must_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInputError):
        Question(**wrong)


# This machine


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": chain(folder / "small.onnx", 1),
        "large": chain(folder / "large.onnx", 20),
        "broken": crashes_when_run(folder / "broken.onnx"),
    }


def test_one_layer_is_faster_than_twenty(tmp_path: Path, files: dict[str, Path]) -> None:
    made = Lab(tmp_path / "s.db")
    (result,) = made.compare([str(files["large"]), str(files["small"])], question=Question(budget_s=60))
    (pair,) = result.pairs
    assert pair.outcome is Outcome.SLOWER
    assert pair.interval.ratio < 0.5
    assert result.models[0].target == "local/onnxruntime/cpu/fp32/t1/b1"


def test_a_broken_file_is_named_and_the_others_go_on(tmp_path: Path, files: dict[str, Path]) -> None:
    made = Lab(tmp_path / "s.db")
    (result,) = made.compare(
        [str(files[name]) for name in ("large", "broken", "small")], question=Question(budget_s=60)
    )
    assert [one.status == Status.OK for one in result.models] == [True, False, True]
    assert "NoSuchOperator" in (result.models[1].error or "")
    assert len(result.pairs) == 1


def test_two_runtimes_take_turns_in_one_session(tmp_path: Path) -> None:
    """The same network as ONNX and as TFLite files, exported by latlab, brought as models of one's own."""
    from latlab.harness.exporters import ExportRequest
    from latlab.harness.exporters.service import Exports

    made = Lab(tmp_path / "s.db")
    with Exports(made.cache) as exports:
        artifacts = [
            exports.submit(ExportRequest("nasbench201", SMALL, name, 1, "fp32")).result() for name in ("onnx", "tflite")
        ]
    named = []
    for artifact in artifacts:
        path = tmp_path / f"net{artifact.path.suffix}"
        path.write_bytes(artifact.path.read_bytes())
        named.append(str(path))
    (result,) = made.compare(named, question=Question(budget_s=4))
    assert [one.target.split("/")[1] for one in result.models] == ["onnxruntime", "tflite"]
    assert all(one.passes >= 2 for one in result.models)
    rows = made.store.table(sustained=True)
    assert len(set(rows["target"])) == 2


# Words


def test_words_are_models_or_devices() -> None:
    inventory = Inventory({"pi4": SimulatedDevice.model_validate({"transport": "simulated"})})
    words = ["a.onnx", "pi4", "x/b.TFLITE", "local", "pkg.mod:make", "pi4/tflite/cpu/fp32/t4/b1", "all"]
    models, devices = split_words(words, inventory)
    assert models == ["a.onnx", "x/b.TFLITE", "pkg.mod:make"]
    assert devices == ["pi4", "local", "pi4/tflite/cpu/fp32/t4/b1", "all"]
    for wrong in ("pi5", "notes.txt", "a:b:c", ":", "some/file"):
        with pytest.raises(BadInputError, match="neither a model nor a device"):
            split_words([wrong], inventory)


def test_names_are_unique() -> None:
    assert unique_names(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (2)", "a (2) (2)", "a (3)"]


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    def candidate(name: str) -> Candidate:
        return Candidate(name, "model", lambda target: target, lambda _: None)  # type: ignore[arg-type,return-value]

    words = ["v1/net.onnx", "v2/net.onnx", "v1/net.onnx", "other.onnx"]
    found = named_apart(words, [candidate(f"{word.rpartition('/')[2]} 1x3") for word in words])
    assert [one.name for one in found] == ["v1/net.onnx 1x3", "v2/net.onnx 1x3", "v1/net.onnx 1x3", "other.onnx 1x3"]
