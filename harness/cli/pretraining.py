"""The command `latlab pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.bench import DATA, ProtocolName
from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import STORE, SeedOption, StoreOption, json_option, print_json
from latlab.harness.errors import BadInputError

__all__ = ["app"]

app = App()


@app.command()
def pretrain(
    *,
    predictor: Annotated[
        str, typer.Option("--predictor", help="NAME, or NAME:option=value,... such as help or help:episodes=500.")
    ],
    space: Annotated[str | None, typer.Option("--space", help="The search space; not needed with --task.")] = None,
    sources: Annotated[
        str,
        typer.Option(
            "--sources",
            metavar="all|NAME,...",
            help="Devices to learn from: of the store (`latlab sources` lists them), or columns of --table or --task.",
        ),
    ] = "all",
    out: Annotated[Path, output_option("--out", help="Folder for the trained predictor.")],
    table: Annotated[
        Path | None,
        typer.Option("--table", help="Learn from the columns of this Parquet or CSV file instead of the store."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Learn from the sources of a published task, such as ND, instead.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help=f"Folder of the published tables, for --task \\[default: ${DATA}]")
    ] = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option("--protocol", metavar="NAME", help="Which labels of --table or --task are used, as in bench."),
    ] = ProtocolName.latlab,
    seed: SeedOption = 0,
    store: StoreOption = STORE,
    as_json: Annotated[bool, json_option("the result")] = False,
) -> None:
    """Train a predictor on source devices once, for any number of targets: `--pretrained FOLDER` then uses it.

    [dim]Example:[/dim] latlab pretrain --predictor help --space fbnet --sources gold,pixel3 --out help-fbnet

    If it is interrupted, the same command continues.
    """
    from latlab.harness.bench.predictor_spec import parse_specs
    from latlab.harness.cli.groups import existing
    from latlab.harness.lab import Lab
    from latlab.harness.terminal import pretraining as show

    specs = parse_specs(predictor)
    if len(specs) != 1:
        raise BadInputError(f"--predictor {predictor} names {len(specs)} predictors", "Train one after the other.")
    if table is None and task is None:
        if protocol != ProtocolName.latlab:
            raise BadInputError("--protocol chooses rows of a --table or a --task")
        existing(store)
    folder = data if data is not None else Path(os.environ[DATA]) if os.environ.get(DATA) else None
    with show.training(specs[0].text, quiet=as_json) as report:
        found = Lab(store).pretrain(
            specs[0].name,
            out=out,
            space=space,
            sources=sources,
            table=table,
            task=task,
            data=folder,
            protocol=protocol.value,
            options=dict(specs[0].options),
            seed=seed,
            report=report,
        )
    if as_json:
        print_json({"folder": str(found.folder), **found.card.to_json()})
    else:
        show.show_pretrained(found)
