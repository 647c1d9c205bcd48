"""Tests of the store: what is committed stays, duplicates are impossible, foreign files are refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from latlab.harness.errors import LatlabError
from latlab.harness.store.store import Campaign, Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass
from latlab.harness.timing_policy import PRESETS

TARGET = Target("local", "onnxruntime")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "latlab.db")


def campaign_of(store: Store, seed: int = 0) -> Campaign:
    return store.campaign(TARGET, "letters", PRESETS["default"], seed, "random")


def measured(store: Store, campaign: Campaign, arch: str, latency_ms: float = 1.0, **fields: object) -> int:
    row = store.begin(campaign, 1, arch, "listed", **fields)
    store.add_pass(row.id, RecordedPass([5], [10, 11], {"before": {}, "after": {}}, 0))
    store.finish(row.id, "ok", latency_ms=latency_ms, stderr_ms=0.1, times_s={"measure_s": 0.5})
    return row.id


def test_same_question_is_the_same_campaign(store: Store) -> None:
    assert campaign_of(store).id == campaign_of(store).id
    assert campaign_of(store, seed=1).id != campaign_of(store).id


def test_rows_come_back_with_samples_in_order(store: Store) -> None:
    campaign = campaign_of(store)
    row = store.begin(campaign, 1, "a", "listed")
    store.add_pass(row.id, RecordedPass([9], [3, 1, 2], {}, 0))
    store.add_pass(row.id, RecordedPass([9], [6, 5, 4], {}, 1))
    store.finish(row.id, "ok", latency_ms=1.5, stderr_ms=0.1)
    table = store.table(raw=True)
    assert table["passes"].iloc[0] == [[3, 1, 2], [6, 5, 4]]
    assert table["latency_ms"].iloc[0] == 1.5


def test_begin_finds_the_row_that_an_earlier_run_left(store: Store) -> None:
    campaign = campaign_of(store)
    first = store.begin(campaign, 1, "a", "listed")
    store.add_pass(first.id, RecordedPass([], [7], {}, 0))
    again = store.begin(campaign, 1, "a", "listed", artifact_sha256="x")
    assert again.id == first.id
    assert [p.samples_ns for p in store.passes(again.id)] == [[7]]
    assert list(store.rows(campaign, 1)) == ["a"]


def test_running_rows_are_not_in_tables(store: Store) -> None:
    store.begin(campaign_of(store), 1, "a", "listed")
    assert store.table().empty
    assert store.campaigns()["running"].tolist() == [1]


def test_same_graph_copies_the_result(store: Store) -> None:
    campaign = campaign_of(store)
    first = measured(store, campaign, "a", 2.5, artifact_sha256="same")
    row = store.begin(campaign, 1, "b", "listed", artifact_sha256="same")
    twin = store.same_graph(row)
    assert twin is not None
    assert twin.id == first
    store.copy_result(row.id, twin.id)
    table = store.table(raw=True).set_index("arch")
    assert table.loc["b", "latency_ms"] == 2.5
    assert table.loc["b", "passes"] == table.loc["a", "passes"]


def test_failures_are_rows(store: Store) -> None:
    row = store.begin(campaign_of(store), 1, "a", "listed")
    store.finish(row.id, "unsupported_op", error="no such operator")
    table = store.table()
    assert table[["status", "error"]].iloc[0].tolist() == ["unsupported_op", "no such operator"]


def test_one_writer_at_a_time(store: Store) -> None:
    with store.writing():
        code = (
            "import sys; from latlab.harness.store.store import Store\n"
            "with Store(sys.argv[1]).writing(): print('got it')"
        )
        other = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True)
        assert other.returncode != 0
        assert f"process {os.getpid()}" in other.stderr
    with store.writing():
        pass


def test_lock_dies_with_its_holder(store: Store) -> None:
    code = (
        "import sys; from latlab.harness.store.store import Store\n"
        "with Store(sys.argv[1]).writing(): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(store.path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LatlabError, match="being written"), store.writing():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.writing():
        pass


@pytest.mark.parametrize("content", [b"not a database at all, just text", b"SQLite format 3\0" + b"\xff" * 500])
def test_corrupt_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "latlab.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"latlab\.db"):
        Store(path)
    assert path.read_bytes() == content


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="another program"):
        Store(path)


def test_many_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    code = "import sys; from latlab.harness.store.store import Store; Store(sys.argv[1]).campaigns()"
    path = tmp_path / "latlab.db"
    makers = [subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE) for _ in range(4)]
    said = [maker.communicate()[1].decode() for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4, said


def test_newer_schema_is_refused(store: Store) -> None:
    campaign_of(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer latlab"):
        Store(store.path)


def test_damage_inside_is_explained(store: Store) -> None:
    campaign = campaign_of(store)
    for i in range(200):
        measured(store, campaign, f"a{i}")
    store.close()
    for side in ("-wal", "-shm"):
        store.path.with_name(store.path.name + side).unlink(missing_ok=True)
    data = bytearray(store.path.read_bytes())
    data[4096 * 2 :] = os.urandom(len(data) - 4096 * 2)
    store.path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        Store(store.path).table()


def test_disk_full_is_explained_and_loses_nothing(store: Store) -> None:
    campaign = campaign_of(store)
    measured(store, campaign, "a")
    store.close()
    with sqlite3.connect(store.path) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        """SQLite's own limit on the size of the file stands in for the disk's: the error is the same one."""
        connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for i in range(500):
            measured(full, campaign, f"b{i}" * 50)

    event.listen(Engine, "connect", limit)
    try:
        full = Store(store.path)
        with pytest.raises(StoreError, match=r"cannot write the store .* the disk is full"):
            fill()
        full.close()
    finally:
        event.remove(Engine, "connect", limit)
    again = Store(store.path)
    assert "a" in set(again.table()["arch"])
    measured(again, campaign, "after")


@pytest.mark.parametrize("where", ["folder", "nowhere/latlab.db"])
def test_unusable_paths(tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError):
        Store(tmp_path / where)


def test_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        Store(tmp_path / "latlab.db", must_exist=True)
    assert not (tmp_path / "latlab.db").exists()


def test_a_store_of_the_schema_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    store = Store(path)
    campaign = campaign_of(store)
    row = store.begin(campaign, 1, "a", "listed")
    store.add_pass(row.id, RecordedPass([9], [7, 8], {}, 0))
    store.finish(row.id, "ok", latency_ms=7.5, stderr_ms=0.1)
    store.close()
    with sqlite3.connect(path) as connection:
        for column in ("raw_ms", "low_ms", "high_ms", "verdict", "metrics"):
            connection.execute(f"ALTER TABLE measurements DROP COLUMN {column}")
        connection.execute("ALTER TABLE passes DROP COLUMN kind")
        connection.execute("DROP TABLE anchors")
        connection.execute("DROP TABLE sessions")
        connection.execute("PRAGMA user_version = 3")
    store = Store(path)
    found = store.table(raw=True).iloc[0]
    assert (found["latency_ms"], found["raw_ms"], found["verdict"], found["passes"]) == (7.5, 7.5, "", [[7, 8]])
    store.add_pass(row.id, RecordedPass([], [9], {}, 1, PassKind.PROBE))
    store.note_session(campaign.id, 1, seed=3)
    assert store.session_facts(campaign.id, 1) == {"seed": 3}
    assert store.table(raw=True).iloc[0]["passes"] == [[7, 8]]
