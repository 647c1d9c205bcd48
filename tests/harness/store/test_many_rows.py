"""Stores with more rows than memory or patience: what is read in parts is what would be read at once."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from latlab.harness.active_learning.prediction import KeptPredictors
from latlab.harness.active_learning.source_devices import SourceFilter, source_devices
from latlab.harness.cli import table_files
from latlab.harness.cli.main import app
from latlab.harness.cli.table_files import TableFormat, write_frames
from latlab.harness.lab import Lab
from latlab.harness.store import tables
from latlab.harness.store.comparable import comparable, comparable_campaigns
from latlab.harness.store.csv_safety import harmless
from latlab.harness.store.distributions import with_distributions
from latlab.harness.store.drawing import drawn
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.sources import listing
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS, Question
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

SPACE = get("nasbench201")
ANY = SourceFilter(simulated=True)
ARCHS = [arch.text for arch in SPACE.sample(300, random.Random(0))]


def fill(store: Store, device: str, archs: list[str], policy: str = "quick", seed: int = 0, **fields: object) -> None:
    """Measure networks: every seventh fails, every fifth is without percentiles, every third without a pass."""
    with store.writing():
        campaign = store.campaign(Target(device, "onnxruntime"), "nasbench201", PRESETS[policy], seed, "random")
        facts = store.fingerprint({"simulated": True})
        rng = random.Random(f"{device} {policy} {seed}")
        for place, arch in enumerate(archs):
            row = store.begin(campaign, 1, arch, "listed", fingerprint_id=facts)
            ms = rng.uniform(5, 50)
            if place % 7 == 6:
                store.finish(row.id, "timeout", error="=1+1", times_s={"build_s": 1})
                continue
            metrics: dict[str, object] = {"file_bytes": 7 if place % 2 else 7.5, "runs": place}
            if place % 5:
                metrics |= dict.fromkeys(("p50_ms", "p90_ms", "p95_ms", "p99_ms", "jitter_percent"), ms)
            if place % 3:
                store.add_pass(row.id, RecordedPass([1], [round(ms * 1e6)] * 3, {"before": {}, "after": {}}))
            if place == len(archs) - 1:
                metrics["late"] = True
            measured = {"latency_ms": ms, "stderr_ms": ms / 100, "raw_ms": ms, "metrics": metrics, **fields}
            store.finish(row.id, "ok", **measured)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "latlab.db")
    fill(store, "a", ARCHS[:40])
    fill(store, "a", ARCHS[20:30], policy="default")
    fill(store, "b", ARCHS[10:50])
    campaign = store.campaign(Target("b", "tflite"), "nasbench201", PRESETS["quick"], 0, "random")
    copied = store.begin(campaign, 1, ARCHS[0], "listed")
    store.finish(copied.id, "ok", latency_ms=1.0, same_graph_as=1)
    return store


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_in_parts_is_the_export_at_once(
    store: Store, tmp_path: Path, suffix: str, raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = with_distributions(store, store.table(raw=raw, provisional=True))
    if suffix == "csv":
        text = table.assign(passes=table["passes"].map(json.dumps)) if raw else table
        harmless(text).to_csv(tmp_path / "at_once.csv", index=False)
    else:
        table.to_parquet(tmp_path / "at_once.parquet", index=False)
    monkeypatch.setattr(tables, "_CHUNK", 3)
    words = ["export", "--store", str(store.path), "--out", str(tmp_path / f"parts.{suffix}")]
    done = CliRunner().invoke(app, [*words, "--raw"] if raw else words)
    assert done.exit_code == 0, done.output
    at_once, parts = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("at_once", "parts"))
    assert parts == at_once
    assert not list(tmp_path.glob(".*"))


def test_a_file_of_several_frames_is_that_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pd.DataFrame({"a": np.arange(5000.0), "b": [f"word {n % 7}" for n in range(5000)], "c": [None] * 5000})
    for format_ in (TableFormat.csv, TableFormat.parquet):
        one, more = tmp_path / "one", tmp_path / "more"
        write_frames([table], table, one, format_)
        write_frames([table[:1024], table[1024:4096], table[4096:]], table, more, format_)
        assert one.read_bytes() == more.read_bytes()
    monkeypatch.setattr(table_files, "ROW_GROUP", 1000)
    write_frames([table[:1024], table[1024:4096], table[4096:]], table, more, TableFormat.parquet)
    pd.testing.assert_frame_equal(pd.read_parquet(more), pd.read_parquet(one))


def test_parts_are_in_order_around_text_that_is_not_utf_8(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE measurements SET error = CAST(x'c328' AS TEXT) WHERE id = 7")
    connection.close()
    monkeypatch.setattr(tables, "_CHUNK", 4)
    ids = Store(store.path).table(only=("id",))["id"].tolist()
    assert ids == sorted(set(ids))
    assert len(ids) == 91
    assert Store(store.path).table()["error"][6].startswith("\ufffd")


def test_a_part_of_damaged_rows_alone(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE measurements SET latency_ms = 'slow' WHERE id <= 6")
    connection.close()
    monkeypatch.setattr(tables, "_CHUNK", 3)
    with pytest.warns(StoreWarning, match="6 damaged rows"):
        found = Store(store.path).stream(Question(provisional=True), tmp_path)
    assert found.rows == 85 == sum(map(len, found.frames()))


def test_few_labels_of_a_source_are_all_used(store: Store) -> None:
    every, most = source_devices(store, SPACE, ANY), source_devices(store, SPACE, ANY, most=300)
    assert [source.name for source in every] == ["a/onnxruntime/cpu/fp32/t1/b1", "b/onnxruntime/cpu/fp32/t1/b1"]
    for one, other in zip(every, most, strict=True):
        assert (one.genes == other.genes).all()
        assert (one.latency_ms == other.latency_ms).all()


def test_of_many_labels_the_same_networks_are_drawn_for_each_source(tmp_path: Path) -> None:
    store = Store(tmp_path / "latlab.db")
    for device in ("one", "two"):
        fill(store, device, ARCHS)
    fill(store, "few", ARCHS[:15])
    every = {source.name[:3]: source for source in source_devices(store, SPACE, ANY)}
    some = {source.name[:3]: source for source in source_devices(store, SPACE, ANY, most=50)}
    again = {source.name[:3]: source for source in source_devices(store, SPACE, ANY, "one", most=50)}
    assert (some["one"].genes == some["two"].genes).all()
    assert (some["one"].genes == again["one"].genes).all()
    assert 35 <= len(some["one"].genes) <= 50
    assert len(some["few"].genes) == len(every["few"].genes)
    rows = store.table(target="one/onnxruntime/cpu/fp32/t1/b1", only=LABELS)
    labels = {(SPACE.canonical(SPACE.parse(row.arch)).genes, row.latency_ms) for row in rows.itertuples()}
    drawn_labels = zip(map(tuple, some["one"].genes.tolist()), some["one"].latency_ms.tolist(), strict=True)
    assert set(drawn_labels) <= labels  # a network with several strings may have the label of any that was drawn


def test_rows_that_are_drawn_are_comparable(store: Store) -> None:
    fill(store, "a", ARCHS[100:140], policy="default")
    rows = store.table(target="a/onnxruntime/cpu/fp32/t1/b1", only=(*LABELS, "campaign"))
    good = rows[rows["status"] == "ok"]
    campaigns = good.drop_duplicates("campaign").set_index("campaign").to_dict("index")
    chosen = comparable_campaigns(campaigns, good["campaign"].value_counts(sort=False).to_dict())
    assert set(comparable(good)["campaign"]) == set(chosen)
    some = store.table(target="a/onnxruntime/cpu/fp32/t1/b1", only=("campaign", "arch"), networks=20)
    assert set(some["campaign"]) <= set(chosen)
    assert 20 <= some["arch"].nunique() <= 26


def test_drawing() -> None:
    texts = [f"network {number % 1000}".encode() for number in range(1500)]
    assert drawn(texts, 1000).all()
    few, more = drawn(texts, 100), drawn(texts, 300)
    assert [len(set(np.array(texts)[one])) for one in (few, more)] == [100, 300]
    assert more[few].all()  # those of a smaller draw are in a larger one
    assert (few[:500] == few[1000:]).all()  # a network that was measured twice is there with both rows, or with none
    thirds = [int(few[start : start + 333].sum()) for start in (0, 333, 666)]
    assert min(thirds) > 15, thirds


def test_a_listing_counts_what_tables_hold(store: Store) -> None:
    rows = store.table()
    good = rows[rows["status"] == "ok"]
    wanted = good.groupby("target")["arch"].nunique().to_dict()
    found = listing(store)
    assert dict(zip(found["name"], found["architectures"], strict=True)) == wanted
    assert store.finished("nasbench201") == good["target"].value_counts().to_dict()


def test_a_single_question_looks_at_no_other_labels(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptPredictors, "DIGESTED_BYTES", 0)
    asked: list[str] = []
    digest = Store.labels_digest
    monkeypatch.setattr(Store, "labels_digest", lambda self, space: asked.append(space) or digest(self, space))
    lab = Lab(store.path)
    first = lab.predictor("a/onnxruntime/cpu/fp32/t1/b1")
    assert lab.predictor("a/onnxruntime/cpu/fp32/t1/b1") is first
    assert not asked
    lab.store.note("a", "lost", "")
    second = lab.predictor("a/onnxruntime/cpu/fp32/t1/b1")  # nothing tells that labels are the same
    lab.store.note("a", "back", "")
    assert second is not first
    assert lab.predictor("a/onnxruntime/cpu/fp32/t1/b1") is second
