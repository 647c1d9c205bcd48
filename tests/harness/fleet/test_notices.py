"""Notices: what the user's command is told, that nothing of it is read by a shell, and that it harms nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from latlab.harness.cli.notifying import notifying
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.fleet import notices
from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.fleet.notices import Notifier

HOSTILE = "x'; touch harmed; $(touch harmed) `touch harmed`\n\x1b[31m\0"
WRITES = (
    "import json, os, sys\n"
    "told = {k: v for k, v in os.environ.items() if k.startswith('LATLAB_')}\n"
    "open(sys.argv[1], 'a').write(json.dumps(told) + '\\n')\n"
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A command that writes what it is told to `told.jsonl`, a line for each event."""
    monkeypatch.chdir(tmp_path)
    Path("tell me.py").write_text(WRITES)
    return f"{sys.executable} 'tell me.py' told.jsonl"


def told() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()]


def test_a_lost_device_and_the_end_are_told_without_a_shell(command: str) -> None:
    seen: list[object] = []
    inner = RunListener(observe=seen.append)
    with notifying(command, Path("latlab.db"), "nasbench201", inner) as listener:
        assert listener.observe is not None
        listener.observe(Incident("pi4", "lost", HOSTILE, target="pi4/onnxruntime/cpu/fp32/t1/b1"))
    lost, ended = told()
    assert (lost["LATLAB_EVENT"], lost["LATLAB_DEVICE"]) == ("device_lost", "pi4")
    assert lost["LATLAB_MESSAGE"].startswith("x'; touch harmed; $(touch harmed) `touch harmed`")
    assert not set(lost["LATLAB_MESSAGE"]) & {"\n", "\x1b", "\0"}
    assert (ended["LATLAB_EVENT"], ended["LATLAB_OUTCOME"]) == ("campaign_ended", "done")
    assert Path(ended["LATLAB_STORE"]) == Path("latlab.db").absolute()
    assert len(seen) == 1
    assert not Path("harmed").exists()


def test_how_a_campaign_ends_is_told(command: str) -> None:
    for error, outcome in ((LatlabError("no device"), "failed"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), notifying(command, Path("latlab.db"), "fbnet", RunListener()):
            raise error
        assert told()[-1]["LATLAB_OUTCOME"] == outcome


def test_a_notice_that_fails_or_hangs_harms_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = Notifier("false", {})
    failing.notice("device_lost")
    assert failing.close() == ["--notify: false has failed with exit code 1 (device_lost)"]
    monkeypatch.setattr(notices, "MOST_S", 0.3)
    hanging = Notifier("sleep 60", {})
    began = time.monotonic()
    hanging.notice("device_lost")
    assert time.monotonic() - began < 0.2, "the measuring would wait for it"
    assert "has not ended within" in hanging.close(20)[0]
    monkeypatch.setattr(notices, "MOST_S", 60.0)
    still = Notifier("sleep 60", {})
    still.notice("campaign_ended")
    assert "still running" in still.close(0.5)[0]


@pytest.mark.parametrize("command", ["", "  ", "'", "/nowhere/no-such-command", "no-such-command-here", "x\0y"])
def test_a_command_that_is_not_there_is_bad_input(command: str) -> None:
    with pytest.raises(BadInputError, match="--notify"):
        Notifier(command, {})
