"""The command that says what a model file is."""

from __future__ import annotations

from typing import Annotated

import typer

from latlab.harness.cli.options import (
    BatchOption,
    DimOption,
    InputDataOption,
    InputOption,
    JsonOption,
    RangeOption,
    print_json,
)

__all__ = ["app"]

app = typer.Typer()


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file, or package.module:factory, whose code is run here.")
    ],
    inputs: InputOption = None,
    dims: DimOption = None,
    ranges: RangeOption = None,
    data: InputDataOption = None,
    batch_size: BatchOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model file is, without touching a device: inputs, operators, weights, precision.

    [dim]Example:[/dim] latlab inspect net.onnx

    The content decides what a file is, not its name. With lengths for open sides (--dim seq=128), multiplications are
    counted for them.
    """
    from latlab.harness.models.input_options import InputOptions
    from latlab.harness.models.inspection import inspect_model
    from latlab.harness.terminal.model import show_model

    options = InputOptions(tuple(inputs or ()), tuple(dims or ()), tuple(ranges or ()), data)
    found = inspect_model(model, options, batch_size)
    if as_json:
        print_json(found.to_json())
    else:
        show_model(found)
