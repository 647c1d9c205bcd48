"""Work in processes of this machine: nothing is lost with a process that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from waiting import wait_until

from latlab.harness.distributed.engines import in_parallel
from latlab.harness.errors import BadInputError, LatlabError


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number**2


def square_or_die(folder: Path, number: int) -> int:
    """Die at the first try of 3, and at each try of 5."""
    tried = folder / str(number)
    if number == 5 or (number == 3 and not tried.exists()):
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_item_once(jobs: int) -> None:
    found = list(in_parallel(square, range(20), jobs=jobs))
    assert sorted(found) == [(number, number**2) for number in range(20)]
    assert not list(in_parallel(square, [], jobs=jobs))
    with pytest.raises(ValueError, match="-1 is negative"):
        list(in_parallel(square, [1, -1], jobs=jobs))


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10**6):
            taken += 1
            yield number

    results = in_parallel(square, items(), jobs=2)
    for _ in range(10):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert taken < 30


def test_what_a_killed_process_had_is_done_by_another(tmp_path: Path) -> None:
    found = list(in_parallel(partial(square_or_die, tmp_path), [0, 1, 2, 3, 4], jobs=2))
    assert sorted(found) == [(number, number**2) for number in range(5)]


def test_an_item_that_kills_every_process(tmp_path: Path) -> None:
    found = []
    with pytest.raises(LatlabError, match=r"died 3 times while one of them worked on item \d"):
        found += list(in_parallel(partial(square_or_die, tmp_path), [0, 5, 1], jobs=2))


@pytest.mark.parametrize("engine", ["", "cloud", "ray://", "ray://host", "RAY"])
def test_engines_that_do_not_exist(engine: str) -> None:
    with pytest.raises(BadInputError, match="no engine") as failure:
        in_parallel(square, [1], engine=engine)
    assert "ray://HOST:PORT" in (failure.value.hint or "")


def test_an_engine_with_a_password() -> None:
    with pytest.raises(BadInputError, match="no user and no password") as failure:
        in_parallel(square, [1], engine="ray://user:secret@host:10001")
    assert "secret" not in str(failure.value)


def test_processes_end_with_a_killed_one(tmp_path: Path) -> None:
    program = """
import os, sys, time
from pathlib import Path
from latlab.harness.distributed.engines import in_parallel
def sleep(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(300)
if __name__ == "__main__":
    list(in_parallel(sleep, [sys.argv[1] + "/0", sys.argv[1] + "/1"], jobs=2))
"""
    (tmp_path / "program.py").write_text(program)
    first = subprocess.Popen([sys.executable, str(tmp_path / "program.py"), str(tmp_path)])
    files = [tmp_path / "0", tmp_path / "1"]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files), "no process has begun", 60)
    first.kill()
    first.wait()
    wait_until(lambda: not any(Path("/proc", file.read_text(), "stat").exists() for file in files), "they go on", 10)
