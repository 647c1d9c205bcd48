"""The command that keeps a device under load for minutes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.groups import InputGroup, LabGroup, OneTargetGroup, grouped
from latlab.harness.cli.interruption import interruption
from latlab.harness.cli.options import (
    JsonOption,
    ModelOption,
    SeedOption,
    WrittenOption,
    complain,
    print_json,
)
from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath
from latlab.harness.store.vocabulary import Status

if TYPE_CHECKING:
    from latlab.harness.sustained import SustainedResult

__all__ = ["app"]

app = App()


@app.command()
@grouped
def sustain(
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE", help="A device of the inventory, whose first target is used; or a full target."
        ),
    ],
    *,
    space: Annotated[str | None, typer.Option("--space", help="The search space of --arch.")] = None,
    arch: Annotated[str | None, typer.Option("--arch", help="An architecture's string.")] = None,
    model: ModelOption = None,
    inputs: InputGroup,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.05, max=10080, help="Minutes to run, on the device's clock.")
    ] = 30.0,
    how: OneTargetGroup,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        output_option(
            "--out", ".html", ".svg", ".png", help="Also draw a chart: an .html page, an .svg or a .png file."
        ),
    ] = None,
    place: LabGroup,
    as_json: JsonOption = False,
) -> None:
    """Run one network for minutes without a pause, to see how heat and power limits change its latency.

    [dim]Examples:[/dim] latlab sustain pi4 --model net.onnx --minutes 30 --out sustained.html

    latlab sustain local --space nasbench201 --arch "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"

    Nothing is lost on Ctrl-C. The same command starts over, because a device that has cooled down cannot continue.
    """
    from latlab.harness.terminal.sustained import following

    own, input_options = inputs.of(model)
    if model is not None and (space is not None or arch is not None):
        raise BadInputError("--model stands alone: it takes no --space and no --arch")
    if model is None and (space is None or arch is None):
        raise BadInputError("say which network", "--space NAME with --arch STRING; or --model FILE.")
    interrupted = False
    with following(quiet=as_json) as view:
        try:
            result = place.open().sustain(
                device,
                space=space,
                arch=arch,
                model=own,
                inputs=input_options,
                minutes=minutes,
                options=how.options(),
                seed=seed,
                as_written=as_written,
                listener=view.listener(),
                follow=view.follow,
            )
        except KeyboardInterrupt:
            if view.run is None or not view.run.passes:
                raise
            result, interrupted = view.run.result(), True
    _show(result, place.store, out, as_json)
    if result.error:
        complain(result.error, None, False)
    if interrupted:
        print(f"latlab: {interruption.words}\nThe run up to now is in the store.", file=sys.stderr)
        sys.exit(interruption.exit_code)
    if result.status != Status.OK or result.error:
        raise typer.Exit(1)


def _show(result: SustainedResult, store: StorePath, out: Path | None, as_json: bool) -> None:
    from latlab.harness.report.sustained.page import write_chart
    from latlab.harness.terminal.sustained import show_result

    drawn = out if result.passes else None
    if drawn is not None:
        write_chart(result, drawn)
    if as_json:
        print_json(result.to_json())
    else:
        show_result(result, store, drawn)
