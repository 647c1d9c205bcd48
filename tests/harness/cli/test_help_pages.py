"""`latlab help`: pages of the documentation on the terminal, and the page that an error names."""

from __future__ import annotations

import sys

import pytest
import typer

from latlab.harness.cli.help_pages import PAGES
from latlab.harness.cli.main import app, main
from latlab.harness.terminal.help_page import pages


def run(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def test_every_command_has_a_page() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(PAGES) == set(commands) - {"help"}
    assert set(PAGES.values()) <= set(pages())


@pytest.mark.parametrize("name", [None, *pages()])
def test_every_page_is_shown(
    name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["help"] if name is None else ["help", name, "--all"]
    code, out, err = run(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert (code, err) == (0, "")
    assert len(out) > 200
    assert "toctree" not in out
    assert "](" not in out


def test_the_beginning_of_a_page_names_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run("help", "onboard", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "Onboarding that stops by itself" in out
    assert "More in `latlab help onboarding --all`: How it knows" in out
    assert "drawn from the posterior" not in out


def test_an_unknown_page_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("help", "no\x1b[31m/../../etc", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert "there is no page" in err
    assert "\x1b" not in err


def test_bad_input_names_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("measure", "local", "--space", "nasbench201", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert err.endswith("`latlab help measuring` has more.\n")
