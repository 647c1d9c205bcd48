"""Rows with values that nothing measured can have: named, and left out by everything that reads, merges and copies."""

from __future__ import annotations

import os
import resource
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latlab.harness.active_learning.source_devices import SourceFilter, source_devices
from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import read_sources
from latlab.harness.lab import Lab
from latlab.harness.store.copying import copy_store, removed_if_new
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.inspection import check_store, store_info
from latlab.harness.store.merging import merge_stores
from latlab.harness.store.sources import keep, listing
from latlab.harness.store.store import Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

SPACE = get("nasbench201")
ARCHS = [arch.text for arch in SPACE.sample(6, 0)]
TARGET = "pi/onnxruntime/cpu/fp32/t1/b1"
LONG = "hex(zeroblob(6000000))"
IMPOSSIBLE = [
    *(("measurements", "latency_ms", value) for value in ("1e308", "1e-320", "-5", "0", "NULL")),
    *(("measurements", "stderr_ms", value) for value in ("1e308", "-1")),
    ("measurements", "raw_ms", "-1"),
    ("measurements", "low_ms", "-1e300"),
    ("measurements", "high_ms", "1e300"),
    ("measurements", "status", "'bogus'"),
    ("measurements", "role", "'boss'"),
    ("measurements", "verdict", "'odd'"),
    ("measurements", "session", "-3"),
    ("measurements", "order", "-1"),
    ("measurements", "arch", "'foo'"),
    ("measurements", "arch", LONG),
    ("measurements", "error", LONG),
    ("measurements", "metrics", """'{"p50_ms": 1e400}'"""),
    ("measurements", "times_s", """'{"push_s": NaN}'"""),
    ("campaigns", "target", "'a/b/c'"),
    ("campaigns", "target", "'pi/onnxruntime/cpu/fp32/t1/b99999'"),
    ("campaigns", "target", LONG),
    ("passes", "samples_ns", "'[-1]'"),
    ("passes", "samples_ns", "'[1.5]'"),
    ("passes", "samples_ns", "'[9999999999999999]'"),
    ("passes", "number", "-1"),
    ("anchors", "arch", "'foo'"),
    ("anchors", "session", "0"),
    ("source_labels", "latency_ms", "-1"),
    ("source_labels", "stderr_ms", "1e300"),
    ("source_archs", "arch", "'foo'"),
    ("sources", "name", LONG),
]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    with Store(folder / "sound.db") as store:
        campaign = store.campaign(Target("pi", "onnxruntime"), SPACE.name, PRESETS["default"], 0, "random")
        for arch in ARCHS:
            row = store.begin(campaign, 1, arch, "listed")
            store.add_pass(row.id, RecordedPass([5], [10, 11], {}, 0))
            store.finish(row.id, "ok", latency_ms=2.0, stderr_ms=0.1, raw_ms=2.0, low_ms=1.8, high_ms=2.2)
        store.add_anchor(campaign, 1, RecordedAnchor([5], [6], {}, arch=ARCHS[0], in_line=True))
        store.note_session(campaign.id, 1, latlab="0.2.0")
        (folder / "theirs.csv").write_text("arch,latency_ms\n" + "".join(f"{arch},3.5\n" for arch in ARCHS))
        keep(store, read_sources([folder / "theirs.csv"], space=SPACE.name))
    return (folder / "sound.db").read_bytes()


