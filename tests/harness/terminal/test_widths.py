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

import pytest

from latlab.harness import Lab
from latlab.search_spaces import get

ARCHS = [arch.text for arch in get("ofa-mobilenetv3").sample(2, 0)]
COMMANDS = (
    "show {store} --wide",
    "measure toy --space ofa-mobilenetv3 --arch {0} --store {store} --inventory {inventory}",
    "measure toy --space ofa-mobilenetv3 --arch {0} {1} --store {store} --inventory {inventory}",
    "predict --target toy --space ofa-mobilenetv3 --arch {0} {1} --predictor flops --store {store}",
    "quality {store}",
    "spaces",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a-folder-with-a-long-name-that-fits-into-no-line-of-a-narrow-terminal")
    (folder / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    lab = Lab(folder / "latlab.db", inventory=folder / "inventory.yaml")
    lab.measure("toy", space="ofa-mobilenetv3", archs=ARCHS)
    lab.measure("toy", space="ofa-mobilenetv3", archs=ARCHS[:1])
    lab.store.close()
    return folder


def _drawn(words: list[str], width: int | None) -> str:
    """Return what a command prints on a terminal of so many characters; None for a pipe."""
    command = [sys.executable, "-m", "latlab.harness", *words]
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    if width is None:
        return subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True).stdout
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
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
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode()).replace("\r\n", "\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_words_are_whole(folder: Path, command: str) -> None:
    names = {"store": folder / "latlab.db", "inventory": folder / "inventory.yaml"}
    words = command.format(*ARCHS, **names).split()
    piped = _drawn(words, None)
    whole = [word for word in (*ARCHS, str(folder / "latlab.db")) if word in piped]
    assert whole or command == "spaces" or command.startswith("quality")
    # Every word, of letters, that a pipe shows, is there in a terminal of any width, and no part of one beside it.
    wanted = set(re.findall(r"\S+", piped))
    for width in (60, 80, 120):
        shown = set(re.findall(r"\S+", _drawn(words, width)))
        broken = {word for word in shown if word not in wanted and not word.endswith(":") and len(word) > 2
                  and any(word in one for one in wanted)}  # fmt: skip
        assert not broken, f"at {width} characters"
        assert set(whole) <= {word.rstrip(".") for word in shown} | shown, f"at {width} characters"
