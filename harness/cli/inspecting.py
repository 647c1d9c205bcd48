"""The command that says what a model file is."""

from __future__ import annotations

from typing import Annotated

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.groups import InputGroup, grouped
from latlab.harness.cli.options import (
    JsonOption,
    print_json,
)

__all__ = ["app"]

app = App()


@app.command()
@grouped
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file, or package.module:factory, whose code is run here.")
    ],
    inputs: InputGroup,
    *,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, max=65536, help="Images per inference \\[default: 1]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a model file is, without touching a device: inputs, operators, weights, precision.

    [dim]Example:[/dim] latlab inspect net.onnx

    The content decides what a file is, not its name. With lengths for open sides (--dim seq=128), multiplications are
    counted for them.
    """
    from latlab.harness.models.inspection import inspect_model
    from latlab.harness.terminal.model import show_model

    found = inspect_model(model, inputs.options(), batch_size)
    if as_json:
        print_json(found.to_json())
    else:
        show_model(found)
