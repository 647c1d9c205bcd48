"""An option that takes one value is given once, and no output takes the place of what the command reads."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from latlab.harness.cli.main import app, main

Run = Callable[..., tuple[int, str]]
NEEDED = {"compare": ["local"], "export": ["--out", "x.csv"]}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.replace("│", " ").split())

    return run


def _database(path: str) -> bytes:
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE mine (value)")
    made.close()
    return Path(path).read_bytes()


def _single_valued(command: Any = None, path: tuple[str, ...] = ()) -> list[tuple[list[str], str]]:
    """Return every option of every command that takes one value, and is not read as anything but text or a path."""
    command = command or get_command(app)
    found = []
    for name, one in getattr(command, "commands", {}).items():
        found += _single_valued(one, (*path, name))
        for param in one.params:
            if param.param_type_name == "option" and not (param.multiple or param.is_flag):
                found.append(([*path, name], max(param.opts, key=len)))
    return found


def test_no_option_of_one_value_can_be_given_twice(run: Run) -> None:
    options = [(path, name) for path, name in _single_valued() if name in ("--target", "--store", "--space", "--seed")]
    assert len(options) > 40
    for path, name in options:
        command = _command(path)
        words: list[str] = []
        for param in command.params:
            if param.required and param.param_type_name == "argument":
                words.append("some.csv")
            elif param.required and param.opts != [name]:
                words += [param.opts[0], "some.html" if path[-1] == "report" else "some.csv"]
        value = "3" if name == "--seed" else "a"
        code, said = run(*path, *words, name, value, name, value)
        assert (code, f"{name} is given 2 times, and takes one value" in said) == (2, True), (path, name, said)


def _command(path: list[str]) -> Any:
    command: Any = get_command(app)
    for name in path:
        command = command.commands[name]
    return command


@pytest.mark.parametrize(
    "words",
    [
        "predict --target a1 --target p3 --all",
        "predict --target=a1 --all --target=p3",
        "onboard local --space nasbench201 --budget 3 --budget 5",
        "--store a.db --store b.db show",
        "report --out a.html --out b.html",
        "compare a.onnx b.onnx --ties 1% --ties 2%",
    ],
)
def test_the_last_value_does_not_win_in_silence(run: Run, words: str) -> None:
    code, said = run(*words.split())
    assert code == 2
    assert "is given 2 times, and takes one value" in said
    assert not list(Path().iterdir())


def test_help_and_options_of_several_values_are_as_before(run: Run) -> None:
    assert run("predict", "--target", "a", "--target", "b", "--help")[0] == 0
    code, said = run("predict", "--arch", "x", "--arch", "y", "--fact", "cores=4", "--fact", "tops=1")
    assert (code, "say for which target" in said) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        "report --store m.db --target pi --out m.db",
        "predict --predictor-folder p --onnx m.db",
        "predict --target pi --all --onnx same.csv --out same.csv",
        "report --out inventory.yaml",
        "quality m.db --out m.db",
        "profile net.onnx local --out net.onnx",
        "sustain local --model net.onnx --out net.onnx",
        "compare a.onnx b.onnx --fail-if-slower 3% --junit a.onnx",
        "embed local --space nasbench201 --out inventory.yaml",
        "bench tasks --table t.parquet --space fbnet --out t.parquet",
        "init --out m.db --force",
    ],
)
def test_an_output_must_have_the_suffix_of_its_format(run: Run, words: str) -> None:
    before = _database("m.db")
    code, said = run(*words.split())
    assert (code, "writes a file that ends in" in said) == (2, True), said
    assert Path("m.db").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --store m.csv --out m.csv", "--out m.csv would replace --store m.csv, which this command reads"),
        ("export --store m.csv --out ./link.csv", "would replace --store m.csv"),
        ("report --store m.html --out ./m.html", "would replace --store m.html"),
        ("quality m.html --out m.html", "would replace"),
        ("predict --target pi --all --onnx m.onnx --store m.onnx", "--onnx m.onnx would replace --store m.onnx"),
        ("embed local --space fbnet --inventory i.json --out i.json", "--out i.json would replace --inventory i.json"),
        ("compare a.onnx b.onnx --markdown a.onnx", "--markdown a.onnx would replace"),
        (
            "compare a.onnx b.onnx --markdown latlab.db-wal",
            "--markdown latlab.db-wal would replace a part of the store",
        ),
        ("compare a.onnx b.onnx --markdown inventory.yaml", "--markdown inventory.yaml would replace --inventory"),
        ("compare a.onnx --baseline b.db --fail-if-slower 3% --markdown b.db", "would replace --baseline b.db"),
        ("compare a.onnx b.onnx --fail-if-slower 3% --junit x.xml --markdown x.xml", "what --junit x.xml writes"),
        ("bench predictors --table t.csv --out t.csv", "--out t.csv would replace --table t.csv"),
        ("simulate --table t.csv --space fbnet --target a --out t.csv", "--out t.csv would replace --table t.csv"),
        ("bench predictors --tasks t.json --out t.json", "--out t.json would replace --tasks t.json"),
        ("export --out other.csv", "other.csv is an SQLite database, such as a store, and would be lost"),
        ("report --out other.html", "other.html is an SQLite database"),
        ("bench predictors --out other.csv", "other.csv is an SQLite database"),
    ],
)
def test_an_output_never_replaces_what_is_read_or_a_database(run: Run, words: str, message: str) -> None:
    for name in ("m.csv", "m.html", "m.onnx", "other.csv", "other.html", "b.db"):
        _database(name)
    Path("link.csv").symlink_to("m.csv")
    for name in ("a.onnx", "b.onnx", "inventory.yaml", "i.json", "t.csv", "t.json", "latlab.db-wal"):
        Path(name).write_text("{}")
    before = {one: one.read_bytes() for one in Path().iterdir()}
    code, said = run(*words.split())
    assert (code, message in said) == (2, True), said
    assert {one: one.read_bytes() for one in Path().iterdir()} == before
