"""Every option of every command with absurd values, and every example of every `--help`."""

from __future__ import annotations

import importlib.util
import random
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.main import get_command

from latlab.harness import Lab
from latlab.harness.cli.main import app, main
from latlab.harness.errors import LatlabError
from latlab.search_spaces import get

SPACE = "nasbench201"
FIRST, SECOND = (arch.text for arch in get(SPACE).sample(2, 0))
TARGET = "local/onnxruntime/cpu/fp32/t1/b1"
COMMANDS: dict[str, list[str]] = {
    "onboard": ["local", "--space", SPACE],
    "predict": ["--target", TARGET, "--space", SPACE, "--arch", FIRST, "--predictor", "flops"],
    "report": ["--target", TARGET, "--space", SPACE, "--predictor", "flops"],
    "measure": ["local", "--space", SPACE, "--count", "3", "--resolve"],
    "embed": ["local", "--space", SPACE],
    "bench predictors": ["--table", "mine.parquet", "--space", "fbnet", "--source", "pi3,pi4", "--target", "pi5",
                         "--predictor", "flops"],
    "simulate": ["--table", "mine.parquet", "--space", "fbnet", "--target", "pi5", "--predictor", "flops",
                 "--budget", "3"],
    "bench tasks": ["--table", "mine.parquet", "--space", "fbnet", "--sources", "1", "--targets", "1"],
    "search": ["--target", TARGET, "--space", SPACE, "--max-latency-ms", "9", "--accuracy", "macs", "--generations",
               "2", "--no-measure", "--predictor", "flops"],
    "inspect": ["no.onnx"],
    "sustain": ["local", "--space", SPACE, "--arch", FIRST],
    "profile": [FIRST, "local", "--space", SPACE],
    "compare": ["local", "--space", SPACE, "--arch", FIRST, "--arch", SECOND],
    "encode": ["--space", SPACE, "--encoding", "one-hot", "--count", "3", "--out", "z.csv"],
    "export-models": ["--space", SPACE, "--count", "1", "--to", "networks"],
    "pretrain": ["--predictor", "maml", "--space", SPACE, "--out", "trained"],
    "dashboard": [],
}  # fmt: skip
"""Words with which each command that has a numeric option begins to work."""
NUMBERS = ("--threads", "--batch-size")
"""Options that take one whole number or several."""
STORE_COMMANDS = {
    "show": [], "export": ["--out", "e.csv"], "quality": ["--out", "q.html"], "sources": [], "sources remove": ["none"],
    "import": ["mine.parquet", "--space", "fbnet"], "devices": ["--no-probe"], "doctor": ["toy"], "setup": ["toy"],
    "init": ["--out", "first.yaml", "--force"], "metrics": [], "store info": [], "store check": [], "store compact": [],
    "store copy": ["latlab.db", "c.db", "--force"],
    "store merge": ["latlab.db", "latlab.db", "--into", "m.db", "--force"],
}  # fmt: skip
"""The same for those without one."""
TEXTS = ("", " ", "\x1b[31mred\x07", "x" * 5000, "\udcff\udcfe", "\u202e٣", "/dev/null", ".", "/nowhere/x", "=:,/x")
ABSURD = ("9" * 26, "-" + "9" * 26, "nan", "inf", "-inf", "1e400", "", " ", "x", "0x10", "٣٤.", "1,2,", "--")
NEGATIVE_IS_FINE = ("--seed",)
HUGE_IS_FINE = ("--under", "--most-seconds", "--budget", "--top")


class ReachedError(LatlabError):
    """The command would have used a device now."""


def _commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    command = command or get_command(app)
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, (*path, name))
    if path:
        yield " ".join(path), command


