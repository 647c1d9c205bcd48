"""The commands `latlab spaces`, `latlab show` and `latlab export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from latlab.harness.cli.table_files import TableFormat, table_format, write_frames
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file
from latlab.harness.store.vocabulary import Status

if TYPE_CHECKING:
    import pandas as pd

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
    from latlab.harness.store.tables import Question

    format_ = table_format(out, format_)
    opened = Store(store, must_exist=True)

    def finished(frame: pd.DataFrame) -> pd.DataFrame:
        frame = with_distributions(opened, frame)
        return frame.assign(passes=frame["passes"].map(json.dumps)) if raw and format_ is TableFormat.csv else frame

    with whole_file(out) as part:
        table = opened.stream(Question(target=target, space=space, raw=raw, provisional=True), part.parent)
        if not table.rows:
            raise BadInputError(f"{store} has no such measurements", f"`latlab show {store}` lists what it has.")
        write_frames(map(finished, table.frames()), finished(table.example()), part, format_)
    if as_json:
        print_json({"file": str(out), "rows": table.rows})
    else:
        print(f"{table.rows} rows written to {out}")
    if table.provisional:
        from latlab.harness.store.provisional import remark
        from latlab.harness.terminal.console import warn

        warn(remark(table.provisional, table.rows) + " The column `provisional` marks them.")
