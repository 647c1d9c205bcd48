"""The command that shows pages of the documentation, and which page belongs to which command."""

from __future__ import annotations

from typing import Annotated

import typer

from latlab.harness.cli.command import App

__all__ = ["PAGES", "app"]

PAGES = {
    "bench": "bench",
    "compare": "comparing",
    "devices": "devices",
    "doctor": "devices",
    "embed": "predicting",
    "export": "stores",
    "import": "tables",
    "init": "devices",
    "inspect": "own-models",
    "measure": "measuring",
    "onboard": "onboarding",
    "predict": "predictors-in-use",
    "profile": "profiling",
    "quality": "quality",
    "report": "start",
    "search": "network-search",
    "setup": "devices",
    "show": "metrics",
    "simulate": "onboarding",
    "sources": "tables",
    "spaces": "extending",
    "store": "stores",
    "sustain": "sustained",
}
"""The page about each command."""

app = App()


@app.command("help")
def show_help(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]", help="A page, or a command.")] = None,
    *,
    whole: Annotated[bool, typer.Option("--all", help="Print all of the page, not only its beginning.")] = False,
) -> None:
    """Show a page of the documentation; without a topic, list all pages.

    [dim]Examples:[/dim] latlab help onboarding

    latlab help search --all
    """
    from latlab.harness.terminal.help_page import show_page, show_pages

    if topic is None:
        show_pages()
    else:
        show_page(PAGES.get(topic, topic), whole)
