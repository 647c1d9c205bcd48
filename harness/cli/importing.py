"""The commands that import, list and remove published latencies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.options import STORE, JsonOption, StoreOption, print_json
from latlab.harness.errors import BadInputError

__all__ = ["app", "sources"]

app = typer.Typer()
sources = typer.Typer(
    help="List the devices that the store knows, imported or measured: predictors learn from them.",
    invoke_without_command=True,
)


class Format(StrEnum):
    """Formats of published files."""

    auto = "auto"
    help = "help"
    eagle = "eagle"
    hat = "hat"
    ofa_lookup = "ofa-lookup"
    csv = "csv"
    parquet = "parquet"


class Unit(StrEnum):
    """Units of the latencies in a file."""

    ms = "ms"
    s = "s"
    us = "us"


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="HELP's .pt files (architectures and latencies), EAGLE's .pickle, HAT's .csv, OFA's lookup "
            "tables (.yaml, all resolutions of a device), or a table of your own (.csv, .parquet).",
        ),
    ],
    space: Annotated[
        str | None, typer.Option("--space", help="The search space, if the files do not determine it.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="The device's name, or the one column of a table to import [default: all, as named]"
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="The files' format.")] = Format.auto,
    unit: Annotated[
        Unit | None, typer.Option("--unit", help="Unit of the latencies [default: the publisher's, else ms]")
    ] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Import latencies that others measured: predictors learn from these devices before they see yours.

    [dim]Example:[/dim] latlab import fbnet/arch.pt fbnet/latency/*.pt

    No file is ever executed: nothing is unpickled. Earlier imports stay as they are.
    """
    from latlab.harness.importers.read import read_sources
    from latlab.harness.store.sources import keep
    from latlab.harness.store.store import Store

    tables = read_sources(files, space=space, device=device, format=format_, unit=unit)
    kept = keep(Store(store), tables)
    if as_json:
        print_json({"store": str(store), "sources": [vars(one) for one in kept]})
        return
    for one in kept:
        there = "" if one.is_new else " (was there already)"
        print(f"{one.name}: {one.architectures} architectures of {one.space}{there}")
        for note in one.notes if one.is_new else ():
            print(f"  {note}")
    new = sum(one.is_new for one in kept)
    print(f"{new} source devices imported into {store}. `latlab sources` lists all; predictors use them from now on.")


@sources.callback()
def list_(context: typer.Context, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """List the devices that the store knows, imported or measured: predictors learn from them.

    [dim]Example:[/dim] latlab sources --store latlab.db
    """
    if context.invoked_subcommand is not None:
        if store != STORE:
            raise BadInputError(f"--store belongs after {context.invoked_subcommand}, not before it")
        return
    from latlab.harness.store.sources import listing
    from latlab.harness.store.store import Store
    from latlab.harness.terminal.results import show_sources

    listed = listing(Store(store, must_exist=True))
    if as_json:
        rows = listed.astype(object).where(listed.notna(), None).to_dict("records")
        print_json({"store": str(store), "sources": rows})
    else:
        show_sources(store, listed)


@sources.command("remove")
def remove_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An imported source.")],
    space: Annotated[str | None, typer.Option("--space", help="Only of this space [default: all]")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Remove an imported source. Your own measurements stay.

    [dim]Example:[/dim] latlab sources remove eyeriss
    """
    from latlab.harness.store.sources import remove
    from latlab.harness.store.store import Store

    gone = remove(Store(store, must_exist=True), name, space)
    if as_json:
        print_json({"removed": [{"name": name, "space": one, "architectures": count} for one, count in gone]})
    else:
        for one, count in gone:
            print(f"{name} removed: {count} architectures of {one}")
