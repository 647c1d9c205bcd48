"""The command `latlab search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.failures import end_with_failures
from latlab.harness.cli.groups import LabGroup, PredictorGroup, TargetGroup, grouped
from latlab.harness.cli.options import (
    JsonOption,
    PolicyOption,
    SeedOption,
    SpaceOption,
    WrittenOption,
    amount_of,
    milliseconds_of,
    print_json,
)
from latlab.harness.errors import BadInputError

__all__ = ["app"]

app = App()


@app.command()
@grouped
def search(
    *,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="A full target, or a device; may be repeated."),
    ] = None,
    space: SpaceOption,
    max_latency_ms: Annotated[
        str | None, typer.Option("--max-latency-ms", metavar="MS", help="The limit on every target.")
    ] = None,
    max_latency: Annotated[
        list[str] | None,
        typer.Option(
            "--max-latency",
            metavar="TARGET=TIME",
            help="The limit of one target: pi4=20ms. May be repeated.",
        ),
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N", help="Most multiply-accumulates: 300M.")
    ] = None,
    max_params: Annotated[str | None, typer.Option("--max-params", metavar="N", help="Most parameters: 5M.")] = None,
    max_energy_mj: Annotated[
        str | None, typer.Option("--max-energy-mj", metavar="MJ", help="Most energy of an inference on every target.")
    ] = None,
    max_peak_memory_mb: Annotated[
        str | None,
        typer.Option("--max-peak-memory-mb", metavar="MB", help="Most memory that a network takes on every target."),
    ] = None,
    accuracy: Annotated[
        str | None,
        typer.Option(
            "--accuracy",
            metavar="SOURCE",
            help="Accuracies: a table (.csv, .parquet: columns arch and accuracy), OFA's accuracy predictor (.npz), "
            "an ONNX model (.onnx) over an encoding, a proxy (macs, params), or module:function, whose Python code is "
            "run here.",
        ),
    ] = None,
    accuracy_column: Annotated[
        str | None, typer.Option("--accuracy-column", help="The table's column, if several may be accuracies.")
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option("--candidates", metavar="FILE", help="Choose only from these: one architecture per line."),
    ] = None,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Probability with which the limits are kept.")
    ] = 0.9,
    budget: Annotated[int, typer.Option("--budget", metavar="N", help="Most networks to measure.")] = 30,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Measure nothing: the answer is a prediction.")
    ] = False,
    resolve: Annotated[
        bool,
        typer.Option("--resolve", help="Add passes to the best networks until it is certain which keep the limit."),
    ] = False,
    top: Annotated[int, typer.Option("--top", metavar="K", help="How many finalists are shown.")] = 5,
    population: Annotated[
        int, typer.Option("--population", help="In spaces too large to list: networks of a population.")
    ] = 100,
    generations: Annotated[int, typer.Option("--generations", help="In such spaces: number of populations.")] = 500,
    export: Annotated[
        Path | None, output_option("--export", help="Also write the answer's model files into this folder.")
    ] = None,
    policy: PolicyOption = "default",
    how: TargetGroup,
    predictor: PredictorGroup,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None, output_option("--out", help="Folder for the page, the result, and the state of the search.")
    ] = None,
    place: LabGroup,
    as_json: JsonOption = False,
) -> None:
    """Search for the most accurate network that keeps a latency limit; the answer is measured on the device.

    [dim]Example:[/dim] latlab search --target local --space nasbench201 --max-latency-ms 5 --accuracy accuracies.csv

    [dim]With four threads:[/dim] latlab search --target pi4 --runtime tflite --threads 4 --space fbnet --accuracy macs
    --max-latency-ms 20

    [dim]Two devices:[/dim] latlab search --target pi4 --target phone --max-latency pi4=20ms --max-latency phone=8ms
    --space ofa-mobilenetv3 --accuracy ofa_accuracy_predictor.npz

    A target that was never measured in the space is onboarded first. The same command continues a search that was
    interrupted; a larger budget extends it.
    """
    if not target:
        raise BadInputError("say for which target to search: --target TARGET", "For this machine: --target local.")
    limits: dict[str, float] = {}
    if max_latency_ms is not None:
        limits[""] = milliseconds_of("--max-latency-ms", max_latency_ms)
    for word in max_latency or []:
        name, equals, value = word.rpartition("=")
        if not equals or not name:
            raise BadInputError(f"--max-latency {word!r:.60} names no target", "Write it as pi4=20ms.")
        if name in limits:
            raise BadInputError(f"--max-latency gives {name} two limits", "Give it one.")
        limits[name] = milliseconds_of(f"--max-latency {name}", value)
    costs = {"max_macs": _number("--max-macs", max_macs), "max_params": _number("--max-params", max_params)}
    costs |= {
        f"max_{metric}": None if text is None else amount_of(f"--max-{metric.replace('_', '-')}", text, metric)
        for metric, text in (("energy_mj", max_energy_mj), ("peak_memory_mb", max_peak_memory_mb))
    }
    if not limits:
        what = " on the latency" if any(value is not None for value in costs.values()) else ""
        more = " The other limits hold beside it." if what else ""
        raise BadInputError(f"there is no limit{what} to search under", f"Give one, such as --max-latency-ms 20.{more}")
    from latlab.harness.terminal.search import searching, show_search

    lab = place.open()
    with searching(space, quiet=as_json) as view:
        result = lab.search(
            target,
            space=space,
            max_latency_ms=limits,
            accuracy=accuracy,
            accuracy_column=accuracy_column,
            candidates=candidates,
            confidence=confidence,
            budget=budget,
            measure=not no_measure,
            resolve=resolve,
            top=top,
            population=population,
            generations=generations,
            options=how.options(),
            policy=policy,
            predictor=predictor.options(),
            seed=seed,
            as_written=as_written,
            out=out,
            export=export,
            listener=view.listener(),
            follow=view.follow,
            **costs,
        )
    if as_json:
        print_json(result.to_json())
    else:
        show_search(result)
    failed = {one.target for one in result.failures}
    targets = {one.target for one in result.constraints.limits}
    end_with_failures(result.failures, len(targets - failed), as_json=False)
    if result.winner is None:
        raise typer.Exit(1)


def _number(option: str, text: str | None) -> float | None:
    """Return the number in a text such as `300M`. Raises `BadInputError` if it is none."""
    if text is None:
        return None
    factor = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text.strip()[-1:].lower())
    try:
        return float(text.strip()[:-1]) * factor if factor else float(text)
    except ValueError:
        raise BadInputError(f"{option} takes a number such as 300M, not {text!r:.40}") from None
