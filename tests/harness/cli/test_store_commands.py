"""The commands `latlab store ...`, as a person uses them."""

from __future__ import annotations

import gzip
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from latlab.harness.cli.main import main

FIXTURE = Path(__file__).parent.parent / "store" / "fixtures" / "version_0_1.db.gz"


class Shell:
    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    Path("latlab.db").write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    return Shell(capsys, monkeypatch)


def test_copy_merge_check_info_compact(run: Shell) -> None:
    assert run("store", "copy", "latlab.db", "copy.db")[0] == 0
    code, said, _ = run("store", "merge", "latlab.db", "copy.db", "--into", "all.db", "--json")
    assert code == 0
    assert json.loads(said) == {
        "store": "all.db",
        "measurements": 0,
        "known": 12,
        "sources": 0,
        "renamed": [],
        "damaged": 0,
    }
    assert "is sound" in run("store", "check", "all.db")[1]
    code, said, _ = run("store", "info", "all.db")
    assert code == 0
    assert "8 labels in nasbench201" in said
    assert "board: " in said
    assert run("store", "compact", "all.db")[0] == 0
    first, second = (json.loads(run("show", name, "--json")[1]) for name in ("latlab.db", "all.db"))
    assert first["campaigns"] == second["campaigns"]


def test_refusals(run: Shell) -> None:
    assert run("store", "copy", "nothing.db", "copy.db")[0] == 2
    assert "Add --force" in f"{run('store', 'copy', 'latlab.db', 'latlab.db')[2]}".replace("add --force", "Add --force")
    assert run("store", "merge", "latlab.db", "--into", "all.db")[0] == 2
    assert not Path("all.db").exists()


def test_damage_is_told_once_and_the_rest_is_shown(run: Shell) -> None:
    with sqlite3.connect("latlab.db") as connection:
        connection.execute("UPDATE measurements SET metrics = 'slow' WHERE id = 1")
    connection.close()
    code, said, error = run("export", "--out", "all.csv")
    assert code == 0
    assert error.count("measurements row 1 (metrics is slow") == 1
    assert "Traceback" not in error
    code, said, _ = run("store", "check", "--json")
    assert code == 1
    assert json.loads(said)["damaged"][0]["table"] == "measurements"
