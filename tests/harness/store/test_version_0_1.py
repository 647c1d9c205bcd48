"""A store that version 0.1 (commit 2bc7783) has written opens, reads the same, and goes on.

It was made on a simulated Pi with `latlab measure toy --space nasbench201 --count 5 --policy quick`, two of its
networks measured again, three blocks of FBNet, an imported table and a sustained run.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.cli.main import main
from latlab.harness.exporters import get_exporter
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.distributions import LABEL_COLUMNS, with_distributions
from latlab.harness.store.schema import SCHEMA_VERSION, Base
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.telemetry.recorded_pass import PassKind
from latlab.harness.transports.simulated.config import SimulatedDevice

FIXTURES = Path(__file__).parent / "fixtures"
TARGET = "toy/onnxruntime/cpu/fp32/t1/b1"
WRITTEN: list[dict[str, Any]] = [json.loads(line) for line in (FIXTURES / "version_0_1.jsonl").open()]
"""What version 0.1 printed of the first session."""
SAME = ("size_bytes", "input_shape", "operators", "exporter_version")
"""What an exported file has of the files of version 0.1, whatever the processor."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "latlab.db"
    path.write_bytes(gzip.decompress((FIXTURES / "version_0_1.db.gz").read_bytes()))
    return path


def test_labels_read_as_they_were_written(path: Path) -> None:
    store = Store(path)
    table = store.table(target=TARGET, space="nasbench201")
    first = table[table["session"] == 1].set_index("arch")
    assert len(first) == len(WRITTEN) == 5
    for row in WRITTEN:
        for name in ("latency_ms", "stderr_ms", "low_ms", "high_ms", "raw_ms", "verdict", "status", "artifact_sha256"):
            assert first.loc[row["arch"], name] == row[name], name
    assert set(table["role"]) == {Role.LISTED}
    assert set(table["status"]) == {Status.OK}
    assert set(table["selection"]) == {Selection.RANDOM}


def test_passes_anchors_and_sources_are_there(path: Path) -> None:
    store = Store(path)
    (campaign, *_) = store.campaigns()["campaign"]
    passes, anchors = store.session_passes(campaign, 1), store.anchors(campaign, 1)
    assert {one.kind for one in passes} == {PassKind.LABEL}
    assert all(one.samples_s > 0 and one.at_s is not None for one in passes)
    assert anchors[0].in_line
    assert anchors[0].arch.startswith("|")
    sustained = store.table(sustained=True)
    (run,) = sustained[sustained["selection"] == Selection.SUSTAIN]["id"]
    assert {one.kind for one in store.passes(int(run))} == {PassKind.SUSTAIN}
    assert [one.name for one in Lab(path).sources("nasbench201", which="board")] == ["board"]


def test_percentiles_are_computed_from_its_passes(path: Path) -> None:
    store = Store(path)
    table = store.table(target=TARGET, space="nasbench201")
    assert "p50_ms" not in table, "version 0.1 kept none"
    filled = with_distributions(store, table)
    assert (filled["p50_ms"] <= filled["p90_ms"]).all()
    assert filled["p50_ms"].to_numpy() == pytest.approx(table["latency_ms"].to_numpy(), rel=0.1)
    assert (filled["jitter_percent"] > 0).all()
    assert filled["throughput_per_s"].to_numpy() == pytest.approx(1000 / table["latency_ms"].to_numpy())


def test_it_is_shown_and_exported_with_them(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "measured.csv"
    for words in (["show", str(path), "--wide"], ["export", "--store", str(path), "--out", str(out)]):
        monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    shown = capsys.readouterr().out
    assert "p99" in shown
    assert "jitter" in shown
    exported = pd.read_csv(out)
    assert set(LABEL_COLUMNS) <= set(exported)
    assert exported["p50_ms"].notna().all()


def test_the_same_command_goes_on(path: Path) -> None:
    written = "latlab 0.1.0, torch 2.13.0+cpu, onnx 1.23.2, opset 17"
    if get_exporter("onnx").version != written:
        pytest.skip(f"exported files of another torch or onnx than {written} make another campaign")
    lab = Lab(path)
    lab.inventory = Inventory({"toy": SimulatedDevice.model_validate({"kind": "pi4", "heating": {"watts": 4.0}})})
    before = lab.store.table(target=TARGET, space="nasbench201")
    rows = lab.measure("toy", space="nasbench201", count=5, policy="quick").rows
    assert rows["session"].unique().tolist() == [2], "its last session goes on"
    after = lab.store.table(target=TARGET, space="nasbench201")
    assert after[after["id"].isin(before["id"])]["latency_ms"].tolist() == before["latency_ms"].tolist()
    assert len(after) == len(before) + 2
    # Processors round weights differently in their last bits, so that the hashes of files of other processors differ.
    before, after = (
        {row["arch"]: {name: json.loads(row["artifact"])[name] for name in SAME} for _, row in table.iterrows()}
        for table in (before, after[~after["id"].isin(before["id"])])
    )
    assert after == {arch: before[arch] for arch in after}, (
        "exporters write other files than in 0.1: raise `exporters.base.FILES_SINCE`"
    )
    assert lab.quality("toy", space="nasbench201")[0].labels.networks == 5
    found = lab.predict(
        TARGET, space="nasbench201", archs=[WRITTEN[0]["arch"]], predictor=PredictorOptions(sources="none")
    )
    assert found.support == 5


def test_it_is_brought_up_to_date_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError("no space left")

    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("latlab.harness.store.migrations._mark", fail)  # the last step: nothing else can fail there
        with pytest.raises(OSError, match="no space"):
            Store(path).note("a", "b", "c")
    assert path.read_bytes() == before
    table = Store(path).table(raw=True, sustained=True)
    with Store(path) as store:
        store.note("a", "b", "c")
        pd.testing.assert_frame_equal(store.table(raw=True, sustained=True), table)
        with store.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
            assert connection.exec_driver_sql("PRAGMA user_version").scalar_one() == SCHEMA_VERSION
