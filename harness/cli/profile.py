"""The command that shows where the time of a network goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.groups import InputGroup, LabGroup, OneTargetGroup, grouped
from latlab.harness.cli.options import (
    JsonOption,
    SeedOption,
    WrittenOption,
    print_json,
)

__all__ = ["app"]

app = App()


@app.command()
@grouped
def profile(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|ARCH",
            help="A model of your own (net.onnx, net.tflite, net.pt or package.module:factory, whose code is run "
            "here); with --space, an architecture's string.",
        ),
    ],
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE", help="A device of the inventory, whose first target is used; or a full target."
        ),
    ],
    *,
    space: Annotated[str | None, typer.Option("--space", help="The search space of ARCH.")] = None,
    inputs: InputGroup,
    top: Annotated[int, typer.Option("--top", min=1, max=2000, help="How many of the longest operators to show.")] = 10,
    how: OneTargetGroup,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    out: Annotated[Path | None, output_option("--out", ".html", help="Also write an HTML page with charts.")] = None,
    place: LabGroup,
    as_json: JsonOption = False,
) -> None:
    """Show where the time of one network goes: the time of each operator, by the runtime's own profiler.

    [dim]Examples:[/dim] latlab profile net.onnx pi4 --out profile.html

    latlab profile "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|" local --space nasbench201 --top 20
    """
    from latlab.harness.terminal.profile import profiling, show_profile

    _, input_options = inputs.of(None if space else [subject])
    with profiling(quiet=as_json) as listener:
        found = place.open().profile(
            subject,
            device,
            space=space,
            inputs=input_options,
            options=how.options(),
            seed=seed,
            as_written=as_written,
            listener=listener,
        )
    if out is not None:
        from latlab.harness.report.profile.page import write_page

        write_page(found, out, top)
    if as_json:
        print_json(found.to_json())
    else:
        show_profile(found, top, out)
