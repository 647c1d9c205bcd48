"""The command `latlab encode`: encodings of architectures as a table."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import ENCODING_NAMES, EngineOption, SeedOption, SpaceOption, json_option, print_json
from latlab.harness.cli.table_files import table_format, write_table
from latlab.harness.errors import BadInputError

__all__ = ["app"]

app = App()


@app.command()
def encode(
    space: SpaceOption,
    *,
    encoding: Annotated[str, typer.Option("--encoding", metavar="NAME", help=f"One of: {ENCODING_NAMES}.")] = "zcp",
    count: Annotated[int | None, typer.Option("--count", min=1, help="Encode this many random architectures.")] = None,
    genes: Annotated[
        Path | None,
        typer.Option("--genes", help="A file with an architecture per line: its string, or its genes as numbers."),
    ] = None,
    out: Annotated[Path, output_option("--out", ".parquet", ".csv", help="The file to write: .parquet or .csv.")],
    seed: SeedOption = 0,
    engine: EngineOption = "local",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=1024, help="Processes of local that run networks \\[default: all cores]."),
    ] = None,
    as_json: Annotated[bool, json_option("the file")] = False,
) -> None:
    """Encode architectures as vectors, without measuring: zero-cost proxies, Arch2Vec, CATE, analytic costs.

    [dim]Example:[/dim] latlab encode --space nasbench201 --encoding zcp --count 1000 --out zcp.parquet

    Finished proxies are cached: the same command continues where it stopped.
    """
    if (count is None) == (genes is None):
        raise BadInputError("say which architectures, in one way", "Use --count N, or --genes FILE.")
    format_ = table_format(out)
    if not os.access(out.absolute().parent, os.W_OK | os.X_OK):  # before hours of work
        raise BadInputError(f"cannot write {out}: its folder does not exist or is not writable", "Name another place.")
    from latlab.harness.distributed.local import one_thread

    one_thread()
    from latlab.harness.architectures import space_named
    from latlab.harness.encoding.tables import read_genes
    from latlab.harness.lab.encoding import encode_space
    from latlab.harness.terminal.encoding import progress
    from latlab.predictors.encodings.names import runs_networks

    archs = None if genes is None else read_genes(space_named(space), genes)
    started = time.monotonic()
    with progress(quiet=as_json, trains=not runs_networks(encoding)) as finished:
        found = encode_space(
            space,
            encoding,
            count=count,
            archs=archs,
            seed=seed,
            engine=engine,
            jobs=jobs or len(os.sched_getaffinity(0)),
            progress=finished,
        )
    write_table(found.table, out, format_)
    rows, seconds = len(found.table), time.monotonic() - started
    if as_json:
        columns = list(found.table.columns)
        print_json({"file": str(out), "rows": rows, "columns": columns, "computed": found.computed, "seconds": seconds})
    else:
        ran = f", {found.computed:,} of them run now" if found.computed else ""
        print(f"{rows:,} architectures{ran}: {out}")
