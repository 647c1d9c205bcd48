"""Tests of predictors in one's hand: what they take and give, when they are fitted again, what their folders hold."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import latlab
from latlab.harness.active_learning.fitted_predictor import FittedPredictor, PredictorCard, load_predictor
from latlab.harness.active_learning.latency_table import COLUMNS, MeasuredLatency, measured_latencies
from latlab.harness.active_learning.onnx_formula import onnx_formula
from latlab.harness.active_learning.prediction import KeptPredictors
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.lab import Lab
from latlab.predictors import create
from latlab.predictors.base import LatencyFormula
from latlab.search_spaces import get

TARGET = "toy/tflite/cpu/fp32/t1/b1"
SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3", "hat-encoder")
DEAD = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
"""A cell whose only convolution is on a dead edge."""


def fitted(
    space: str, labels: int = 20, name: str = "roost", as_written: bool = False, wrong: float = 1
) -> FittedPredictor:
    """A predictor of made-up labels; the fifth is `wrong` times what it should be."""
    found = get(space)
    archs = [found.canonical(arch) for arch in found.sample(labels, 1)]
    latency = np.array([5.0 + sum(layer.macs for layer in found.layers(arch)) / 1e7 for arch in archs])
    latency[4:5] *= wrong
    predictor = create(name, found)
    predictor.adapt(archs, latency, 0.01 * latency)
    measured = {a.text: MeasuredLatency(ms, 0.01 * ms) for a, ms in zip(archs, latency.tolist(), strict=True)}
    return FittedPredictor(predictor, PredictorCard(TARGET, space, "fp32", name, labels, as_written), measured)


@pytest.mark.parametrize("space", SPACES)
def test_strings_architectures_and_genes_are_the_same_networks(space: str) -> None:
    predictor, found = fitted(space), get(space)
    archs = found.sample(50, 5)
    genes = found.genes(archs)
    by_genes = predictor.predict(genes)
    assert by_genes.mean_ms.shape == (50,)
    for form in (
        archs,
        [arch.text for arch in archs],
        genes.tolist(),
        [archs[0], *(a.text for a in archs[1:])],
        iter(archs),
        pd.Series([arch.text for arch in archs]),
        np.array([arch.text for arch in archs]),
        np.array([arch.text for arch in archs], dtype=object),
    ):
        np.testing.assert_allclose(predictor(form), by_genes.mean_ms, rtol=1e-9)  # type: ignore[arg-type]
    for one in (archs[7], archs[7].text, genes[7], tuple(genes[7].tolist())):
        alone = predictor.predict(one)  # type: ignore[arg-type]
        assert np.ndim(alone.mean_ms) == 0
        for field in ("mean_ms", "std_ms", "lower_ms", "upper_ms"):
            np.testing.assert_allclose(getattr(alone, field), getattr(by_genes, field)[7], rtol=1e-9)
    assert predictor([]).shape == (0,)
    assert predictor(genes[:0]).shape == (0,)


def test_dead_edges_do_not_count_unless_they_are_exported() -> None:
    space = get("nasbench201")
    live = space.canonical(space.parse(DEAD))
    assert live.text != DEAD
    pruned, written = fitted("nasbench201"), fitted("nasbench201", as_written=True)
    assert pruned(DEAD) == pruned(live)
    assert written(DEAD) != written(live)


def test_genes_of_unused_slots_do_not_count() -> None:
    predictor, space = fitted("ofa-mobilenetv3"), get("ofa-mobilenetv3")
    arch = next(arch for arch in space.sample(20, 0) if 0 in arch.genes)
    genes = np.array(arch.genes)
    genes[genes == 0] = 7
    assert predictor(genes) == predictor(arch)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("nonsense", "is not three nodes"),
        (["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 3], "neither a string nor an architecture"),
        (np.zeros((2, 5), np.int64), r"shape \(2, 5\)"),
        (np.zeros((2, 6)), "type float64"),
        (np.zeros((2, 2, 6), np.int64), "is not genes"),
        (np.array([[0] * 6, [0, 0, 0, 0, 0, 5]]), "row 1: nasbench201: genes are 6 operation indices"),
        (3, "is not genes"),
        ([DEAD, "|foo~0|"], r"row 1: nasbench201: '\|foo~0\|' is not three nodes"),
        ([DEAD, None], "row 1: None is neither a string nor an architecture"),
        (pd.DataFrame({"arch": [DEAD]}), "a table is no list of networks"),
        ({"arch": [DEAD]}, "a table is no list of networks"),
    ],
)
def test_what_is_no_network(wrong: Any, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        fitted("nasbench201").predict(wrong)


def test_an_architecture_of_another_space() -> None:
    with pytest.raises(BadInputError, match="is of the space fbnet, this predictor is for nasbench201"):
        fitted("nasbench201")(get("fbnet").sample(1)[0])


@pytest.mark.parametrize("space", SPACES)
def test_the_table_has_every_measured_network(space: str) -> None:
    predictor = fitted(space)
    few = get(space).sample(5, 9)
    assert len(predictor.table(few)) == 5
    table = predictor.table()
    assert tuple(table.columns) == COLUMNS
    assert table["measured"].sum() == 20
    assert table["arch"].is_unique
    of_measured = table[table["measured"]]
    assert (of_measured["stderr_ms"] == 0.01 * of_measured["measured_ms"]).all()
    assert table.loc[~table["measured"], ["measured_ms", "stderr_ms"]].isna().all(axis=None)


def test_a_label_of_several_sessions_is_their_mean() -> None:
    rows = pd.DataFrame(
        {
            "arch": ["b", "a", "b", "c", "d"],
            "latency_ms": [10.0, 1.0, 20.0, 3.0, 9.0],
            "stderr_ms": [0.3, 0.1, 0.4, None, 1.0],
            "status": ["ok", "ok", "ok", "ok", "failed"],
            "selection": "random",
        }
    )
    assert measured_latencies(rows) == {"b": (15.0, 0.25), "a": (1.0, 0.1), "c": (3.0, None)}
    assert measured_latencies(rows[:0]) == {}


# Folders


@pytest.mark.parametrize("name", ["roost", "ridge"])
def test_a_saved_predictor_is_the_same_elsewhere(name: str, tmp_path: Path) -> None:
    os.umask(0o022)
    predictor = fitted("nasbench201", name=name)
    predictor.save(tmp_path / "p")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "p").iterdir()}
    assert modes == {0o644}
    loaded = latlab.load_predictor(str(tmp_path / "p"))
    assert loaded.card == PredictorCard.from_json(predictor.card.to_json())
    archs = get("nasbench201").sample(100, 3)
    for field in ("mean_ms", "std_ms", "lower_ms", "upper_ms"):
        np.testing.assert_allclose(
            getattr(loaded.predict(archs), field), getattr(predictor.predict(archs), field), rtol=1e-9
        )
    assert "measured" not in loaded.table(archs), "it does not know what was measured"
    readme = (tmp_path / "p" / "README.md").read_text()
    assert TARGET in readme
    assert "load_predictor" in readme


@pytest.mark.parametrize(
    ("card", "why"),
    [
        ("", "is no card"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "is no card"),
        ('{"format": 2}', "its format is 2, this latlab reads 1"),
        ('{"format": 1}', "missing"),
        ({"labels": "many"}, "its labels is 'many'"),
        ({"space": 3}, "its space is 3"),
        ({"labels": -5}, "the number of its labels is negative"),
        ({"scores": []}, r"its scores is \[\]"),
        ({"scores": {"a": "b"}}, "its scores hold 'b'"),
        ({"sources": [1]}, "one of its sources is 1"),
        ({"sources": [{"x": 1}]}, "one of its sources is {'x': 1}"),
        ({"space": "elsewhere"}, "unknown search space"),
        ({"predictor": "oracle"}, "is not installed here"),
        ({"predictor": "ridge"}, "holds no predictor ridge"),
        ({"space": "fbnet"}, "a predictor of nasbench201, not of fbnet"),
    ],
)
def test_a_card_that_cannot_be_used(card: str | dict[str, Any], why: str, tmp_path: Path) -> None:
    fitted("nasbench201").save(tmp_path)
    path = tmp_path / "card.json"
    path.write_text(card if isinstance(card, str) else json.dumps(json.loads(path.read_text()) | card))
    with pytest.raises(BadInputError, match=why):
        load_predictor(tmp_path)


@pytest.mark.parametrize("name", ["roost", "ridge"])
@pytest.mark.parametrize(
    ("array", "factor"), [("log_latency", np.nan), ("label_variance", np.inf), ("log_latency", 1e300)]
)
def test_numbers_that_are_none(name: str, array: str, factor: float, tmp_path: Path) -> None:
    fitted("nasbench201", name=name).save(tmp_path)
    path = tmp_path / f"{name}.safetensors"
    arrays = load_file(path)
    save_file(arrays | {array: np.full_like(arrays[array], factor)}, path)
    with pytest.raises(BadInputError, match=r"no positive numbers|does not hold a predictor"):
        load_predictor(tmp_path)


def test_a_card_that_is_a_pipe(tmp_path: Path) -> None:
    fitted("nasbench201").save(tmp_path)
    (tmp_path / "card.json").unlink()
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(BadInputError, match="is no regular file"):
        load_predictor(tmp_path)


def test_a_hostile_card_is_drawn_without_its_escapes(tmp_path: Path) -> None:
    fitted("nasbench201").save(tmp_path)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target": "\x1b[31mred\u202e"}))
    assert "\x1b" not in repr(load_predictor(tmp_path))


def test_folders_that_hold_no_predictor(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no folder"):
        load_predictor(tmp_path / "none")
    with pytest.raises(BadInputError, match="holds no predictor"):
        load_predictor(tmp_path)
    fitted("nasbench201").save(tmp_path / "predictor")
    with pytest.raises(BadInputError, match="holds no predictor") as error:
        load_predictor(tmp_path)
    assert error.value.hint == f"Name {tmp_path / 'predictor'}."
    for path in (tmp_path / "predictor").glob("roost.*"):
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2])
        with pytest.raises(BadInputError, match="does not hold a predictor of this version"):
            load_predictor(tmp_path / "predictor")
        path.write_bytes(kept)


# Kept predictors


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: pi4, pace: 0}\n")
    made = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml", cache=tmp_path / "cache")
    made.measure("toy", space="nasbench201", count=5, policy="quick")
    return made


def test_a_predictor_is_fitted_again_once_its_labels_change(lab: Lab) -> None:
    options = PredictorOptions()
    predictor = lab.predictor("toy", space="nasbench201")
    assert (predictor.card.labels, predictor.card.simulated) == (5, True)
    assert lab.predictor("toy", space="nasbench201", predictor=options) is predictor
    alone = PredictorOptions(spaces_from="none")
    kept = lab.predictor("toy", space="nasbench201", predictor=alone)
    lab.store.note("toy", "lost", "this is no label")
    assert lab.predictor("toy", space="nasbench201") is predictor
    other = Lab(lab.store.path)
    other.inventory = lab.inventory
    other.measure("toy", space="fbnet", count=1, policy="quick")
    again = lab.predictor("toy", space="nasbench201", predictor=alone)
    assert again is kept, "labels of another space, which it does not use"
    other.measure("toy", space="nasbench201", count=6, policy="quick")
    again = lab.predictor("toy", space="nasbench201")
    assert again.card.labels == 6
    assert lab.predictor("toy", space="nasbench201", seed=1) is not again
    assert lab.predict("toy", space="nasbench201", archs=[DEAD]).support == 6


def test_few_predictors_are_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptPredictors, "MOST", 2)
    first, second = (lab.predictor("toy", space="nasbench201", seed=seed) for seed in (1, 2))
    assert lab.predictor("toy", space="nasbench201", seed=1) is first
    lab.predictor("toy", space="nasbench201", seed=3)
    assert lab.predictor("toy", space="nasbench201", seed=1) is first
    assert lab.predictor("toy", space="nasbench201", seed=2) is not second


def test_an_onboarding_writes_a_predictor_to_hand_on(lab: Lab, tmp_path: Path) -> None:
    result = lab.onboard("toy", space="nasbench201", budget=4, holdout=3, policy="quick", out=tmp_path / "out")
    loaded = load_predictor(result.predictor_folder)
    card = loaded.card
    assert (card.target, card.space, card.labels, card.precision) == (result.target, "nasbench201", 4, "fp32")
    assert card.scores["holdout_spearman"] == pytest.approx(result.holdout_spearman)
    assert "runtime" in card.device
    table = result.table
    np.testing.assert_allclose(loaded(table["arch"].tolist()), table["latency_ms"], rtol=1e-9)


# Formulas


@pytest.mark.parametrize("labels", [0, 1, 20])
@pytest.mark.parametrize("space", SPACES)
def test_an_onnx_file_predicts_the_same(space: str, labels: int, tmp_path: Path) -> None:
    predictor, found = fitted(space, labels), get(space)
    predictor.to_onnx(tmp_path / "p.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "p.onnx"))
    archs = found.sample(200, 4)
    features = found.features(found.canonical_genes(found.genes(archs)))
    latency, std, lower, upper = session.run(["latency_ms", "std_ms", "lower_ms", "upper_ms"], {"features": features})
    expected = predictor.predict(archs)
    for given, wanted in ((latency, expected.mean_ms), (std, expected.std_ms), (lower, expected.lower_ms)):
        np.testing.assert_allclose(given, wanted, rtol=1e-7)
    np.testing.assert_allclose(upper, expected.upper_ms, rtol=1e-7)
    card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
    assert (card["target"], card["labels"]) == (TARGET, labels)


def test_an_onnx_file_of_short_and_of_unknown_networks(tmp_path: Path) -> None:
    """Where the absolute noise decides, the least latency, and the greatest variance."""
    table, features = np.array([1.0, 0.0]), np.array([[1e-6, 0], [1e-2, 0], [1, 0], [1, 1], [-1, 0], [10, 100]])
    covariance = np.diag([1e-4, 1e9])
    formula = LatencyFormula(table, covariance, least=1e-3, factor=2.0, noise=1e-4, absolute=0.02, calibration=1.5,
                             half_width=1.7)  # fmt: skip
    found = onnxruntime.InferenceSession(onnx_formula(formula, {"latlab": "0"})).run(
        ["latency_ms", "std_ms", "lower_ms", "upper_ms"], {"features": features}
    )
    wanted = formula.predict(features)
    for given, right in zip(found, (wanted.mean_ms, wanted.std_ms, wanted.lower_ms, wanted.upper_ms), strict=True):
        np.testing.assert_allclose(given, right, rtol=1e-7)
    widths = np.log(wanted.upper_ms / wanted.mean_ms) / 1.7
    assert widths[[0, 3, 4]] == pytest.approx(4)  # the root of the greatest variance
    assert widths[2] == pytest.approx((1.5 * (np.log1p(1e-4) + 1e-4 + 0.01**2)) ** 0.5)


def test_a_predictor_that_is_no_formula(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="the predictor ridge is no formula"):
        fitted("nasbench201", name="ridge").to_onnx(tmp_path / "p.onnx")
    assert not list(tmp_path.iterdir())


# The command


Latlab = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Latlab:
    """Return a function that runs `latlab` in an empty folder, and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def latlab(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return latlab


def test_predictions_come_with_what_is_wrong_with_their_labels(command: Latlab) -> None:
    fitted("nasbench201").save("right")
    predictor = fitted("nasbench201", wrong=10)
    (remark,) = predictor.remarks
    predictor.save("wrong")
    assert latlab.load_predictor("wrong").remarks == predictor.remarks
    for folder, said in (("right", False), ("wrong", True)):
        code, _, err = command("predict", "--predictor-folder", folder, "--arch", DEAD)
        assert code == 0
        assert (" ".join(remark.split()) in " ".join(err.split())) == said
    assert "times as large as the other labels say" in remark


def test_predict_from_a_folder_needs_no_store(command: Latlab, tmp_path: Path) -> None:
    predictor = fitted("nasbench201")
    predictor.save("p")
    code, out, _ = command("predict", "--predictor-folder", "p", "--arch", DEAD, "--json")
    assert code == 0
    assert json.loads(out)["latency_ms"] == pytest.approx(predictor(DEAD))
    _, out, _ = command("predict", "--predictor-folder", "p", "--all", "--top", "3", "--json")
    everything = predictor.table()
    fastest = [json.loads(line) for line in out.splitlines()]
    assert fastest[0]["latency_ms"] == pytest.approx(everything["latency_ms"].min())
    assert [one["latency_ms"] for one in fastest] == sorted(one["latency_ms"] for one in fastest)
    space = get("nasbench201")
    assert len({space.canonical(space.parse(one["arch"])) for one in fastest}) == 3, "no network twice"
    limit = float(np.sort(everything["latency_ms"].unique())[20:22].mean())
    _, out, _ = command("predict", "--predictor-folder", "p", "--all", "--under", f"{1000 * limit}us", "--out", "t.csv")
    assert len(pd.read_csv("t.csv")) == (everything["latency_ms"] < limit).sum()
    assert "all 15,625 networks" in out
    assert command("predict", "--predictor-folder", "p", "--onnx", "p.onnx")[0] == 0
    assert Path("p.onnx").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.onnx", "t.csv"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "say what to predict"),
        (["--all"], "say for which target"),
        (["--all", "--target", "a", "--predictor-folder", "p"], "say for which target"),
        (["--all", "--predictor-folder", "p", "--space", "fbnet"], "a predictor of nasbench201, not of fbnet"),
        (["--all", "--predictor-folder", "p", "--predictor", "ridge"], "is fitted already"),
        (["--all", "--predictor-folder", "p", "--under", "soon"], "--under takes a time above 0, not 'soon'"),
        (["--all", "--predictor-folder", "p", "--under", "-3ms"], "not '-3ms'"),
        (["--all", "--predictor-folder", "p", "--out", "table.txt"], "does not say what to write"),
        (["--arch", "x", "--predictor-folder", "p"], "is not three nodes"),
    ],
)
def test_predictions_that_make_no_sense(words: list[str], why: str, command: Latlab) -> None:
    fitted("nasbench201").save("p")
    code, _, err = command("predict", *words)
    assert code == 2
    assert why in " ".join(err.split())
