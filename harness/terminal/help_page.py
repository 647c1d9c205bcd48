"""The pages of the documentation on the terminal, without a connection."""

from __future__ import annotations

import re
from pathlib import Path

from rich.markdown import Markdown
from rich.table import Table

from latlab.harness.errors import BadInputError
from latlab.harness.terminal.console import console

__all__ = ["page", "pages", "show_page", "show_pages"]

FOLDER = Path(__file__).resolve().parents[2] / "docs"
"""`docs` of a clone, or `latlab/docs` where latlab is installed."""
HIDDEN = ("index", "figures", "reference", "about", "contributing", "changelog")
"""Pages that are only lists of others, or too long for a terminal."""


def pages() -> dict[str, str]:
    """Return the titles of the pages by their names."""
    found = {}
    for path in sorted(FOLDER.glob("*.md")):
        first = _text(path).partition("\n")[0]
        if path.stem not in HIDDEN and first.startswith("# "):
            found[path.stem] = first.removeprefix("# ").replace("`", "")
    return found


def page(name: str) -> str:
    """Return the text of a page, in Markdown.

    Raises:
        BadInputError: there is no such page.
    """
    if name not in pages():
        raise BadInputError(f"there is no page {name!r:.60}", f"There are: {', '.join(pages())}.")
    # Lists of pages are for the site only.
    return re.sub(r"```\{.*?\n```\n?", "", _text(FOLDER / f"{name}.md"), flags=re.DOTALL)


def _text(path: Path) -> str:
    """Return the text of a file, or of the one that it includes as a whole."""
    text = path.read_text(encoding="utf-8")
    included = re.fullmatch(r"```\{include\} (\S+)\n```\n", text)
    there = None if included is None else path.parent / included[1]
    return text if there is None or not there.is_file() else there.read_text(encoding="utf-8")


def show_pages() -> None:
    """Print the names and titles of all pages."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, title in pages().items():
        table.add_row(name, title)
    console().print(table)


def show_page(name: str, whole: bool) -> None:
    """Print a page: what stands before its first section, or all of it.

    Raises:
        BadInputError: there is no such page.
    """
    text = page(name)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)  # pictures
    text = re.sub(r"\[([^\]]*)\]\((?:(?!https?:)[^)]*?)([a-z-]+)\.md[^)]*\)", r"\1 (`latlab help \2`)", text)
    text = re.sub(r"\[([^\]]*)\]\(#[^)]*\)", r"\1", text)
    # A page that begins with a section has nothing before it.
    beginning = re.split(r"\n(?=## )", text)
    shown = text if whole or len(beginning) == 1 else beginning[0] if beginning[0].count("\n") > 2 else beginning[1]
    console().print(Markdown(shown.strip(), hyperlinks=False))
    sections = [one.partition("\n")[0].removeprefix("## ") for one in beginning[1:]]
    if not whole and shown != text:
        console().print(f"\nMore in `latlab help {name} --all`: {', '.join(sections)}.")
