"""Every command that writes, in a folder that cannot be written, on a full disk, and killed while it writes.

Its earlier output stays whole, nothing is half written, and there is one clear error. `benchmarks/harm.py` does the
same at hundreds of random moments.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_commands import Command, CommandServer
from harmed_outputs import COMMANDS, fill, harm, labels, prepare, small_disk, state, unfinished

DISK_MB = 24
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


@pytest.fixture(scope="module")
def base(server: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which each command has written its output once."""
    folder = tmp_path_factory.mktemp("base")
    prepare(server, folder)
    return folder


def check(
    command: Command, name: str, folder: Path, before: dict[str, str], known: dict[int, tuple[str, float]]
) -> None:
    """Check that a command failed with one clear error, and that all is as it was before."""
    said = command.stderr
    assert command.exit_code in (1, 2), said
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("latlab: ")]) == 1, said
    assert harm(folder, COMMANDS[name], before, known) == []
    assert not unfinished(folder)


@root
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written(server: CommandServer, base: Path, tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        folder = shutil.copytree(base, disk / "own")
        before, known = state(folder, COMMANDS[name].outputs), labels(folder / "latlab.db")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        command = server.start(COMMANDS[name].words, folder, said=tmp_path)
        command.wait(120)
        check(command, name, folder, before, known)
        assert state(folder, COMMANDS[name].outputs) == before


@root
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(server: CommandServer, base: Path, tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        folder = shutil.copytree(base, disk / "own")
        before, known = state(folder, COMMANDS[name].outputs), labels(folder / "latlab.db")
        fill(disk, 0)
        command = server.start(COMMANDS[name].words, folder, said=tmp_path)
        command.wait(120)
        check(command, name, folder, before, known)
        assert state(folder, COMMANDS[name].outputs) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_while_it_writes(server: CommandServer, base: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(base, tmp_path / "own")
    before, known = state(folder, COMMANDS[name].outputs), labels(folder / "latlab.db")
    command = server.start(COMMANDS[name].words, folder)
    while command.poll() is None and not _writes(folder, name):
        time.sleep(0.001)
    command.kill()
    assert harm(folder, COMMANDS[name], before, known) == []


def _writes(folder: Path, name: str) -> bool:
    """Return whether a command writes its output now; for the store, whether SQLite's log or journal is there."""
    if COMMANDS[name].outputs:
        return bool(unfinished(folder))
    return any(folder.glob("latlab.db-*"))
