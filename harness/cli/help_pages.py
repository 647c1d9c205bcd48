"""The command that shows pages of the documentation, and which page belongs to which command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.options import json_option, print_json

__all__ = ["OTHER_NAMES", "PAGES", "app", "page_of"]

PAGES = {
    "bench": "bench",
    "compare": "comparing",
    "dashboard": "dashboard",
    "devices": "devices",
    "doctor": "devices",
    "embed": "predicting",
    "export": "stores",
    "import": "tables",
    "init": "devices",
    "inspect": "own-models",
    "measure": "measuring",
    "metrics": "dashboard",
    "onboard": "onboarding",
    "predict": "predictors-in-use",
    "pretrain": "pretraining",
    "profile": "profiling",
    "quality": "quality",
    "report": "start",
    "search": "network-search",
    "setup": "devices",
    "show": "metrics",
    "encode": "encodings",
    "export-models": "clusters",
    "simulate": "onboarding",
    "sources": "tables",
    "spaces": "extending",
    "store": "stores",
    "sustain": "sustained",
}
"""The page about each command."""
OTHER_NAMES = {
    "adb": "phones",
    "inventory": "devices",
    "roost": "derivation",
    "runtimes": "targets",
    "ssh": "raspberry-pi",
}
"""Pages by other words that people try."""

app = App()


@app.command("help")
def show_help(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]", help="A page, or a command.")] = None,
    *,
    whole: Annotated[bool, typer.Option("--all", help="Print all of the page, not only its beginning.")] = False,
    as_json: Annotated[bool, json_option("the pages or one page")] = False,
) -> None:
    """Show a page of the documentation; without a topic, list all pages.

    [dim]Examples:[/dim] latlab help onboarding

    latlab help search --all
    """
    from latlab.harness.terminal.help_page import page, pages, show_page, show_pages

    name = None if topic is None else PAGES.get(topic, OTHER_NAMES.get(topic, topic))
    if as_json:
        print_json(pages() if name is None else {"page": name, "text": page(name)})
    elif name is None:
        show_pages()
    else:
        show_page(name, whole)


def page_of(words: Sequence[str]) -> str | None:
    """Return the page about a command line, or None."""
    if words[:1] == ["predict"] and "--model" in words:
        return "any-model"
    return PAGES.get("".join(words[:1]))
