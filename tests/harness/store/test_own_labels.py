"""Tests of labels that a user brings along: kept, replaced, predicted from, reported, exported, and added to."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.store.own_labels import POLICY
from latlab.harness.store.sources import listing
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

CELL = get("nasbench201")
# Networks without dead edges, each of another graph.
ARCHS = list(dict.fromkeys(CELL.canonical(arch) for arch in CELL.sample(80) if not CELL.is_constant(arch)))[:40]
PIXEL = "pixel/tflite/cpu/fp32/t1/b1"
PAGE = Path(__file__).parents[3] / "docs" / "own-labels.md"


def latency(arch: Any, scale: float = 1.0) -> float:
    return scale * (1.0 + sum(layer.macs for layer in CELL.layers(arch)) / 1e7)


def table(path: Path, scale: float = 1.0, archs: Any = ARCHS, **more: object) -> Path:
    columns = {"arch": [arch.text for arch in archs], "latency_ms": [latency(arch, scale) for arch in archs]}
    pd.DataFrame({**columns, **more}).to_csv(path, index=False)
    return path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "inventory.yaml").write_text("devices: {toy: {transport: simulated, kind: ideal}}\n")
    return Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")


def test_importing_again_changes_only_what_is_different(lab: Lab, tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", stderr_ms=0.1)
    [first] = lab.import_labels(path, PIXEL)
    assert (first.new, first.changed, first.same, first.errors) == (40, 0, 0, 40)
    before = lab.store.table()
    [again] = lab.import_labels(path, PIXEL)
    assert (again.new, again.changed, again.same) == (0, 0, 40)
    pd.testing.assert_frame_equal(before, lab.store.table())
    frame = pd.read_csv(path)
    frame.loc[:1, "latency_ms"] = [7.5, 8.5]
    frame.iloc[:30].to_csv(path, index=False)
    [other] = lab.import_labels(path, PIXEL)
    assert (other.new, other.changed, other.same) == (0, 2, 28)
    rows = lab.store.table()
    assert len(rows) == 40
    assert rows["latency_ms"].tolist()[:2] == [7.5, 8.5]
    assert set(rows["selection"]) == {"imported"}
    assert list(listing(lab.store)["kind"]) == ["imported"]
    assert set(rows["policy"]) == {POLICY.name}
    assert rows["low_ms"].iloc[0] == pytest.approx(7.5 - 1.96 * 0.1)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("pixel", "pixel/onnxruntime/cpu/fp32/t1/b1"),
        ("pixel/tflite", PIXEL),
        ("pixel/tflite/gpu", None),
        ("pixel/benchmark_model/gpu/fp16", "pixel/benchmark_model/gpu/fp16/t1/b1"),
        ("pixel/tflite/cpu/int8/t4/b2", "pixel/tflite/cpu/int8/t4/b2"),
        ("toy", "toy/onnxruntime/cpu/fp32/t1/b1"),
        ("", None),
        ("a b", None),
        ("\x1b[31m/tflite", None),
        ("pixel/nothing", None),
        ("pixel/tflite/cpu/fp32/t1/b1/x", None),
    ],
)
def test_a_part_of_a_target_is_enough(lab: Lab, tmp_path: Path, text: str, target: str | None) -> None:
    path = table(tmp_path / "mine.csv")
    if target is None:
        with pytest.raises(BadInputError):
            lab.import_labels(path, text)
        assert lab.store.table().empty
    else:
        assert lab.import_labels(path, text)[0].target == target


def test_a_device_with_one_target_in_the_store(lab: Lab, tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv")
    lab.import_labels(path, PIXEL)
    assert lab.import_labels(path, "pixel")[0].target == PIXEL
    lab.import_labels(path, "pixel/tflite/cpu/int8")
    with pytest.raises(BadInputError, match="several targets of pixel"):
        lab.import_labels(path, "pixel")


def test_predicting_and_reporting(lab: Lab, tmp_path: Path) -> None:
    lab.import_labels(table(tmp_path / "mine.csv"), PIXEL)  # no errors are known
    found = lab.predict(PIXEL, space="nasbench201")
    assert found.support == len(ARCHS)
    predicted = found.table.set_index("arch")["latency_ms"]
    assert all(predicted[arch.text] == pytest.approx(latency(arch), rel=0.2) for arch in ARCHS)
    page = lab.report(target=PIXEL, out=tmp_path / "r.html").read_text()
    assert "All labels were imported" in page
    assert "Did the device change on the way?" not in page


def test_of_many_labels_some_are_enough(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.import_labels(table(tmp_path / "mine.csv"), PIXEL)
    monkeypatch.setattr("latlab.harness.active_learning.loop.ENOUGH_LABELS", 12)
    predictor = lab.predictor(PIXEL, space="nasbench201")
    assert predictor.card.labels == 12
    assert predictor.table()["measured"].sum() == len(ARCHS), "the table has all of them"
    assert Lab(lab.store.path).predictor(PIXEL, space="nasbench201")(ARCHS[0].text) == predictor(ARCHS[0].text)


def test_quality_says_what_cannot_be_assessed(lab: Lab, tmp_path: Path) -> None:
    lab.import_labels(table(tmp_path / "mine.csv", stderr_ms=0.1), PIXEL)
    [found] = lab.quality(PIXEL)
    assert found.fitness.grade == "unknown"
    assert "cannot be assessed" in found.fitness.why
    assert found.labels.verdicts == {}
    json.dumps(found.to_json())
    campaign = lab.store.campaign(Target.parse(PIXEL), "nasbench201", PRESETS["default"], 0, "listed")
    row = lab.store.begin(campaign, 1, ARCHS[0].text, "listed")
    lab.store.finish(row.id, "ok", latency_ms=9.0, stderr_ms=0.1)
    [both] = lab.quality(PIXEL)
    assert (both.labels.networks, both.other_rows) == (1, 40)


def test_what_was_measured_counts(lab: Lab, tmp_path: Path) -> None:
    campaign = lab.store.campaign(Target.parse(PIXEL), "nasbench201", PRESETS["default"], 0, "listed")
    row = lab.store.begin(campaign, 1, ARCHS[0].text, "listed")
    lab.store.finish(row.id, "ok", latency_ms=latency(ARCHS[0], 3.0), stderr_ms=0.001)
    [kept] = lab.import_labels(table(tmp_path / "mine.csv"), PIXEL)
    assert kept.known == 1
    found = lab.predict(PIXEL, archs=[ARCHS[0].text])
    assert found.support == len(ARCHS)
    # Predictors and tables agree: what latlab has measured counts, or else what was imported.
    shown = lab.predict(PIXEL, archs=[arch.text for arch in ARCHS[:2]]).table
    assert list(shown["measured_ms"]) == pytest.approx([latency(ARCHS[0], 3.0), latency(ARCHS[1])])
    assert shown["stderr_ms"].iloc[0] == pytest.approx(0.001)


def test_onboarding_adds_to_imported_labels(lab: Lab, tmp_path: Path) -> None:
    lab.import_labels(table(tmp_path / "mine.csv"), "toy")
    result = lab.onboard("toy", space="nasbench201", budget=5, out=tmp_path / "out")
    assert (result.measured, result.imported) == (5, len(ARCHS))
    measured = {CELL.canonical(CELL.parse(text)) for text in result.measurements["arch"]}
    assert len(measured) == 5
    assert not measured & set(ARCHS)
    again = lab.onboard("toy", space="nasbench201", budget=5, out=tmp_path / "out")
    assert (again.measured, again.imported) == (5, len(ARCHS))
    assert lab.predict("toy", archs=[ARCHS[0].text]).support == len(ARCHS) + 5


def test_an_imported_label_does_not_make_a_simulated_device_real(lab: Lab, tmp_path: Path) -> None:
    lab.measure("toy", space="nasbench201", archs=ARCHS[:3])
    before = lab.predictor("toy", space="nasbench201", predictor=PredictorOptions("flops")).card
    lab.import_labels(table(tmp_path / "mine.csv", archs=ARCHS[3:4]), "toy")
    card = lab.predictor("toy", space="nasbench201", predictor=PredictorOptions("flops")).card
    assert (before.simulated, card.simulated, card.labels) == (True, True, 4)
    assert card.device == before.device


def test_the_loop_keeps_imported_labels_of_the_holdout_unseen() -> None:
    loop = ClosedLoop(CELL, "ridge", budget=2, exclude=ARCHS[:1])
    loop.give(ARCHS[0].text, 5.0, None)
    loop.give(ARCHS[1].text, 5.0, float("nan"))
    assert (loop.measured, loop.imported) == (1, 1)
    loop.record(ARCHS[1].text, "ok", 6.0, 0.1)
    assert (loop.measured, loop.imported, loop.support_ms().tolist()) == (1, 0, [6.0])
    loop.give(ARCHS[1].text, 5.0, None)
    assert loop.support_ms().tolist() == [6.0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_comes_back_as_it_went_out(lab: Lab, tmp_path: Path, suffix: str) -> None:
    lab.measure("toy", space="nasbench201", count=4)
    lab.import_labels(table(tmp_path / "mine.csv", stderr_ms=0.1), "pixel-6a/tflite/cpu/int8")
    out = tmp_path / f"export.{suffix}"
    assert _latlab("export", "--store", lab.store.path, "--out", out) == 0
    other = Lab(tmp_path / "other.db")
    kept = other.import_labels(out, "each")
    assert {one.target for one in kept} == {"toy/onnxruntime/cpu/fp32/t1/b1", "pixel-6a/tflite/cpu/int8/t1/b1"}
    columns = ["target", "space", "arch", "latency_ms", "stderr_ms", "simulated", "as_written"]
    went, came = (one.store.table()[columns].sort_values(["target", "arch"]) for one in (lab, other))
    pd.testing.assert_frame_equal(
        went.reset_index(drop=True), came.reset_index(drop=True), check_dtype=False, rtol=1e-12
    )
    assert came["simulated"].sum() == 4


def test_the_holdout_of_an_export_stays_unseen(lab: Lab, tmp_path: Path) -> None:
    lab.onboard("toy", space="nasbench201", budget=4, holdout=3, out=tmp_path / "out")
    _latlab("export", "--store", lab.store.path, "--out", tmp_path / "e.csv")
    other = Lab(tmp_path / "other.db")
    other.import_labels(tmp_path / "e.csv", "each")
    assert other.store.table()["role"].value_counts().to_dict() == {"listed": 4, "holdout": 3}
    assert other.predict("toy", archs=[ARCHS[0].text]).support == 4


def test_latlabs_latency_table(lab: Lab, tmp_path: Path) -> None:
    lab.onboard("toy", space="nasbench201", budget=4, out=tmp_path / "out")
    path = tmp_path / "out" / "latency_table.csv"
    frame = pd.read_csv(path).drop(columns=["measured_ms", "stderr_ms"], errors="ignore")
    frame.to_csv(path, index=False)
    with pytest.raises(BadInputError, match="holds predictions of latlab"):
        lab.import_labels(path, PIXEL)
    labels = lab.store.table().set_index("arch")
    frame["measured_ms"], frame["stderr_ms"] = (frame["arch"].map(labels[one]) for one in ("latency_ms", "stderr_ms"))
    frame.to_csv(path, index=False)
    [kept] = lab.import_labels(path, PIXEL)
    assert (kept.new, kept.errors) == (4, 4)
    came = lab.store.table(target=PIXEL).set_index("arch")
    assert came["latency_ms"].to_dict() == pytest.approx(labels["latency_ms"].to_dict())


def test_nothing_is_half_imported(lab: Lab, tmp_path: Path) -> None:
    good, bad = table(tmp_path / "good.csv"), table(tmp_path / "bad.csv", latency_ms="x")
    with pytest.raises(BadInputError, match=r"bad\.csv, line 2"):
        lab.import_labels([good, bad], PIXEL)
    with pytest.raises(BadInputError, match=r"good\.csv|other\.csv"):
        lab.import_labels([good, table(tmp_path / "other.csv")], PIXEL)
    frame = table(tmp_path / "two.csv", device=["a", "b"] * 20)
    with pytest.raises(BadInputError, match="several devices") as error:
        lab.import_labels(frame, PIXEL)
    assert "--device" in str(error.value.hint)
    assert lab.store.table().empty
    assert lab.import_labels(frame, PIXEL, device="b")[0].new == 20


def test_labels_with_dead_edges_are_kept_apart(lab: Lab, tmp_path: Path) -> None:
    lab.import_labels(table(tmp_path / "mine.csv"), "toy", as_written=True)
    result = lab.onboard("toy", space="nasbench201", budget=3, out=tmp_path / "out")
    assert (result.measured, result.imported) == (3, 0)


def test_removing(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "mine.csv")
    assert _latlab("import", path, "--as-target", "pixel", "--store", lab.store.path) == 0
    said = capsys.readouterr().out
    assert "pixel stands for pixel/onnxruntime/cpu/fp32/t1/b1" in said
    assert "40 new labels of nasbench201" in said
    assert _latlab("sources", "remove", "pixel/onnxruntime/cpu/fp32/t1/b1", "--store", lab.store.path) == 0
    assert Store(lab.store.path).table().empty


def _latlab(*words: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["latlab", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_the_pages_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of docs/own-labels.md works on the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text()
    for name, content in re.findall(r"```text file=(\S+)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(content)
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 8
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "latlab"
        assert _latlab(*words[1:]) == 0, f"{command}: {capsys.readouterr()}"
