"""Factories that end the program, hang or give nonsense, in the real command: one clear error, the right exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_commands import CommandServer
from waiting import wait_until

CODE = """
import os, sys, time
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
    def forward(self, x):
        return self.last(x)
class Leaves(Net):
    def forward(self, x):
        os._exit(0)
class Interrupts(Net):
    def forward(self, x):
        raise KeyboardInterrupt
class HidesWeights(Net):
    def parameters(self, recurse=True):
        sys.exit(0)
class Odd(BaseException):
    pass
def leaves():
    os._exit(0)
def aborts():
    os.abort()
def exits():
    raise SystemExit
def exits_with_words():
    sys.exit("no licence")
def interrupts():
    raise KeyboardInterrupt
def nothing():
    return None
def odd():
    raise Odd
def deep():
    return deep()
def forks():
    if not os.fork():
        os._exit(3)
    os.wait()
    return Net()
def talks():
    for _ in range(3000):
        print("x" * 1023)
    os.write(1, b"raw")
    return Net()
def hangs():
    while True:
        time.sleep(0.01)
"""
ENDED = "ended the program (exit code {}) {}"
MAKING, RUNNING = "instead of making a module", "when it was run"
FAULTS = {
    "sys:exit": (2, "sys:exit " + ENDED.format(0, MAKING)),
    "nets:leaves": (2, ENDED.format(0, MAKING)),
    "nets:aborts": (2, ENDED.format(1, MAKING)),
    "nets:exits": (2, ENDED.format(0, MAKING)),
    "nets:exits_with_words": (2, "nets:exits_with_words ended the program (it said: no licence)"),
    "nets:interrupts": (130, "interrupted by a KeyboardInterrupt that no signal has caused, such as a factory's own"),
    "nets:nothing": (2, "nets:nothing gave a NoneType, not a torch.nn.Module"),
    "nets:odd": (2, "nets:odd failed: Odd"),
    "nets:deep": (2, "nets:deep failed: RecursionError"),
    "nets:absent": (2, "nets:absent failed: AttributeError"),
    "nets:Leaves": (2, ENDED.format(0, RUNNING)),
    "nets:Interrupts": (130, "KeyboardInterrupt"),
    "nets:HidesWeights": (2, ENDED.format(0, "when its weights were read")),
}
MEASURE = "measure toy --input 1x4 --json --model"


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    device = {"transport": "simulated", "kind": "ideal"}
    (tmp_path / "inventory.yaml").write_text(json.dumps({"devices": {"toy": device}}))
    return tmp_path


@pytest.mark.parametrize("model", FAULTS)
def test_it_is_one_clear_error(server: CommandServer, folder: Path, model: str) -> None:
    process = server.start([*MEASURE.split(), model], folder)
    code, words = FAULTS[model]
    assert process.wait(120) == code, process.stderr
    said = [line for line in process.stderr.splitlines() if line.startswith("latlab: ")]
    assert len(said) == 1, process.stderr
    assert words in said[0]
    assert "Traceback" not in process.stderr
    assert words in json.loads(process.stdout)["error"], "and it is in the JSON"


@pytest.mark.parametrize("words", ["inspect {}", "compare {} nets:Net toy --input 1x4", "profile {} toy --input 1x4"])
def test_in_other_commands(server: CommandServer, folder: Path, words: str) -> None:
    process = server.start(words.format("nets:leaves").split(), folder)
    assert process.wait(120) == 2, process.stderr
    assert ENDED.format(0, MAKING) in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("model", ["nets:talks", "nets:forks"])
def test_it_does_no_harm(server: CommandServer, folder: Path, model: str) -> None:
    process = server.start([*MEASURE.split(), model], folder)
    assert process.wait(120) == 0, process.stderr[-1000:]
    assert json.loads(process.stdout)["status"] == "ok", "nothing else is on stdout"


def test_one_that_never_returns_is_named_and_can_be_ended(server: CommandServer, folder: Path) -> None:
    process = server.start([*MEASURE.split(), "nets:hangs"], folder)
    wait_until(lambda: "latlab: nets:hangs has been running for 5 s" in process.stderr, "nothing is said", 120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert "latlab: terminated" in process.stderr
