"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file


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
