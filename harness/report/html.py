"""HTML pages from templates. A page's file is written completely or not at all."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from latlab.harness.paths import cannot_write, whole_file
from latlab.harness.text import duration, plain

__all__ = ["environment", "stylesheet", "write_whole"]

_FOLDER = Path(__file__).parent


def write_whole(text: str, path: Path) -> Path:
    """Write a page as `plain` shows it, and return its absolute path. Missing folders are made.

    The file appears complete or not at all.

    Raises:
        BadInputError: the file cannot be written.
    """
    path = Path(path).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    with whole_file(path) as part:
        part.write_text(plain(text), encoding="utf-8", newline="\n")
    return path


def environment(*folders: Path) -> Environment:
    """Return the environment of the report's templates, and of those in `folders`.

    It escapes all text that it is given.
    """
    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([*folders, _FOLDER]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["duration"] = duration
    found.filters["breakable"] = _breakable
    found.filters["code"] = _code
    return found


def stylesheet() -> Markup:
    """Return the CSS of all pages."""
    return Markup((_FOLDER / "report.css").read_text(encoding="utf-8"))


def _breakable(arch: str) -> Markup:
    """Return an architecture string, escaped, with line breaks allowed only where its parts end."""
    parts = re.split(r"(?<=[|,+;/ ])" if re.search(r"[|,+;/ ]", arch) else r"(?<=[_-])", arch)
    return Markup("<wbr>").join(part for part in parts if part)


def _code(text: str) -> Markup:
    """Return text, escaped, with the parts between backticks (commands in messages) set as code."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))
