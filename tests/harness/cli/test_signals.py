"""SIGTERM and SIGHUP end every command in words: what is saved, nothing half written, nobody left on the device."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from forked_commands import Command, CommandServer
from harmed_outputs import FIRST, PI, SECOND, SPACE, TOY
from typer.main import get_command
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.cli.main import app
from latlab.harness.store.lock import is_locked

SAVED, WHOLE = "the same command continues", "Nothing is half written"
WORDS = {signal.SIGTERM: "latlab: terminated\n", signal.SIGHUP: "latlab: terminated, because its terminal is gone\n"}
STARTS_S, ENDS_S = 120, 60
"""Patience with what takes less than a second on a machine that does nothing else."""


@dataclass(frozen=True)
class Case:
    """A command, and what holds it up for as long as the test wants."""

    words: str
    held_by: str
    """`store`: another program that writes it; `device`: one that never answers; or the file that it reads."""
    says: str | None = WHOLE


FIRST_TWO = f"--arch {FIRST} --arch {SECOND}"
CASES = {
    "measure": Case("measure stuck --model tiny.onnx", "device", SAVED),
    "onboard": Case(f"onboard stuck --space {SPACE} --budget 3", "device", SAVED),
    "embed": Case(f"embed stuck --space {SPACE} --out e.json", "device", SAVED),
    "sustain": Case("sustain stuck --model tiny.onnx --out s.svg", "device", SAVED),
    "search": Case(
        f"search --target {PI.replace('pi', 'stuck')} --space {SPACE} --max-latency-ms 9 --accuracy macs --budget 2",
        "device",
        SAVED,
    ),
    "compare": Case("compare tiny.onnx tiny.onnx stuck", "device", SAVED),
    "compare --targets": Case(
        f"compare --targets {TOY} {PI.replace('pi', 'stuck')} --space {SPACE} {FIRST_TWO} --out t.html", "device", SAVED
    ),
    "profile": Case("profile tiny.onnx stuck --out p.html", "device"),
    "doctor": Case("doctor stuck", "device", None),
    "devices": Case("devices", "device", None),
    "setup": Case("setup asleep", "asleep.pid", "replaced as a whole"),
    "measure while the store is held": Case(f"measure toy --space {SPACE} --count 9", "store", SAVED),
    "import": Case(f"import table.csv --space {SPACE}", "store"),
    "import --as-target": Case(f"import own.csv --as-target toy --space {SPACE}", "store"),
    "export": Case("export --out e.csv", "store"),
    "show": Case("show", "store", None),
    "metrics": Case("metrics", "store", None),
    "dashboard": Case("dashboard --port 0", "store", None),
    "quality": Case("quality --out q.html", "store"),
    "report": Case(f"report --target {TOY} --space {SPACE} --out r.html", "store"),
    "predict": Case(f"predict --target {TOY} --space {SPACE} --all --out p.csv --onnx p.onnx", "store"),
    "sources": Case("sources", "store"),
    "sources remove": Case("sources remove a", "store"),
    "store info": Case("store info", "store"),
    "store check": Case("store check", "store"),
    "store copy": Case("store copy latlab.db c.db", "store"),
    "store merge": Case("store merge other.db latlab.db --into m.db", "store"),
    "store compact": Case("store compact", "store"),
    "init": Case("init --out new.yaml", ".ssh/config"),
    "inspect": Case("inspect large.onnx", "large.onnx", None),
    "bench tasks": Case(f"bench tasks --table large.csv --space {SPACE} --sources 1 --targets 1", "large.csv"),
    "simulate": Case(f"simulate --table large.csv --space {SPACE} --target a", "large.csv"),
    "encode": Case(f"encode --space {SPACE} --encoding one-hot --genes pipe.txt --out z.csv", "pipe.txt", SAVED),
    "export-models": Case(f"export-models --space {SPACE} --genes pipe.txt --to networks", "pipe.txt", SAVED),
    "pretrain": Case(f"pretrain --predictor maml --space {SPACE} --out trained", "store", SAVED),
    "bench predictors": Case("bench predictors --tasks pipe.json --predictor flops --out scores.jsonl", "pipe.json"),
}
OTHERS = {"help", "spaces"}
"""Commands that wait for nothing: they list what is installed."""
INVENTORY = {
    "toy": {"transport": "simulated", "kind": "ideal"},
    "stuck": {
        "transport": "simulated",
        "kind": "ideal",
        "pace": 1,
        "work": "work",
        "faults": {"schedule": [{"kind": "hang", "verb": "hello"}]},
    },
    "asleep": {"transport": "local", "python": "./asleep", "work": "asleep-work"},
}


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands need."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "inventory.yaml").write_text(json.dumps({"devices": INVENTORY}))
    lab = Lab(folder / "latlab.db", inventory=folder / "inventory.yaml")
    lab.measure("toy", space=SPACE, count=4)
    lab.store.close()
    shutil.copy(folder / "latlab.db", folder / "other.db")
    (folder / "table.csv").write_text(f'arch,a,b,c\n"{FIRST}",1,2,3\n"{SECOND}",2,1,2\n')
    (folder / "own.csv").write_text(f'arch,latency_ms\n"{FIRST}",10\n"{SECOND}",20\n')
    _write_onnx(folder / "tiny.onnx", 10)
    (folder / ".ssh").mkdir()
    return folder


def test_every_command_has_a_case() -> None:
    found = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        parts = getattr(command, "commands", {})
        found |= {f"{name} {part}" for part in parts} or {name}
    assert found - OTHERS <= {name.partition(" -")[0] for name in CASES}


Start = Callable[[Case], tuple[Command, Callable[[], None]]]


@pytest.fixture
def run(base: Path, tmp_path: Path, server: CommandServer) -> Iterator[Start]:
    """A function that starts a case, waits until it is held up, and returns it and what lets it go on."""
    started: list[Command] = []
    opened: list[int] = []

    def run(case: Case) -> tuple[Command, Callable[[], None]]:
        folder = shutil.copytree(base, tmp_path / str(len(started)))
        free, is_there = _hold(case, folder, opened)
        command = server.start(case.words.split(), folder, environment={"HOME": str(folder)})
        started.append(command)
        until = time.monotonic() + STARTS_S
        while not is_there(command) and command.poll() is None:
            assert time.monotonic() < until, f"it does not get there: {command.stderr}"
            time.sleep(0.002)  # some are there for a moment only
        return command, free

    yield run
    for command in started:
        command.kill()
    for handle in opened:
        os.close(handle)


def _hold(case: Case, folder: Path, opened: list[int]) -> tuple[Callable[[], None], Callable[[Command], bool]]:
    """Prepare what holds the command up; return what lets it go on, and what tells whether it is there."""
    path = folder / case.held_by
    if case.held_by == "device":
        return lambda: None, lambda _: (folder / "work").exists()
    if case.held_by == "asleep.pid":
        (folder / "asleep").write_text(f"#!/bin/sh\necho $$ > {path}\nexec sleep 3600\n")
        (folder / "asleep").chmod(0o755)
        return lambda: None, lambda _: path.exists()
    if case.held_by.startswith("large"):
        _make_large(path)
        return lambda: None, lambda command: _has_open(command, path)
    if case.held_by != "store":
        os.mkfifo(path)

        def is_read(_: Command) -> bool:
            try:
                opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return False
            return True

        return lambda: None, is_read
    holder = sqlite3.connect(folder / "latlab.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder.close, lambda command: _has_open(command, folder / "latlab.db")


def _has_open(command: Command, path: Path) -> bool:
    try:
        return any(os.path.realpath(one) == str(path) for one in Path(f"/proc/{command.pid}/fd").iterdir())
    except OSError:
        return False


def _make_large(path: Path) -> None:
    """Write a file that takes long enough to read."""
    if path.suffix == ".csv":
        rows = [f'"{FIRST}",1,2,3\n', f'"{SECOND}",2,1,2\n'] * 50_000
        path.write_text("arch,a,b,c\n" + "".join(rows))
    else:
        _write_onnx(path, 20_000_000)


def _write_onnx(path: Path, numbers: int) -> None:
    """Write a model that returns its weights, so many numbers."""
    import onnx
    from onnx import TensorProto, helper

    weights = helper.make_tensor("w", TensorProto.FLOAT, [numbers], bytes(4 * numbers), raw=True)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [numbers])
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [weights])
    onnx.save(helper.make_model(graph), path)


# SIGTERM for all commands, SIGHUP for every sixth: they take the same way.
@pytest.mark.parametrize(
    ("name", "number"),
    [
        (name, number)
        for place, name in enumerate(CASES)
        for number in WORDS
        if number == signal.SIGTERM or place % 6 == 0
    ],
)
def test_a_signal(run: Start, name: str, number: signal.Signals) -> None:
    case = CASES[name]
    for _ in range(5 if case.held_by.startswith("large") else 1):  # it may have read the file before this is seen
        command, go_on = run(case)
        before = {one.name for one in command.said.iterdir()}
        command.send_signal(number)
        go_on()
        if command.wait(ENDS_S) == 128 + number:
            break
    assert command.exit_code == 128 + number, command.stderr
    said = command.stderr
    assert WORDS[number] in said
    assert case.says is None or case.says in said
    assert case.says is not None or said.endswith(WORDS[number])
    assert "Traceback" not in said
    wait_until(lambda: not command.others(), "it leaves a process behind", ENDS_S)
    folder = command.said
    assert not list(folder.rglob(".*.part"))
    assert {one.name for one in folder.iterdir()} - before <= {"work", "asleep-work", "latlab.db.lock", "other.db.lock"}
    assert not is_locked(folder / "latlab.db")
    with closing(sqlite3.connect(folder / "latlab.db")) as store:
        assert store.execute("SELECT count(*) FROM measurements WHERE status = 'ok'").fetchone() == (4,)
