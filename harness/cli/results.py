"""The commands `latlab spaces`, `latlab show` and `latlab export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import (
    STORE,
    JsonOption,
    StoreArgument,
    StoreOption,
    complain,
    one_store,
    print_json,
    records,
)
from latlab.harness.cli.table_files import TableFormat, table_format, write_table
from latlab.harness.errors import BadInputError
from latlab.harness.store.vocabulary import Status

app = App()


@app.command()
def spaces(as_json: JsonOption = False) -> None:
    """List the search spaces."""
    from latlab.harness.terminal import results as terminal
    from latlab.search_spaces import UnknownSpaceError, get, names

    known, broken = [], []
    for name in names():
        try:
            known.append(get(name))
        except UnknownSpaceError as error:
            broken.append(str(error))
    if as_json:
        print_json(
            [
                {
                    "name": s.name,
                    "title": s.title,
                    "size": s.size,
                    "buildable": s.buildable,
                    "encodings": list(s.encodings),
                    "example": s.references()[0].text,
                }
                for s in known
            ]
        )
    else:
        terminal.show_spaces(known)
    for message in broken:
        complain(message, None, False)


@app.command()
def show(
    named: StoreArgument = None,
    store: StoreOption = STORE,
    wide: Annotated[
        bool, typer.Option("--wide", help="Also list labels with percentiles, jitter and throughput.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the content of a store: a line per campaign and session, and why networks failed."""
    from latlab.harness.store.distributions import LABEL_COLUMNS, with_distributions
    from latlab.harness.store.store import Store
    from latlab.harness.terminal import results as terminal

    store = one_store(named, store)
    opened = Store(store, must_exist=True)
    campaigns, failures = opened.campaigns(), opened.failures()
    labels = None
    if wide:
        rows = opened.table()
        labels = with_distributions(opened, rows[rows["status"] == Status.OK])[list(LABEL_COLUMNS)]
    if as_json:
        found = {"store": str(store), "campaigns": records(campaigns), "failures": records(failures)}
        print_json(found if labels is None else {**found, "labels": records(labels)})
    else:
        terminal.show_store(store, campaigns, failures)
        if labels is not None and len(labels):
            terminal.show_labels(labels)


@app.command()
def export(
    out: Annotated[Path, output_option("--out", help="The file to write.")],
    store: StoreOption = STORE,
    format_: Annotated[
        TableFormat | None, typer.Option("--format", help="The file's format \\[default: by its suffix]")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only this target.")] = None,
    space: Annotated[str | None, typer.Option("--space", help="Only this space.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Include the raw samples of every pass, in nanoseconds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all measurements to a Parquet or CSV file, one row per measurement.

    [dim]Example:[/dim] latlab export --out measured.csv
    """
    from latlab.harness.store.distributions import with_distributions
    from latlab.harness.store.store import Store

    format_ = table_format(out, format_)
    opened = Store(store, must_exist=True)
    table = opened.table(target=target, space=space, raw=raw, provisional=True)
    if table.empty:
        raise BadInputError(f"{store} has no such measurements", f"`latlab show {store}` lists what it has.")
    table = with_distributions(opened, table)
    if raw and format_ is TableFormat.csv:
        table["passes"] = table["passes"].map(json.dumps)
    write_table(table, out, format_)
    if as_json:
        print_json({"file": str(out), "rows": len(table)})
    else:
        print(f"{len(table)} rows written to {out}")
    if table["provisional"].any():
        from latlab.harness.store.provisional import remark
        from latlab.harness.terminal.console import warn

        warn(remark(int(table["provisional"].sum()), len(table)) + " The column `provisional` marks them.")
