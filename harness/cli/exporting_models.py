"""The command `latlab export-models`: many networks into a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.options import EngineOption, SeedOption, SpaceOption, json_option, print_json
from latlab.harness.errors import BadInputError, LatlabError

__all__ = ["app"]

app = App()


@app.command("export-models")
def export_models(
    space: SpaceOption,
    *,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Export this many random architectures.")] = None,
    genes: Annotated[
        Path | None,
        typer.Option("--genes", help="A file with an architecture per line: its string, or its genes as numbers."),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME,...", help="onnx, tflite, torchscript or pte \\[default: onnx]."),
    ] = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FOLDER|URL", help="A folder, or s3://BUCKET/FOLDER and what else fsspec knows."),
    ],
    precision: Annotated[str, typer.Option("--precision", metavar="NAME", help="fp32, fp16, bf16 or int8.")] = "fp32",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=65536, metavar="N", help="Images per inference.")
    ] = 1,
    seed: SeedOption = 0,
    engine: EngineOption = "local",
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, max=1024, help="Number of processes of local \\[default: all cores].")
    ] = None,
    as_json: Annotated[bool, json_option("the folder")] = False,
) -> None:
    """Export many networks into a folder, each compared with PyTorch, with an index.

    [dim]Example:[/dim] latlab export-models --space fbnet --count 100 --format onnx,tflite --to networks

    Finished networks are kept: the same command continues where it stopped.
    """
    if (count is None) == (genes is None):
        raise BadInputError("say which architectures, in one way", "Use --count N, or --genes FILE.")
    from latlab.harness.distributed.local import one_thread

    one_thread()
    from latlab.harness.architectures import space_named
    from latlab.harness.encoding.tables import read_genes
    from latlab.harness.lab.exporting import export_space
    from latlab.harness.terminal.encoding import progress

    archs = None if genes is None else read_genes(space_named(space), genes)
    names = [name.strip() for text in formats or ["onnx"] for name in text.split(",") if name.strip()]
    started = time.monotonic()
    with progress(quiet=as_json, trains=False) as finished:
        found = export_space(
            space,
            to,
            count=count,
            archs=archs,
            formats=names,
            precision=precision,
            batch_size=batch_size,
            seed=seed,
            engine=engine,
            jobs=jobs or len(os.sched_getaffinity(0)),
            progress=finished,
        )
    if as_json:
        print_json({**vars(found), "seconds": time.monotonic() - started})
    else:
        print(f"{found.networks:,} networks, {found.new:,} of them exported now: {found.folder}/index.csv lists them")
    if found.failed:
        first = next(iter(found.failures))
        raise LatlabError(
            f"{found.failed:,} networks could not be exported; most of all: {first}", "index.csv has each of them."
        )
