"""Options that several commands share: the same words everywhere, several values, the store before or after a verb."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from latlab.harness import Lab
from latlab.harness.cli.main import app, main
from latlab.harness.cli.options import STORE_HELP
from latlab.search_spaces import get

FIXTURE = Path(__file__).parent.parent / "store" / "fixtures" / "version_0_1.db.gz"
FIRST, SECOND = (arch.text for arch in get("nasbench201").sample(2, 0))
WITHOUT_STORE = {
    "encode",
    "export-models",
    "help",
    "spaces",
    "inspect",
    "init",
    "doctor",
    "setup",
    "bench",
    "bench predictors",
    "bench tasks",
    "simulate",
}
"""Commands that neither read nor write a store."""
WITHOUT_JSON = {"bench", "store"}
"""Groups of commands that do nothing themselves."""


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    command = command or get_command(app)
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))
    if path:
        yield " ".join(path), command


def option(command: Any, name: str) -> Any:
    return next((one for one in command.params if name in one.opts), None)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


COMMANDS = list(commands())


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=lambda one: one if isinstance(one, str) else "")
def test_every_command_says_the_same_of_its_store_and_its_json(name: str, command: Any) -> None:
    store = option(command, "--store")
    assert (store is None) == (name in WITHOUT_STORE)
    if store is not None:
        assert store.help.startswith(STORE_HELP)
    as_json = option(command, "--json")
    assert (as_json is None) == (name in WITHOUT_JSON)
    if as_json is not None:
        form = r"Print JSON Lines on stdout: one line of JSON for [a-z ]+\. Messages go to stderr\."
        assert re.fullmatch(form, as_json.help)
    for one in command.params:
        assert not re.search(r"(?<!\\)\[default", one.help or ""), f"{name} {one.name}: it would not be shown"


def test_the_options_of_a_target_are_the_same_everywhere() -> None:
    names = ("--runtime", "--accelerator", "--precision", "--threads", "--batch-size", "--seed", "--policy")
    for name in names:
        several = [option(one, name) for path, one in COMMANDS if path in ("measure", "embed", "onboard", "compare")]
        assert len({one.help for one in several}) == 1, name


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a simulated device, a store of an older version, and one with labels."""
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    Path("old.db").write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return tmp_path


def test_several_values_are_several_targets(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["measure", "toy", "--space", "nasbench201", "--arch", FIRST, "--policy", "quick", "--json"]
    for words in (["--threads", "1,4"], ["--threads", "1", "--threads", "4"]):
        code, out, err = run([*start, *words], monkeypatch, capsys)
        assert code == 0, err
        targets = [json.loads(line)["target"] for line in out.splitlines()]
        assert targets == [f"toy/onnxruntime/cpu/fp32/t{threads}/b1" for threads in (1, 4)]
    asked: list[Any] = []
    monkeypatch.setattr(
        Lab, "measure", lambda self, devices, **more: asked.extend(self.targets(devices, more["options"]))
    )
    with pytest.raises(AttributeError):  # nothing comes back to be shown
        run([*start, "--runtime", "onnxruntime", "--runtime", "tflite", "--batch-size", "1,2"], monkeypatch, capsys)
    targets = [str(one) for one in asked]
    assert targets == [f"toy/{name}/cpu/fp32/t1/b{size}" for name in ("onnxruntime", "tflite") for size in (1, 2)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["measure", "toy", "--threads", "1,x"], "--threads takes whole numbers, not 'x'"),
        (["measure", "toy", "--threads", "1,"], "names nothing between its commas"),
        (["measure", "toy", "--threads", "0"], "threads must be between 1 and 1024, not 0"),
        (["measure", "toy", "--runtime", "tflite,abacus"], "unknown runtime 'abacus'"),
        (["profile", FIRST, "toy", "--threads", "1,4"], "--threads can have one value here, and names 2: 1, 4"),
        (["sustain", "toy", "--runtime", "tflite", "--runtime", "onnxruntime"], "--runtime can have one value here"),
    ],
)
def test_what_several_values_cannot_be(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    more = ["--space", "nasbench201"] + (["--arch", FIRST] if words[0] != "profile" else [])
    code, _, err = run([*words, *more], monkeypatch, capsys)
    assert code == 2
    assert message in err


def test_the_store_before_and_after_the_verb(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for before, after in (
        ([], ["show", "old.db"]),
        ([], ["show", "--store", "old.db"]),
        (["--store", "old.db"], ["show"]),
        (["--store=old.db"], ["show"]),
        (["--store", "none.db"], ["show", "--store", "old.db"]),
        (["--store", "old.db"], ["sources"]),
        ([], ["sources", "--store", "old.db"]),
        (["--store", "old.db"], ["store", "info"]),
        ([], ["store", "--store", "old.db", "info"]),
        ([], ["store", "info", "--store", "old.db"]),
        ([], ["store", "info", "old.db"]),
        ([], ["store", "check", "--store", "old.db"]),
        (["--store", "old.db"], ["store", "copy", "copy.db"]),
        ([], ["store", "copy", "--store", "old.db", "copy2.db"]),
        (["--store", "old.db"], ["store", "merge", "copy.db", "--into", "all.db"]),
        (["--store", "copy.db"], ["store", "compact"]),
        (["--store", "old.db"], ["export", "--out", "rows.csv"]),
        (["--store", "old.db"], ["devices", "--no-probe"]),
    ):
        code, out, err = run([*before, *after, "--json"], monkeypatch, capsys)
        assert code == 0, (before, after, err)
        assert [json.loads(line) for line in out.splitlines()]
        assert not Path("latlab.db").exists()
    assert Path("copy.db").exists()
    assert Path("copy2.db").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--store", "old.db", "spaces"], "`latlab spaces` uses no store"),
        (["--store", "old.db", "bench", "tasks"], "`latlab bench` uses no store"),
        (["show", "old.db", "--store", "other.db"], "old.db and --store other.db are two stores"),
        (["store", "info", "old.db", "--store", "other.db"], "are two stores"),
        (["store", "copy", "a.db", "b.db", "c.db"], "two files, not 3"),
    ],
)
def test_a_store_that_means_nothing(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, err = run(words, monkeypatch, capsys)
    assert code == 2
    assert message in err


def test_lists_of_architectures_behind_a_store(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Lab, "measure", lambda self, devices, **more: asked.append((self.store.path, more["archs"])))
    words = ["--store", "x.db", "measure", "toy", "--space", "nasbench201", "--arch", FIRST, SECOND]
    with pytest.raises(AttributeError):  # nothing comes back to be shown
        run(words, monkeypatch, capsys)
    assert asked == [(Path("x.db"), [FIRST, SECOND])]
