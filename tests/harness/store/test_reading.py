"""Reading a store never writes, and needs no more than to be able to read the file."""

from __future__ import annotations

import codecs
import gzip
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from latlab.harness.lab import Lab
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.lock import locked
from latlab.harness.store.reading import announces_log
from latlab.harness.store.store import Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS

FIXTURE = Path(__file__).parent / "fixtures" / "version_0_1.db.gz"
NOBODY = 65534
TARGET = Target("local", "onnxruntime")
root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs two users, and so root")


def measure(store: Store, *archs: str) -> None:
    campaign = store.campaign(TARGET, "letters", PRESETS["default"], 0, "random")
    for arch in archs:
        row = store.begin(campaign, 1, arch, "listed")
        store.add_pass(row.id, RecordedPass([5], [10, 11], {"before": {}, "after": {}}, 0))
        store.finish(row.id, "ok", latency_ms=1.0, stderr_ms=0.1)


def as_another_user(work: Callable[[], object]) -> None:
    """Run `work` in a copy of this process that belongs to another user, and fail if it fails there."""
    codecs.lookup("utf-8-sig")  # which the other user may not be allowed to import
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        said = ""
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode()[-60000:])
        os._exit(bool(said))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert not said, said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that every user can reach."""
    for one in (tmp_path, *tmp_path.parents[:2]):
        one.chmod(one.stat().st_mode | 0o055)
    return tmp_path


def old_store(path: Path) -> Path:
    """A store that version 0.1 has written."""
    path.write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return path


def some_store(path: Path, is_old: bool) -> None:
    """Make a store with a label, or an older one."""
    if is_old:
        old_store(path)
    else:
        with Store(path) as store:
            measure(store, "a")


def read_everything(path: Path) -> None:
    with Store(path, must_exist=True) as store:
        assert len(store.table(raw=True))
        assert len(store.campaigns())
        store.incidents()
        store.failures()
    with Lab(path).store as store:
        assert store.labelled()


@pytest.mark.parametrize("is_old", [False, True])
def test_reading_leaves_nothing_beside_the_store(tmp_path: Path, is_old: bool) -> None:
    path = tmp_path / "s.db"
    some_store(path, is_old)
    before = path.read_bytes()
    read_everything(path)
    assert os.listdir(tmp_path) == ["s.db"]
    assert path.read_bytes() == before


@root
@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_another_user_reads_and_the_owner_goes_on(folder: Path, is_old: bool, mode: int) -> None:
    place = folder / "shared"
    place.mkdir()
    path = place / "s.db"
    some_store(path, is_old)
    place.chmod(mode)
    as_another_user(lambda: read_everything(path))
    assert os.listdir(place) == ["s.db"]
    with Store(path) as store:
        measure(store, "b")


@root
def test_another_user_reads_while_the_owner_measures(folder: Path) -> None:
    place = folder / "shared"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    path = place / "s.db"
    with Store(path) as store, store.writing():
        measure(store, "a")
        as_another_user(lambda: read_everything(path))
        measure(store, "b")
    assert {one.name for one in place.iterdir()} == {"s.db", "s.db.lock"}


@root
def test_a_writer_says_that_it_cannot_write(folder: Path) -> None:
    path = folder / "s.db"
    with Store(path) as store:
        measure(store, "a")

    def write() -> None:
        with pytest.raises(StoreError, match="cannot be written"):
            measure(Store(path), "b")

    as_another_user(write)


KILLED = """
import os, signal, sys
from latlab.harness.store.store import Store
sys.path.insert(0, sys.argv[2])
from test_reading import measure
with Store(sys.argv[1]) as store, store.writing():
    measure(store, *map(str, range(200)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A store whose writer was killed after 200 labels."""
    path = tmp_path / "s.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)], stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path


def test_the_file_alone_has_every_label_after_a_kill(killed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(killed, copy)
    with pytest.warns(StoreWarning, match="log of the store .* is missing"):
        store = Store(copy, must_exist=True)
    assert len(store.table(raw=True)) == 200
    assert (store.table(raw=True)["passes"].map(len) == 1).all()


def test_the_next_writer_folds_the_log_of_a_killed_one(killed: Path) -> None:
    read_everything(killed)
    with Store(killed) as store:
        measure(store, "after")
    assert not killed.with_name("s.db-wal").exists()
    assert len(Store(killed).table()) == 201


@root
def test_a_log_without_its_index_is_read_from_a_copy(killed: Path, folder: Path) -> None:
    index = killed.with_name("s.db-shm")
    index.unlink()
    as_another_user(lambda: read_everything(killed))
    assert not index.exists()


def test_a_half_done_transaction_is_read_from_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        measure(store, *map(str, range(300)))
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA cache_size = 2')\n"
        "c.execute('PRAGMA cache_spill = 2'); "
        "c.execute('UPDATE measurements SET arch = arch || hex(randomblob(500))')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    journal = path.with_name("s.db-journal")
    assert journal.stat().st_size, "the kill left no journal: the test has lost its point"
    left = path.read_bytes()
    assert Store(path).table()["arch"].str.len().max() == 3
    assert (path.read_bytes(), journal.exists()) == (left, True)
    with Store(path) as store:
        measure(store, "after")
    assert not journal.exists()


# The file under a writer


@pytest.mark.parametrize("happens", ["deleted", "replaced", "folder removed"])
def test_what_a_deleted_or_replaced_store_held_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    (tmp_path / "lost").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lost" / "s.db"
    store = Store(path)
    word = "replaced" if happens == "replaced" else "deleted"
    said = f"{word} while .*; all that was measured is saved in"
    with pytest.raises(StoreError, match=said) as caught, store.writing():  # noqa: PT012
        measure(store, "a")
        row = store.begin(store.campaign(TARGET, "nasbench201", PRESETS["default"], 0, "random"), 1, "b", "listed")
        other = tmp_path / "other.db"
        shutil.copy(path, other)
        if happens == "folder removed":
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        if happens == "replaced":
            other.rename(path)
        store.add_pass(row.id, RecordedPass([5], [20, 21], {"before": {}, "after": {}}, 0))
    saved = tmp_path / ("" if happens == "folder removed" else "lost") / "s-saved.db"
    assert str(saved.relative_to(tmp_path)) in str(caught.value)
    assert list(Store(saved, must_exist=True).table()["arch"]) == ["a"]
    with Store(saved).reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM passes").scalar_one() == 2, "also the one in progress"
    assert not list(saved.parent.glob("s-saved.db?*")), "one file, without a log"
    with pytest.raises(StoreError, match=r"s-saved\.db"):
        measure(store, "c")
    assert len(list(tmp_path.rglob("s-saved*"))) == 1, "saved once"


def test_a_store_deleted_after_the_last_write_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = Store(path)
    with pytest.raises(StoreError, match=r"deleted .* saved in .*s-saved\.db"), store.writing():  # noqa: PT012
        measure(store, "a")
        path.unlink()


# Locks


def test_links_to_a_store_share_its_lock(tmp_path: Path) -> None:
    path, link = tmp_path / "s.db", tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    with Store(path) as store:
        measure(store, "a")
    link.symlink_to(path)
    code = "import sys; from latlab.harness.store.store import Store\nwith Store(sys.argv[1]).writing(): pass"
    with Store(path).writing():
        done = subprocess.run([sys.executable, "-c", code, str(link)], capture_output=True, text=True)
    assert "being written by another latlab" in done.stderr
    assert [one.name for one in link.parent.iterdir()] == ["link.db"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_lock_never_touches_what_a_link_leads_to(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    path, precious = tmp_path / "s.db", tmp_path / "thesis.tex"
    precious.write_text("years of work")
    link(precious, tmp_path / "s.db.lock")
    store = Store(path)
    with pytest.raises(StoreError, match="cannot lock"), store.writing():
        pass
    assert precious.read_text() == "years of work"


# Older schemas


def older(path: Path) -> Path:
    """A store of schema 3, with one label."""
    with Store(path) as store:
        measure(store, "a")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX by_state")
        for column in ("raw_ms", "low_ms", "high_ms", "verdict", "metrics"):
            connection.execute(f"ALTER TABLE measurements DROP COLUMN {column}")
        connection.execute("ALTER TABLE passes DROP COLUMN kind")
        connection.execute("DROP TABLE anchors")
        connection.execute("DROP TABLE sessions")
        connection.execute("DROP TABLE incidents")
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    return path


def test_an_older_store_is_read_as_it_is(tmp_path: Path) -> None:
    path = older(tmp_path / "s.db")
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = Store(path)
        row = store.table(raw=True).iloc[0]
        assert (row["raw_ms"], row["verdict"], row["passes"]) == (1.0, "", [[10, 11]])
        assert store.session_facts(row["campaign"], 1) == {}
        assert store.anchors(row["campaign"], 1) == []
        assert len(store.session_passes(row["campaign"], 1)) == 1
        assert store.incidents().empty
    assert path.read_bytes() == before


def test_five_readers_of_an_older_store_at_once(tmp_path: Path) -> None:
    path = older(tmp_path / "s.db")
    code = "import sys; from latlab.harness.store.store import Store; print(len(Store(sys.argv[1]).table(raw=True)))"
    command = [sys.executable, "-c", code, str(path)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    assert [one.communicate() for one in readers] == [("1\n", "")] * 5


def test_an_older_store_is_not_updated_under_its_writer(tmp_path: Path) -> None:
    path = older(tmp_path / "s.db")
    with locked(path):  # as a latlab of that version does while it measures
        with pytest.raises(StoreError, match="being written by an older latlab"):
            measure(Store(path), "b")
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    measure(Store(path), "b")
    assert len(Store(path).table()) == 2


def test_opening_a_store_again_keeps_the_locks_of_the_first(tmp_path: Path) -> None:
    """POSIX: closing any descriptor of a file drops the process's locks on it, SQLite's among them."""
    path = tmp_path / "s.db"
    store = Store(path)
    with store.transaction() as connection:
        connection.exec_driver_sql("INSERT INTO incidents (at, device, kind, message) VALUES ('now', 'a', 'b', 'c')")
        Store(path).close()
        announces_log(path)
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        beside = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True)
        assert "database is locked" in beside.stderr


def test_a_file_that_changes_while_it_is_read_without_locks_is_an_error(tmp_path: Path) -> None:
    """An older version's store announces a log that is not there. SQLite takes no locks on it: a checkpoint under a
    reader would give it pages of two states."""
    path = tmp_path / "latlab.db"
    measure(Store(path), "a")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert announces_log(path)
    assert not (tmp_path / "latlab.db-wal").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        store = Store(path, must_exist=True)
    assert len(store.table())

    def read_while_somebody_writes() -> None:
        with store.reading() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM measurements").all()
            writer = sqlite3.connect(path)
            writer.execute("UPDATE measurements SET latency_ms = latency_ms + 1")
            writer.commit()
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            writer.close()

    with pytest.raises(StoreError, match=r"has changed the store .* while it was read"):
        read_while_somebody_writes()
    assert len(store.table())  # the next look is at the new state
