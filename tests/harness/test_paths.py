"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from latlab.harness import paths
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file, whole_folder


def test_a_file_that_was_there_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("good")

    def fail() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInputError, match="No space left"):
        fail()
    assert path.read_text() == "good"
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]


def test_it_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    there, link = tmp_path / "there.txt", tmp_path / "link.txt"
    there.write_text("old")
    link.symlink_to(there)
    with whole_file(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert there.read_text() == "new"


def test_a_file_takes_the_place_of_no_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BadInputError, match="no ordinary file"), whole_file(pipe) as part:
        part.write_text("new")
    assert pipe.is_fifo()


def _fill(folder: Path, text: str) -> None:
    (folder / "table.csv").write_text(text)
    (folder / "predictor").mkdir()
    (folder / "predictor" / "weights").write_text(text)


def test_a_folder_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b") as part:
        _fill(part, "new")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "predictor" / "weights").read_text() == "new"


@pytest.mark.parametrize("keep_others", [False, True])
@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_others: bool, can_exchange: bool, inside: bool
) -> None:
    folder = tmp_path / "results"
    with whole_folder(folder) as part:
        _fill(part, "old")
        (part / "predictor" / "older").write_text("old")
        (part / "notes").mkdir()
        (part / "notes" / "mine.txt").write_text("mine")
    folder.chmod(0o750)
    if not can_exchange:  # a file system without the call: the kernel here has it
        monkeypatch.setattr(paths, "_exchange", lambda *_: False)
    if inside:
        monkeypatch.chdir(folder)
    with whole_folder(folder, keep_others=keep_others) as part:
        _fill(part, "new")
        assert (folder / "table.csv").read_text() == "old"
    assert (folder / "table.csv").read_text() == "new"
    assert [one.name for one in (folder / "predictor").iterdir()] == ["weights"]
    assert (folder / "notes" / "mine.txt").exists() is keep_others
    assert folder.stat().st_mode & 0o777 == 0o750
    assert [one.name for one in tmp_path.iterdir()] == ["results"]
    assert not [one for one in folder.iterdir() if one.name.endswith(".part")]


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_that_was_there_stays_if_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    folder = tmp_path / "results"
    with whole_folder(folder) as part:
        _fill(part, "old")
    if inside:
        monkeypatch.chdir(folder)

    def fail() -> None:
        with whole_folder(folder) as part:
            (part / "table.csv").write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BadInputError, match="No space left") as raised:
        fail()
    assert "Free some space" in str(raised.value)
    assert (folder / "table.csv").read_text() == "old"
    assert sorted(one.name for one in folder.iterdir()) == ["predictor", "table.csv"]
    assert [one.name for one in tmp_path.iterdir()] == ["results"]


def test_a_folder_takes_the_place_of_no_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BadInputError, match="Not a directory"), whole_folder(tmp_path / "results"):
        pass
    assert (tmp_path / "results").read_text() == "a file"


def test_the_way_out_fits_the_reason(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "table.csv"):
            raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(BadInputError, match="Read-only") as raised:
        fail()
    assert "space" not in str(raised.value)


def test_what_killed_writers_have_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    left, young = tmp_path / ".table.csv.01234567.part", tmp_path / ".table.csv.89abcdef.part"
    other = tmp_path / ".other.csv.01234567.part"
    for one in (left, young, other):
        one.write_text("half")
    for one in (left, other):
        os.utime(one, (0, 0))
    with whole_file(tmp_path / "table.csv") as part:
        part.write_text("new")
    assert not left.exists()
    assert young.exists()  # another process may be writing it
    assert other.exists()


def _database(path: Path) -> bytes:
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE mine (value)")
    return path.read_bytes()


def test_a_database_is_replaced_by_nothing_but_a_database(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    before = _database(path)
    (tmp_path / "mine.db-wal").write_bytes(b"its last changes")
    for lost in (path, tmp_path / "mine.db-wal"):
        with pytest.raises(BadInputError, match="would be lost"), whole_file(lost) as part:
            part.write_text("a report")
    assert path.read_bytes() == before
    assert (tmp_path / "mine.db-wal").read_bytes() == b"its last changes"
    with whole_file(path) as part:
        _database(part)
    (tmp_path / "notes-wal").write_text("mine")
    with whole_file(tmp_path / "notes-wal") as part:
        part.write_text("no database has this name")


@pytest.mark.parametrize("keep_others", [True, False])
def test_a_folder_is_not_replaced_where_a_database_in_it_would_be_lost(tmp_path: Path, keep_others: bool) -> None:
    folder = tmp_path / "out"
    (folder / "below").mkdir(parents=True)
    before = _database(folder / "below" / "mine.db")
    (folder / "table.csv").write_text("old")

    def replace(name: str) -> None:
        with whole_folder(folder, keep_others=keep_others) as part:
            (part / name).mkdir()
            (part / "table.csv").write_text("new")

    with pytest.raises(BadInputError, match=r"mine\.db is an SQLite database"):
        replace("below")
    assert (folder / "below" / "mine.db").read_bytes() == before
    assert (folder / "table.csv").read_text() == "old"
    if keep_others:
        replace("other")
        assert (folder / "below" / "mine.db").read_bytes() == before
        assert (folder / "table.csv").read_text() == "new"
    else:
        with pytest.raises(BadInputError, match="would be lost"):
            replace("other")
