"""HTML pages from templates, written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from latlab.harness.text import duration

__all__ = ["environment", "stylesheet", "write_whole"]


_FOLDER = Path(__file__).parent


def write_whole(text: str, path: Path) -> Path:
    """Write a page; its absolute path. Missing folders are made. The file appears whole or not at all."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def environment(*folders: Path) -> Environment:
    """Templates of the report, and of more `folders`; what they are given is foreign text, and escaped."""
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
    return Markup((_FOLDER / "report.css").read_text(encoding="utf-8"))


def _breakable(arch: str) -> Markup:
    """An architecture string, escaped, that may be broken where its parts end rather than anywhere."""
    parts = re.split(r"(?<=[|,+;/ ])" if re.search(r"[|,+;/ ]", arch) else r"(?<=[_-])", arch)
    return Markup("<wbr>").join(part for part in parts if part)


def _code(text: str) -> Markup:
    """Escaped; what stands between backticks, as messages write commands, set as such."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def _umask() -> int:
    """The process's umask: the only way to read it is to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
