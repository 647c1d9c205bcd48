"""How Sphinx builds these pages, without a connection: `python -m sphinx -W --keep-going -b html docs docs/_build`.

latlab has to be installed, because the pages of the reference are made from the code.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

sys.path.insert(0, str(Path(__file__).parent))

from reference_pages import as_restructured_text, write  # noqa: E402

project = "latlab"
copyright = "the latlab authors"
release = version = PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
if not (ROOT / "CONTRIBUTING.md").exists():  # contributing.md includes it
    exclude_patterns.append("contributing.md")
myst_heading_anchors = 3
smartquotes = False  # `--option` stays as it is typed

# The reference: signatures as they are written, and no links for names that several modules have.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of other libraries are written in other forms
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]

html_theme = "pydata_sphinx_theme"
html_title = f"latlab {version}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "header_links_before_dropdown": 9,
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": []}


def setup(app: Any) -> None:
    """Have the reference written and included files changed; Sphinx calls this."""
    write(Path(__file__).parent / "reference")
    app.connect("autodoc-process-docstring", _readable, priority=400)  # before napoleon
    app.connect("include-read", _links_within_the_pages)


def _readable(_app: Any, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Have a docstring read as plain text. Napoleon takes "word: text" for a type if it comes first."""
    first = [""] if what in ("attribute", "data", "property") else []
    lines[:] = [*first, *as_restructured_text(lines)]


def _links_within_the_pages(_app: Any, _path: Path, _page: str, content: list[str]) -> None:
    """Reduce relative links of an included file to their text, unless they lead to one of these pages."""
    links = re.sub(r"\[([^\]]+)\]\((?!\w+:|#|docs/)[^)]*\)", r"\1", content[0])
    content[0] = links.replace("](docs/", "](")
