"""Tests of sources in the store: each is kept once, can be removed, and is given out with what was measured."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from files import latencies, table_file

from latlab.harness import Lab
from latlab.harness.active_learning.source_devices import MIN_LABELS, SourceFilter, signature, source_devices, thinned
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import read_sources
from latlab.harness.store.schema import SCHEMA_VERSION
from latlab.harness.store.sources import keep, listing, remove
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture, get

CELL, FBNET = get("nasbench201"), get("fbnet")
ARCHS = CELL.sample(30)
SPACE_GENES = CELL.genes(list(CELL.enumerate()))
HERE, TWIN = Target("local", "onnxruntime"), Target("local", "onnxruntime", threads=4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "latlab.db")


def imported(store: Store, folder: Path, device: str = "gpu", archs: Sequence[Architecture] = ARCHS) -> Path:
    path = folder / f"{device}.csv"
    table_file(path, {"arch": [a.text for a in archs], device: latencies(archs)})
    keep(store, read_sources([path], space=archs[0].space))
    return path


def measured(
    store: Store, target: Target, archs: Sequence[Architecture], role: str = "train", policy: str = "default",
    simulated: bool = False, scale: float = 1.5, as_written: bool = False,
) -> None:  # fmt: skip
    campaign = store.campaign(target, archs[0].space, PRESETS[policy], 0, role, {"as_written": as_written})
    fingerprint = store.fingerprint({"simulated": simulated})
    for arch, latency in zip(archs, latencies(archs, scale), strict=True):
        row = store.begin(campaign, 1, arch.text, role, fingerprint_id=fingerprint)
        store.finish(row.id, "ok", latency_ms=latency, stderr_ms=0.01)


def names(store: Store, study: SourceFilter | None = None, which: str = "all") -> list[str]:
    return [source.name for source in source_devices(store, CELL, study, which)]


# Keeping


def test_what_is_imported_comes_back(store: Store, tmp_path: Path) -> None:
    imported(store, tmp_path)
    [source] = source_devices(store, CELL)
    assert source.name == "gpu"
    assert source.stderr_ms is None
    found = dict(zip(map(tuple, source.genes.tolist()), source.latency_ms.tolist(), strict=True))
    assert found == pytest.approx({a.genes: v for a, v in zip(ARCHS, latencies(ARCHS), strict=True)})
    assert source_devices(store, FBNET) == []


def test_the_same_file_is_kept_once_and_another_of_the_name_refused(store: Store, tmp_path: Path) -> None:
    path = imported(store, tmp_path)
    [again] = keep(store, read_sources([path]))
    assert not again.is_new
    assert len(listing(store)) == 1
    table_file(path, {"arch": [a.text for a in ARCHS], "gpu": latencies(ARCHS, 2), "other": latencies(ARCHS)})
    with pytest.raises(BadInputError, match=r"has a source gpu of nasbench201 already, from .*gpu\.csv") as error:
        keep(store, read_sources([path]))
    assert "latlab sources remove gpu" in str(error.value.hint)
    assert names(store) == ["gpu"]  # all or none
    with pytest.raises(BadInputError, match="already"):
        keep(store, read_sources([path], device="gpu", unit="us", insist=True))


def test_removing(store: Store, tmp_path: Path) -> None:
    for device in ("a", "b"):
        imported(store, tmp_path, device)
    imported(store, tmp_path, "a", FBNET.sample(5))
    assert remove(store, "a", "fbnet") == [("fbnet", 5)]
    assert remove(store, "a") == [("nasbench201", 30)]
    assert names(store) == ["b"]
    with pytest.raises(BadInputError, match="no imported source a") as error:
        remove(store, "a")
    assert "It has: b" in str(error.value.hint)
    remove(store, "b")
    with sqlite3.connect(store.path) as connection:
        for table in ("sources", "source_labels", "source_archs"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_an_older_store_is_taken_along(store: Store, tmp_path: Path) -> None:
    measured(store, HERE, ARCHS)
    store.close()
    with sqlite3.connect(store.path) as connection:
        for table in ("sources", "source_archs", "source_labels"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 2")
    again = Store(store.path)
    assert names(again) == [str(HERE)]
    imported(again, tmp_path)
    assert names(again) == ["gpu", str(HERE)]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        for table in ("sources", "source_archs", "source_labels"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 2")
    again.close()
    assert names(Store(store.path)) == [str(HERE)], "an older one is read as it is"


def test_many_labels_are_kept_in_seconds(store: Store, tmp_path: Path) -> None:
    texts = [arch.text for arch in CELL.enumerate()]
    columns = {f"d{i}": np.linspace(1, 2 + i, len(texts)) for i in range(4)}
    tables = read_sources([table_file(tmp_path / "t.parquet", {"arch": texts, **columns})])
    keep(store, tables)
    assert [len(source.genes) for source in source_devices(store, CELL)] == [15625] * 4
    assert store.path.stat().st_size < 30e6


# Handing out


def test_measured_targets_are_sources_of_one_another(store: Store, tmp_path: Path) -> None:
    imported(store, tmp_path)
    measured(store, HERE, ARCHS)
    measured(store, Target("pi", "tflite"), ARCHS[:12])
    measured(store, Target("phone", "tflite"), ARCHS[: MIN_LABELS - 1])
    measured(store, Target("pretend", "tflite"), ARCHS, simulated=True)
    assert names(store) == ["gpu", str(HERE), "pi/tflite/cpu/fp32/t1/b1"]
    assert names(store, SourceFilter(str(HERE))) == ["gpu", "pi/tflite/cpu/fp32/t1/b1"]
    assert "pretend/tflite/cpu/fp32/t1/b1" in names(store, SourceFilter("x/tflite/cpu/fp32/t1/b1", simulated=True))
    assert names(store, which="none") == []
    assert names(store, which="phone, gpu") == ["gpu", "phone/tflite/cpu/fp32/t1/b1"]
    assert names(store, which="pretend") == ["pretend/tflite/cpu/fp32/t1/b1"]
    with pytest.raises(BadInputError, match="no source nobody in nasbench201") as error:
        names(store, which="nobody")
    assert "gpu" in str(error.value.hint)
    for wrong in ("", "gpu,none", ","):
        with pytest.raises(BadInputError, match="names no sources"):
            names(store, which=wrong)
    with pytest.raises(BadInputError, match="its own source"):
        names(store, SourceFilter(str(HERE)), str(HERE))


def test_labels_of_different_meaning_are_not_pooled(store: Store) -> None:
    measured(store, HERE, ARCHS[:12])
    measured(store, HERE, ARCHS[12:15], policy="help", role="listed")
    [source] = source_devices(store, CELL)
    seen = {tuple(genes) for genes in source.genes.tolist()}
    assert seen == {CELL.canonical(arch).genes for arch in ARCHS[:12]}
    assert source.stderr_ms is not None


def test_another_name_of_the_same_device_is_not_another_device(store: Store) -> None:
    """The same measurement under another name would give the answer away; another thread count would not."""
    measured(store, HERE, ARCHS)
    measured(store, TWIN, ARCHS)
    alias = SourceFilter("box/onnxruntime/cpu/fp32/t1/b1", same_device=lambda name: name in ("box", "local"))
    assert names(store, alias) == [str(TWIN)]


def test_the_hold_out_stays_unseen_on_the_device(store: Store, tmp_path: Path) -> None:
    imported(store, tmp_path)
    measured(store, TWIN, ARCHS)
    study = SourceFilter(str(HERE), same_device=lambda name: name == "local", holdout=ARCHS[:10])
    other, twin = source_devices(store, CELL, study)
    unseen = {CELL.canonical(arch).genes for arch in ARCHS[:10]}
    assert not unseen & {tuple(genes) for genes in twin.genes.tolist()}
    assert len(other.genes) == 30


def test_an_imported_copy_of_the_target_is_not_its_source(store: Store, tmp_path: Path) -> None:
    measured(store, HERE, ARCHS, scale=1.0)
    imported(store, tmp_path, "copy")
    assert names(store, SourceFilter(str(HERE))) == []
    assert "copy" in names(store, SourceFilter(str(TWIN)))


def test_the_signature_tells_sources_apart(store: Store, tmp_path: Path) -> None:
    imported(store, tmp_path)
    [source] = source_devices(store, CELL)
    told = signature([source])
    assert told["sources"] == [{"name": "gpu", "architectures": 30}]
    assert told == signature(source_devices(store, CELL))
    assert told["sha256"] != signature([])["sha256"]


def test_thinned_sources_keep_the_same_architectures() -> None:
    genes = SPACE_GENES
    one = SourceDevice("one", genes, np.arange(1.0, 1 + len(genes)), np.ones(len(genes)))
    two = SourceDevice("two", genes[::-1], np.ones(len(genes)))
    few, other = thinned(one, 500), thinned(two, 500)
    assert {tuple(row) for row in few.genes.tolist()} == {tuple(row) for row in other.genes.tolist()}
    assert len(few.genes) == len(few.latency_ms) == 500
    assert np.array_equal(genes[(few.latency_ms - 1).astype(int)], few.genes)
    shares = [np.mean(few.genes == op) for op in range(5)]  # about as in the whole space
    assert max(shares) - min(shares) < 0.06
    assert thinned(one, len(genes)) is one


def test_lab_knows_names_of_the_same_device(tmp_path: Path) -> None:
    (tmp_path / "inventory.yaml").write_text(
        "devices:\n  box: {transport: local}\n  pi: {transport: ssh, host: a.example}\n"
        "  same-pi: {transport: ssh, host: a.example}\n  toy: {transport: simulated, kind: pi4}\n"
    )
    lab = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    pi, toy = Target("pi", "tflite"), Target("toy", "tflite")
    for target in (HERE, pi):
        measured(lab.store, target, ARCHS)
    measured(lab.store, toy, ARCHS, simulated=True)

    def others(target: str) -> list[str]:
        return [source.name for source in lab.sources("nasbench201", exclude_target=target)]

    assert others("box/onnxruntime/cpu/fp32/t1/b1") == [str(pi)]
    assert others("same-pi/tflite/cpu/fp32/t1/b1") == [str(HERE)]
    assert others("same-pi/tflite/cpu/fp32/t4/b1") == [str(HERE), str(pi)]
    assert str(toy) in others("toy/tflite/cpu/fp32/t4/b1")
    assert len(lab.sources("nasbench201", which="none")) == 0
    cut = lab.sources("nasbench201", exclude_target=str(TWIN), holdout=[ARCHS[0].text])
    assert [len(source.genes) for source in cut] == [len({CELL.canonical(a) for a in ARCHS}) - 1 for _ in "1"] + [
        len({CELL.canonical(a) for a in ARCHS})
    ]


# The commands


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table_file(Path("t.csv"), {"arch": [a.text for a in [*ARCHS, ARCHS[0]]], "gpu": latencies([*ARCHS, ARCHS[1]])})
    code, said, _ = run(capsys, monkeypatch, "import", "t.csv", "--json")
    assert code == 0
    [source] = json.loads(said)["sources"]
    assert (source["name"], source["space"], source["architectures"], source["is_new"]) == (
        "gpu", "nasbench201", 30, True,
    )  # fmt: skip
    code, said, _ = run(capsys, monkeypatch, "import", "t.csv")
    assert (code, "was there already" in said) == (0, True)
    code, said, _ = run(capsys, monkeypatch, "sources", "--json")
    assert json.loads(said)["sources"][0]["kind"] == "imported"
    code, said, _ = run(capsys, monkeypatch, "sources")
    assert "gpu" in said
    assert "more than once" in said
    code, said, err = run(capsys, monkeypatch, "import", "t.csv", "--format", "eagle")
    assert (code, "looks like csv" in err) == (2, True)
    code, said, err = run(capsys, monkeypatch, "sources", "--store", "other.db", "remove", "gpu")
    assert (code, "there is no store other.db" in err) == (2, True)
    code, said, _ = run(capsys, monkeypatch, "sources", "remove", "gpu", "--json")
    assert json.loads(said)["removed"] == [{"name": "gpu", "space": "nasbench201", "architectures": 30}]
    code, said, _ = run(capsys, monkeypatch, "sources")
    assert "no device yet" in said
    code, _, err = run(capsys, monkeypatch, "sources", "--store", "none.db")
    assert (code, os.path.exists("none.db"), "there is no store" in err) == (2, False, True)
