"""Copies and merges of stores: whole, consistent, and nothing twice."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.store.copying import compact_store, copy_store
from latlab.harness.store.inspection import check_store, store_info
from latlab.harness.store.merging import merge_stores
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

ANCHOR = get("nasbench201").references()[0].text


def measure(path: Path, archs: str, session: int = 1, seed: int = 0, latency_ms: float = 1.0) -> None:
    """Add labels, an anchor and facts of a session to a store."""
    with Store(path) as store:
        campaign = store.campaign(Target("pi", "onnxruntime"), "letters", PRESETS["default"], seed, "random")
        fingerprint = store.fingerprint({"host": path.name})
        for arch in archs:
            row = store.begin(campaign, session, arch, "listed", fingerprint_id=fingerprint)
            store.add_pass(row.id, RecordedPass([5], [10, 11], {}, 0))
            store.finish(row.id, "ok", latency_ms=latency_ms, stderr_ms=0.1)
        store.add_anchor(campaign, session, RecordedAnchor([5], [6], {}, arch=ANCHOR, in_line=True))
        store.note_session(campaign.id, session, drift_percent=latency_ms)
        store.note("pi", "lost", path.name)


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a store, without the numbers of rows."""
    connection = sqlite3.connect(path)
    asked = {
        "labels": "SELECT m.campaign_id, m.session, m.arch, m.latency_ms, m.started_at, p.samples_ns, p.at "
        "FROM measurements m JOIN passes p ON p.measurement_id = m.id",
        "anchors": "SELECT campaign_id, session, arch, at FROM anchors",
        "sessions": "SELECT * FROM sessions",
        "incidents": "SELECT at, device, kind, message FROM incidents",
        "fingerprints": "SELECT * FROM fingerprints",
        "sources": "SELECT name, space, sha256 FROM sources",
        "source labels": "SELECT s.name, a.arch, l.latency_ms FROM source_labels l JOIN sources s ON s.id = "
        "l.source_id JOIN source_archs a ON a.id = l.arch_id",
    }
    found = {name: sorted(connection.execute(sql).fetchall()) for name, sql in asked.items()}
    connection.close()
    return found


def add_source(path: Path, name: str, sha256: str) -> None:
    with Store(path) as store, store.transaction() as connection:
        source = connection.exec_driver_sql(
            "INSERT INTO sources (name, space, format, origin, sha256, unit, citation, notes, imported_at) VALUES "
            "(?, 'letters', 'csv', 'mine.csv', ?, 'ms', '', '', '2026-11-30T00:00:00.000+00:00')",
            (name, sha256),
        ).lastrowid
        for arch in (sha256, "shared"):
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO source_archs (space, arch) VALUES ('letters', ?)", (arch,)
            )
            connection.exec_driver_sql(
                "INSERT INTO source_labels SELECT ?, id, 2.5, NULL FROM source_archs WHERE arch = ?", (source, arch)
            )


@pytest.fixture
def first(tmp_path: Path) -> Path:
    measure(tmp_path / "a.db", "abc")
    add_source(tmp_path / "a.db", "board", "x")
    return tmp_path / "a.db"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    measure(tmp_path / "b.db", "bcd", latency_ms=2.0)
    measure(tmp_path / "b.db", "e", seed=1)
    add_source(tmp_path / "b.db", "board", "y")
    return tmp_path / "b.db"


def merged(*stores: Path) -> Path:
    into = stores[0].with_name(f"merged{len(list(stores[0].parent.iterdir()))}.db")
    merge_stores(stores, into)
    assert check_store(into).is_sound
    return into


def test_the_same_campaign_of_two_controllers_stands_side_by_side(first: Path, second: Path) -> None:
    into = merged(first, second)
    table = Store(into).table(raw=True)
    assert len(table) == 7
    assert table[table["seed"] == 0].groupby("session")["arch"].agg("".join).to_dict() == {1: "abc", 2: "bcd"}
    assert (table["passes"].map(len) == 1).all()
    found = content(into)
    assert [row[1] for row in found["anchors"]].count(2) == 1
    assert {row[0] for row in found["sources"]} == {"board", "board-2"}
    assert len(found["source labels"]) == 4
    assert len(found["incidents"]) == 3
    assert {one.name for one in into.parent.iterdir()} == {"a.db", "b.db", into.name}


def test_a_merge_again_adds_nothing(first: Path, second: Path) -> None:
    once = merged(first, second)
    assert content(merged(once, second)) == content(merged(once, once)) == content(once)
    assert content(merged(first, first)) == content(first)


