"""The command that judges the labels in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import STORE, JsonOption, StoreOption, named_store, one_store, print_json

__all__ = ["app"]

app = App()
STORE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


@app.command()
def quality(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE|TARGET",
            help="A store, to judge all of its targets; or a target or device of --store \\[default: all of --store]",
        ),
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help="Only this space.")] = None,
    store: StoreOption = STORE,
    out: Annotated[
        Path | None,
        output_option("--out", ".html", help="Also write charts and figures to this .html file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge how reliable measured labels are, and whether they are fit for training a predictor.

    [dim]Example:[/dim] latlab quality local --out quality.html

    First measure the same networks twice (`latlab measure ... --new-session`): only that shows noise between sessions.
    """
    from latlab.harness.lab import Lab
    from latlab.harness.quality.comparison import compared
    from latlab.harness.report.quality.page import write_page
    from latlab.harness.store.store import Store
    from latlab.harness.terminal import results as terminal
    from latlab.harness.terminal.quality import show_quality

    target = None
    if what is not None and (what.endswith(STORE_SUFFIXES) or "://" in what or Path(what).is_file()):
        store = one_store(named_store(what), store)
    else:
        target = what
    Store(store, must_exist=True).close()
    with terminal.working("judging labels", quiet=as_json):
        found = Lab(store).quality(target, space=space)
        if out is not None:
            write_page(found, out)
    if as_json:
        print_json({"store": str(store), "quality": [one.to_json() for one in found], "noisiest": compared(found)})
        return
    show_quality(found)
    if out is not None:
        print(f"Charts: {out}")