@pytest.fixture
def path(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "mine.db"
    path.write_bytes(content)
    return path


def damage(path: Path, table: str, column: str, value: str) -> None:
    with sqlite3.connect(path) as connection:
        key = "arch_id" if table == "source_labels" else "rowid"
        connection.execute(f'UPDATE {table} SET "{column}" = {value} WHERE {key} = (SELECT min({key}) FROM {table})')
    connection.close()


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_store_itself_is_sound(path: Path) -> None:
    assert check_store(path).is_sound
    assert store_info(path).versions == ["0.2.0"]


@pytest.mark.parametrize(("table", "column", "value"), IMPOSSIBLE)
def test_an_impossible_value(path: Path, tmp_path: Path, table: str, column: str, value: str) -> None:
    damage(path, table, column, value)

    (found,) = check_store(path).damaged
    assert found.table == table
    assert column in found.reason or "no latency" in found.reason
    assert len(str(found)) < 300

    with warnings.catch_warnings(record=True) as said, Store(path) as store:
        warnings.simplefilter("always")
        rows = store.table(raw=True)
        sources = source_devices(store, SPACE, SourceFilter(simulated=True))
        labelled, known = store.labelled(), listing(store)
        store.campaigns(), store.failures()
    assert all(issubclass(one.category, StoreWarning) for one in said)
    lost = {"measurements": 1, "campaigns": len(ARCHS)}.get(table, 0)
    assert len(rows) == len(ARCHS) - lost
    assert sum(map(len, rows["passes"])) == len(rows) - (table == "passes" and column == "samples_ns")
    assert labelled == ([] if table == "campaigns" else [(TARGET, SPACE.name)])
    assert len(known) == 2 - (table in ("campaigns", "sources"))
    imported = [len(one.genes) for one in sources if one.name != TARGET]
    assert imported == ([] if table == "sources" else [len(ARCHS) - table.startswith("source_")])
    if table not in ("anchors", "passes"):
        assert any(f"{table} row" in str(one.message) for one in said)

    with pytest.warns(StoreWarning, match=f"mine.db has a damaged row, which is copied as it is: {table} row"):
        copy_store(path, tmp_path / "copy.db")
    with pytest.warns(StoreWarning, match=f"mine.db has a damaged row, which is left out: {table} row"):
        merged = merge_stores([path, tmp_path / "copy.db"], tmp_path / "merged.db")
    assert (merged.measurements, merged.sources, merged.damaged) == (0, 0, 2)
    assert check_store(tmp_path / "merged.db").is_sound


def test_show_names_what_it_does_not_count(path: Path) -> None:
    damage(path, "measurements", "latency_ms", "-5")
    with pytest.warns(StoreWarning, match=r"measurements row 1 \(latency_ms is -5"):
        assert Store(path).campaigns()["ok"].tolist() == [len(ARCHS) - 1]


def test_a_source_of_which_every_label_is_damaged(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE source_labels SET latency_ms = 'slow'")
    connection.close()
    with pytest.warns(StoreWarning, match="6 damaged rows, which are left out: source_labels row"):
        assert [one.name for one in source_devices(Store(path), SPACE, which="theirs")] == []


def test_a_name_of_a_table_that_is_no_text(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE campaigns (", b"CREATE TABLE\xbecampaigns (", 1))
    with pytest.raises(StoreError, match=r"mine.db is damaged") as caught:
        check_store(path)
    assert ".recover" in str(caught.value.hint)


def test_an_empty_file_is_an_empty_store(path: Path, tmp_path: Path) -> None:
    empty, copy, merged = (tmp_path / name for name in ("empty.db", "copy.db", "merged.db"))
    empty.touch()
    copy_store(empty, copy)
    assert store_info(copy).labels == 0
    merge_stores([path, empty, copy], merged)
    assert store_info(merged).labels == len(ARCHS)


@pytest.mark.parametrize("suffix", ["", "-wal", "-journal"])
def test_a_pipe(path: Path, suffix: str) -> None:
    pipe = path.with_name(path.name + suffix)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    link = path.with_name("link.db")
    link.symlink_to(path)
    for one in (path, link):
        with pytest.raises(StoreError, match=f"{pipe.name} is no ordinary file"):
            Store(one)


def test_a_device_and_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="/dev/zero is no ordinary file"):
        check_store("/dev/zero")
    (tmp_path / "x.yaml").write_text("devices: {}")
    for path in (tmp_path / "x.yaml", tmp_path / "none.db"):
        with pytest.raises(StoreError) as caught:
            check_store(path)
        assert "--store" not in str(caught.value.hint)


def test_a_full_disk(path: Path, tmp_path: Path) -> None:
    for make in (lambda to: copy_store(path, to), lambda to: merge_stores([path, path], to)):
        with small_disk(8192), pytest.raises(StoreError, match=r"cannot write .*new.db: the disk is full") as caught:
            make(tmp_path / "new.db")
        assert "continues" not in str(caught.value.hint)
        assert [one.name for one in tmp_path.iterdir()] == ["mine.db"]


def test_a_store_that_cannot_be_filled_is_not_left_behind(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    for one in (new, path):
        with small_disk(8192), pytest.raises(StoreError), removed_if_new(one), Store(one) as store:
            store.note("pi", "lost", "x" * 100_000)
    assert not new.exists()
    assert check_store(path).is_sound


def test_predicting_for_a_device_that_the_store_does_not_have(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"there is no store .*nope.db"):
        Lab(tmp_path / "nope.db").predictor("phone")
    with pytest.raises(BadInputError, match="has no measurements of phone"):
        Lab(path).predictor("phone")


def test_labels_that_no_store_would_hold(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    for value in ("1e308", "1e-320"):
        file.write_text("arch,latency_ms\n" + "".join(f"{arch},3.5\n" for arch in ARCHS[1:]) + f"{ARCHS[0]},{value}\n")
        with pytest.raises(BadInputError, match="nothing takes less than 1e-07 ms or more than 1e"):
            read_sources([file], space=SPACE.name, insist=True)