def test_a_session_that_was_continued_is_taken_with_its_continuation(first: Path, tmp_path: Path) -> None:
    further = tmp_path / "further.db"
    copy_store(first, further)
    measure(further, "de")
    for stores in ((first, further), (further, first)):
        table = Store(merged(*stores)).table()
        assert table.groupby("session")["arch"].agg("".join).to_dict() == {1: "abcde"}


def test_a_session_that_both_continued_is_there_once(first: Path, tmp_path: Path) -> None:
    further = tmp_path / "further.db"
    copy_store(first, further)
    measure(further, "d", latency_ms=3.0)
    measure(first, "de", latency_ms=4.0)
    into = merged(first, further)
    table = Store(into).table()
    assert table.groupby("session")["arch"].agg("".join).to_dict() == {1: "abcde", 2: "d"}
    assert content(merged(into, further)) == content(into)


def test_copies_of_a_graph_refer_to_the_same_row(first: Path, second: Path) -> None:
    with Store(second) as store:
        campaign = store.campaign(Target("pi", "onnxruntime"), "letters", PRESETS["default"], 0, "random")
        rows = store.rows(campaign, 1)
        twin = store.begin(campaign, 1, "twin", "listed")
        store.copy_result(twin.id, rows["d"].id)
    table = Store(merged(first, second)).table(raw=True)
    row = table[table["arch"] == "twin"].iloc[0]
    assert table.set_index("id").loc[row["same_graph_as"], "arch"] == "d"
    assert row["passes"] == [[10, 11]]


def test_a_copy_while_somebody_writes_is_one_moment(first: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        with Store(first) as store, store.writing():
            campaign = store.campaign(Target("pi", "onnxruntime"), "letters", PRESETS["default"], 9, "random")
            while not stop.wait(0.005):  # a copy checks all rows, and more and more of them would never end
                row = store.begin(campaign, 1, f"n{number}", "listed")
                store.add_pass(row.id, RecordedPass([5], [10, 11], {}, 0))
                store.finish(row.id, "ok", latency_ms=1.0, stderr_ms=0.1)
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for at in range(4):
            copy_store(first, tmp_path / f"copy{at}.db")
    finally:
        stop.set()
        writer.join()
    for at in range(4):
        copy = tmp_path / f"copy{at}.db"
        assert check_store(copy).is_sound
        assert not copy.with_name(f"{copy.name}-wal").exists()
        table = Store(copy).table(raw=True)
        assert (table["passes"].map(len) == 1).all()


def test_nothing_is_overwritten_unless_asked(first: Path, second: Path) -> None:
    before = second.read_bytes()
    with pytest.raises(BadInputError, match="exists already"):
        copy_store(first, second)
    with pytest.raises(BadInputError, match="exists already"):
        merge_stores([first, first], second)
    assert second.read_bytes() == before
    copy_store(first, second, force=True)
    assert content(second) == content(first)


def test_a_copy_does_not_replace_a_store_that_is_being_written(first: Path, second: Path) -> None:
    with Store(second).writing(), pytest.raises(LatlabError, match="being written"):
        copy_store(first, second, force=True)


def test_a_log_of_the_replaced_store_is_not_taken_for_the_new_ones(first: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    shutil.copy(first, other)
    connection = sqlite3.connect(other)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM passes")
    connection.commit()
    log = other.with_name("other.db-wal").read_bytes()
    connection.close()
    other.with_name("other.db-wal").write_bytes(log)
    copy_store(first, other, force=True)
    assert content(other) == content(first)


def test_compacting_gives_space_back_and_keeps_all(first: Path) -> None:
    with Store(first) as store, store.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE waste AS SELECT hex(randomblob(500000)) AS x")
        connection.exec_driver_sql("DROP TABLE waste")
    kept = content(first)
    before, after = compact_store(first)
    assert after < before / 4
    assert content(first) == kept


def test_info_and_check_of_a_store(first: Path, tmp_path: Path) -> None:
    with Store(first) as store:
        campaign = store.campaign(Target("pi", "onnxruntime"), "letters", PRESETS["default"], 0, "random")
        store.begin(campaign, 1, "unfinished", "listed")
    found = store_info(first)
    assert (found.labels, found.running, found.rows["passes"]) == (3, 1, 3)
    assert found.targets == {"pi/onnxruntime/cpu/fp32/t1/b1": {"letters": 3}}
    assert [one["name"] for one in found.sources] == ["board"]
    checked = check_store(first)
    assert checked.is_sound
    assert checked.running[0]["rows"] == 1
