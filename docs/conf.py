"""How Sphinx builds these pages, without a connection: `python -m sphinx -W --keep-going -b html docs docs/_build`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "latlab"
copyright = "the latlab authors"
# Read from the file, so that the pages can be built where latlab is not installed.
release = version = PROJECT["version"]

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
if not (ROOT / "CONTRIBUTING.md").exists():  # contributing.md includes it
    exclude_patterns.append("contributing.md")
myst_heading_anchors = 3

html_theme = "pydata_sphinx_theme"
html_title = f"latlab {version}"
html_show_sourcelink = False
html_copy_source = False


def setup(app: Any) -> None:
    """Have included files changed; Sphinx calls this."""
    app.connect("include-read", _links_within_the_pages)


def _links_within_the_pages(_app: Any, _path: Path, _page: str, content: list[str]) -> None:
    """Reduce relative links of an included file to their text, unless they lead to one of these pages."""
    links = re.sub(r"\[([^\]]+)\]\((?!\w+:|#|docs/)[^)]*\)", r"\1", content[0])
    content[0] = links.replace("](docs/", "](")