def _numeric() -> Iterator[tuple[str, str]]:
    for name, command in _commands():
        for option in command.params:
            numeric = option.type_descriptor.annotation in (int, float) or option.opts[0] in NUMBERS
            if option.param_type_name == "option" and not option.is_flag and numeric:
                yield name, option.opts[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the commands begin to work, and end where they would use a device."""

    def reached(*_: object, **__: object) -> None:
        raise ReachedError("the device is reached")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Lab, "run_jobs", reached)  # what comes before a device is what is tested here
    monkeypatch.setattr("latlab.harness.lab.exporting.export_space", reached)
    monkeypatch.setattr("latlab.harness.lab.encoding.encode_space", reached)  # or before minutes of work
    if importlib.util.find_spec("uvicorn"):
        monkeypatch.setattr("latlab.harness.dashboard.server.serve", reached)  # which ends by a signal only
    chance = random.Random(0)
    archs = get("fbnet").sample(40, 5)
    table = {"arch": [arch.text for arch in archs]} | {
        name: [chance.uniform(1, 2) for _ in archs]
        for name in ("pi3", "pi4", "pi5", "mac", "nano", "edge", "phone", "nuc", "laptop", "watch")
    }
    pd.DataFrame(table).to_parquet("mine.parquet")
    return tmp_path


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), capfd.readouterr().err


def test_the_options_are_found() -> None:
    found = set(_numeric())
    assert {
        ("measure", "--count"),
        ("measure", "--under"),
        ("sustain", "--minutes"),
        ("bench tasks", "--seed"),
    } <= found
    assert {name for name, _ in found} <= set(COMMANDS)


@pytest.mark.parametrize(("command", "option"), list(_numeric()), ids=lambda one: one)
def test_an_absurd_number_is_one_clear_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str, option: str
) -> None:
    for value in ABSURD:
        if option in HUGE_IS_FINE and value in ("9" * 26, "inf", "1e400"):
            continue
        code, said = _run([*command.split(), *COMMANDS[command], f"{option}={value}"], monkeypatch, capfd)
        assert (code, "Traceback" in said) == (2, False), f"{option}={value!r}: {said}"
        assert said.strip()


def _textual() -> Iterator[tuple[str, str]]:
    """Yield the options and arguments of all commands that take a text or a path: a command and a name."""
    for name, command in _commands():
        for one in command.params if name in COMMANDS | STORE_COMMANDS else ():
            kinds = str(one.type_descriptor.annotation)
            if not getattr(one, "is_flag", False) and ("str" in kinds or "Path" in kinds):
                yield name, one.opts[0]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A store with two labels."""
    folder = tmp_path_factory.mktemp("content")
    (folder / "inventory.yaml").write_text("devices:\n  local: {transport: simulated, kind: ideal}\n")
    lab = Lab(folder / "latlab.db", inventory=folder / "inventory.yaml")
    lab.measure("local", space=SPACE, archs=[FIRST, SECOND])
    lab.store.close()
    return (folder / "latlab.db").read_bytes()


def test_the_texts_are_found() -> None:
    assert {("predict", "--arch"), ("import", "files"), ("store merge", "--into")} <= set(_textual())
    assert {name for name, _ in _commands()} - set(COMMANDS | STORE_COMMANDS) == {"bench", "help", "spaces", "store"}


@pytest.mark.parametrize(
    ("command", "name", "text"),
    # Each text with many options, and each option with one: all with all take a quarter of an hour.
    [(*one, TEXTS[number % len(TEXTS)]) for number, one in enumerate(_textual())],
    ids=lambda one: ascii(one)[:30],
)
def test_a_hostile_text_is_no_traceback(
    here: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    name: str,
    text: str,
) -> None:
    Path("inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal}\n  local: {transport: local}\n"
    )
    words = (COMMANDS | STORE_COMMANDS)[command]
    beside_null = sorted(Path("/dev").glob("null*"))
    Path("latlab.db").write_bytes(content)
    given = [f"{name}={text}"] if name.startswith("-") else ["--", text]
    code, said = _run([*command.split(), *words, *given], monkeypatch, capfd)
    assert code in (0, 1, 2), said
    assert "Traceback" not in said
    assert code == 0 or said.strip()
    assert "\x1b[31m" not in said
    assert sorted(Path("/dev").glob("null*")) == beside_null
    assert Path("/dev/null").is_char_device()


def _examples() -> Iterator[str]:
    for name, command in _commands():
        for line in (command.help or "").splitlines():
            text = re.sub(r"\[/?dim\]|Examples?:", "", line).strip()
            if text.startswith("latlab "):
                yield pytest.param(text, id=f"{name}: {text[:60]}")


def test_the_examples_are_found() -> None:
    assert len(list(_examples())) >= 20


NEEDED = (
    "no file",
    "there is no",
    "cannot read",
    "unknown device",
    "not found",
    "no store",
    "no measurements",
    "has no",
)
"""What an example may lack here: the user's own files and devices."""


@pytest.mark.parametrize("text", list(_examples()))
def test_every_example_of_a_help_is_accepted(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    words = shlex.split(text)[1:]
    if words[0] in ("doctor", "setup"):  # they look at devices: only their words are read
        words.append("--help")
    code, said = _run(words, monkeypatch, capfd)
    assert "Traceback" not in said
    reached = code == 0 or "the device is reached" in said
    assert reached or any(one in said for one in NEEDED), said


def test_the_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["latlab", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert re.fullmatch(r"latlab \d+\.\d+\S*\n", capfd.readouterr().out)
