"""Paths, architectures and words are never broken, whatever the width of the terminal, and no line is in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pandas as pd
import pytest

from latlab.harness.cli.main import main
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS
from latlab.search_spaces import get

WIDTHS = (60, 80, 120)
PIPE = None
OFA = [arch.text for arch in get("ofa-mobilenetv3").sample(2, 0)]
CELLS = [arch.text for arch in get("nasbench201").sample(6, 0)]
NAME = "a-device-with-a-long-name"
TARGET = f"{NAME}/onnxruntime/cpu/fp32/t1/b1"
COMMANDS = {
    "show": "show {store} --wide",
    "show in short": "show --store {store}",
    "measure": f"measure {NAME} --space nasbench201 --arch {{2}} {{3}} --policy quick --store {{store}} "
    "--inventory {inventory}",
    "predict": "predict --target " + TARGET
    + " --space ofa-mobilenetv3 --arch {0} {1} --predictor flops --store {store}",
    "predict the fastest": "predict --target " + TARGET
    + " --space nasbench201 --all --top 5 --predictor flops --store {store}",
    "quality": "quality {store}",
    "sources": "sources --store {store}",
    "devices": "devices --store {store} --inventory {inventory}",
    "doctor": f"doctor {NAME} toy --inventory {{inventory}}",
    "store info": "store info {store}",
    "store check": "store check {store}",
    "profile": f"profile {{2}} {NAME} --space nasbench201 --store {{store}} --inventory {{inventory}}",
    "compare": f"compare {NAME} --space nasbench201 --arch {{2}} --arch {{3}} --budget 1 --store {{scratch}} "
    "--inventory {inventory}",
    "bench predictors": "bench predictors --table {table} --space nasbench201 --source pi3,pi4 --target "
    "a-target-with-a-long-name --predictor flops,params --samples 3 --seeds 1",
    "simulate": "simulate --table {table} --space nasbench201 --target pi3 --predictor flops --budget 2 --seeds 2",
    "bench tasks": "bench tasks --table {table} --space nasbench201 --sources 1 --targets 1 --count 2",
    "spaces": "spaces",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a-folder-with-a-long-name-that-fits-into-no-line-of-a-narrow-terminal")
    (folder / "inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal, pace: 0}\n"
        f"  {NAME}: {{transport: simulated, kind: pi4, pace: 0}}\n"
    )
    store = Store(folder / "latlab.db")
    for space, archs, sessions in (("ofa-mobilenetv3", OFA, 1), ("nasbench201", CELLS, 2)):
        campaign = store.campaign(Target.parse(TARGET), space, PRESETS["default"], 0, "random")
        for session in range(1, sessions + 1):
            for number, arch in enumerate(archs):
                row = store.begin(campaign, session, arch, "listed")
                store.finish(row.id, "ok", latency_ms=10.0 + number + session / 10, stderr_ms=0.1)
    failed = store.begin(campaign, 3, CELLS[0], "listed")
    store.finish(failed.id, "crash", error=f"the runtime cannot read {folder / 'a-file-with-a-long-name.onnx'}: no")
    store.close()
    archs = get("nasbench201").sample(60, 1)
    names = ("pi3", "pi4", "a-target-with-a-long-name")
    pd.DataFrame(
        {"arch": [arch.text for arch in archs]}
        | {name: [1 + (5 * row) % (11 + number) for row in range(60)] for number, name in enumerate(names)}
    ).to_parquet(folder / "a-table-with-a-long-name.parquet")
    return folder


def words_of(command: str, folder: Path) -> list[str]:
    names = {
        "store": folder / "latlab.db",
        "scratch": folder / "scratch.db",
        "inventory": folder / "inventory.yaml",
        "table": folder / "a-table-with-a-long-name.parquet",
    }
    return COMMANDS[command].format(*OFA, *CELLS, **names).split()


def drawn(
    words: list[str], width: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return what a command prints on a terminal of so many characters; None for a pipe."""
    for name in ("COLUMNS", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    if width is not None:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert not ended.value.code, said.out + said.err
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.out)


@pytest.mark.parametrize("command", COMMANDS)
def test_words_are_whole(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(command, folder)
    if command == "measure":  # what is measured already is told in other words
        drawn(words, PIPE, monkeypatch, capsys)
    piped = drawn(words, PIPE, monkeypatch, capsys)
    assert not [line for line in piped.splitlines() if line != line.rstrip()], "blanks at ends of lines"
    # No part of a word that a pipe shows is a word on a terminal, and what was named is there in one piece.
    wanted = set(re.findall(r"\S+", piped))
    named = {word for word in (*OFA, *CELLS, str(folder / "latlab.db"), TARGET) if word in piped}
    for width in WIDTHS:
        shown = drawn(words, width, monkeypatch, capsys)
        found = set(re.findall(r"\S+", shown))
        parts = {word for word in found - wanted if re.search("[a-zA-Z]{3}", word) and not word.endswith((":", ","))}
        broken = {word for word in parts if any(word in one for one in wanted)}
        assert not broken, f"at {width} characters"
        assert not [word for word in named if word not in shown], f"at {width} characters"
        wide = [line for line in shown.splitlines() if len(line.rstrip()) > width and len(line.split()) > 1]
        assert not wide, f"at {width} characters"


def test_on_a_real_terminal(folder: Path) -> None:
    command = [sys.executable, "-m", "latlab.harness", *words_of("show in short", folder)]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 60, 0, 0))
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65536):
                said += part
        except OSError:  # the terminal's other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, said
    assert TARGET in said.decode()
