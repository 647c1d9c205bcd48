"""Text of a store that somebody sent: nothing in it reaches a terminal, a table or a page that these would obey."""

from __future__ import annotations

import io
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from latlab.harness import Lab
from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.store.schema import Base
from latlab.harness.terminal.console import Screen
from latlab.harness.text import clean, plain, printable

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;new title\x07",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "link": "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "unended": "\x1b]0;no end",
    "cursor": "\x1b[2J\x1b[H",
    "c1": "\x9b31m\x9d0;title\x9c\x90q\x9c\x85",
    "controls": "\x00\x07\x08\x0b\x0c\r\x7f",
    "bidi": "\u202egnp.exe\u202c\u2066x\u2069\u200f",
    "unseen": "a\u200bb\u200dc\u2060d\ufeff\xad",
    "lines": "one\u2028two\u2029",
    "tags": "\U000e0041\U000e007f",
}
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e0fff]"
)
ALL = "".join(HOSTILE.values())
COMMANDS = (
    "show", "show --wide", "quality --out q.html", "export --out e.csv", "export --raw --out r.csv", "sources",
    "devices --no-probe", "report --target toy --space nasbench201 --out r.html",
    "predict --target toy --all --predictor flops", "compare --targets {target} {target} --space nasbench201 --count 2",
)  # fmt: skip
QUICK = 7
"""The first commands, which take less than a second each."""
TARGET = "toy/onnxruntime/cpu/fp32/t1/b1"


def _columns() -> Iterator[tuple[str, str]]:
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column.type.python_type in (str, dict, list):
                yield table.name, column.name


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    (folder / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    lab = Lab(folder / "latlab.db", inventory=folder / "inventory.yaml")
    for again in (False, True):
        lab.measure("toy", space="nasbench201", count=4, new_session=again)
    lab.store.close()
    return folder


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    for shown in (plain(f"a{text}b"), clean(f"a{text}b"), printable(f"a{text}b"), str(BadInputError(text, text))):
        assert not OBEYED.search(shown)
    assert "title" not in plain(HOSTILE["title"])


@given(st.text(alphabet=st.one_of(st.sampled_from(sorted(set(ALL))), st.characters())))
def test_whatever_the_text(text: str) -> None:
    shown = plain(text)
    assert not OBEYED.search(shown)
    assert plain(shown) == shown


@given(
    st.text(
        alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"], exclude_characters="\u3164\u115f\u1160\uffa0")
    )
)
def test_other_text_stays(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_drawn_is_obeyed(is_terminal: bool) -> None:
    out = io.StringIO()
    screen = Screen(file=out, force_terminal=is_terminal, color_system=None, width=60)
    table = Table(ALL, title=ALL)
    table.add_row(escape(ALL))
    table.add_row(Text(ALL))
    for one in (table, escape(ALL), Text(ALL), Panel(ALL, title=ALL)):
        screen.print(one)
    assert not OBEYED.search(out.getvalue())


@pytest.mark.parametrize(("table", "column"), list(_columns()), ids=lambda one: one)
def test_no_column_of_a_store_is_obeyed(
    measured: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    column: str,
) -> None:
    for name in ("inventory.yaml", "latlab.db"):
        shutil.copy(measured / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("latlab.db")) as store:
        store.execute("PRAGMA foreign_keys = OFF")
        (kept,) = store.execute(f"SELECT max({column}) FROM {table}").fetchone()
        kind = "json" if isinstance(kept, str) and kept[:1] in "{[" else "text"
        hostile = ALL.replace("\x00", "")
        if kind == "json":  # each string in it, with the escapes of JSON
            import json

            hostile = json.dumps(hostile)[1:-1]
            rows = store.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            for row, value in rows:
                changed = re.sub(r'(: ?")([^"]*)"', lambda found: f'{found[1]}{found[2]}{hostile}"', value)
                store.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (changed, row))
        elif table == "source_labels":
            return
        else:
            store.execute(f"UPDATE {table} SET {column} = coalesce({column}, '') || ?", (hostile,))
        store.commit()
    failed = []
    shown = table in ("campaigns", "measurements", "fingerprints")
    for words in COMMANDS if shown else COMMANDS[:QUICK]:
        monkeypatch.setattr(sys, "argv", ["latlab", *words.format(target=TARGET).split()])
        with pytest.raises((SystemExit, Exception)) as ended:
            main()
        if not isinstance(ended.value, SystemExit):
            failed.append(words)  # damaged stores have tests of their own
        for name, said in zip(("stdout", "stderr"), capfd.readouterr(), strict=True):
            found = OBEYED.search(said)
            assert found is None, f"{words}, {name}: {said[max(0, found.start() - 60) : found.end() + 20]!r}"
    assert len(failed) < len(COMMANDS)
    for path in tmp_path.glob("*.[ch][st][vm]*"):
        found = OBEYED.search(path.read_text(encoding="utf-8"))
        assert found is None, path.name
