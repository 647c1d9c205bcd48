"""The commands `latlab measure` and `latlab embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.failures import end_with_failures
from latlab.harness.cli.groups import InputGroup, LabGroup, TargetGroup, grouped
from latlab.harness.cli.notifying import NotifyOption, notifying
from latlab.harness.cli.options import (
    SAMPLERS_HELP,
    DevicesArgument,
    EncodingTableOption,
    ModelOption,
    NewSessionOption,
    PolicyOption,
    SeedOption,
    SpaceOption,
    WrittenOption,
    json_option,
    percent,
    print_json,
    records,
)
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file
from latlab.harness.store.vocabulary import Status

if TYPE_CHECKING:
    from latlab.harness.fleet.campaigns import Measurements
    from latlab.harness.statistics.ranking import Resolve


app = App()


@app.command()
@grouped
def measure(
    devices: DevicesArgument,
    *,
    space: Annotated[str | None, typer.Option("--space", help="A search space; `latlab spaces` lists them.")] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Measure this many random architectures.")] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", help="An architecture's string; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file with one architecture string per line.")] = None,
    acquisition: Annotated[
        str,
        typer.Option("--acquisition", metavar="NAME", help=f"With --count: how to choose them: {SAMPLERS_HELP}."),
    ] = "random",
    encoding_table: EncodingTableOption = None,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Measure the space's blocks one by one, for `--predictor lookup`.")
    ] = False,
    model: ModelOption = None,
    inputs: InputGroup,
    policy: PolicyOption = "default",
    how: TargetGroup,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    new_session: NewSessionOption = False,
    resolve: Annotated[
        bool,
        typer.Option("--resolve", help="Then add passes to those networks whose order matters and is not certain yet."),
    ] = False,
    under: Annotated[
        float | None, typer.Option("--under", metavar="MS", help="With --resolve: which networks are below MS?")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", metavar="K", help="With --resolve: which K are fastest?")] = None,
    ties: Annotated[
        str | None,
        typer.Option(
            "--ties", metavar="PERCENT", help="With --resolve: a smaller difference counts as equal \\[default: 1]"
        ),
    ] = None,
    most_seconds: Annotated[
        float | None,
        typer.Option(
            "--most-seconds",
            metavar="S",
            help="With --resolve: most seconds of added timing on each target \\[default: as much as the labels took]",
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Also print every sample in nanoseconds, in order.")] = False,
    notify: NotifyOption = None,
    place: LabGroup,
    as_json: Annotated[bool, json_option("each network")] = False,
) -> None:
    """Measure networks of a space, or a model of your own.

    [dim]Examples:[/dim] latlab measure local --space fbnet --count 50

    latlab measure local --space fbnet --blocks

    latlab measure local --space fbnet --count 200 --resolve --top 10

    latlab measure local --model net.onnx --input 1x3x224x224
    """
    from latlab.harness.terminal import results as terminal
    from latlab.harness.terminal.console import console

    own, input_options = inputs.of(model)
    archs = _architectures(space, count, arch, file, own, blocks)
    question = _question(resolve, under, top, percent("--ties", ties), most_seconds)
    lab = place.open()
    with (
        terminal.watching(own or str(space), quiet=as_json) as view,
        notifying(notify, place.store, own or str(space), view.listener(quiet=as_json)) as listener,
    ):
        found = lab.measure(
            devices,
            space=space,
            count=count,
            archs=archs,
            blocks=blocks,
            model=own,
            inputs=input_options,
            policy=policy,
            options=how.options(),
            seed=seed,
            new_session=new_session,
            as_written=as_written,
            raw=raw,
            resolve=question,
            acquisition=acquisition,
            encoding_table=encoding_table,
            listener=listener,
        )
    rows = found.rows
    if as_json:
        shown = [
            "arch",
            "latency_ms",
            "stderr_ms",
            "low_ms",
            "high_ms",
            "raw_ms",
            "verdict",
            "status",
            "error",
            "target",
            "space",
            "session",
            "artifact_sha256",
        ]
        frame = rows[shown].copy()
        if raw:
            frame["samples_ns"] = [[sample for one in passes for sample in one] for passes in rows["passes"]]
            frame["pass_lengths"] = [[len(one) for one in passes] for passes in rows["passes"]]
        for record in records(frame):
            print_json(record)
        for resolved in found.resolved:
            print_json({"resolved": resolved.to_json()})
    else:
        terminal.show_measurements(rows, place.store, raw=raw)
        if not found.ran:
            console().print("All of this was in the store already: nothing ran now. --new-session measures it again.")
        if question is not None:
            from latlab.harness.terminal.ranking import show_resolved

            for resolved in found.resolved:
                show_resolved(resolved.to_json())
    _end(found, as_json)
    if not (rows["status"] == Status.OK).any():
        raise typer.Exit(1)


def _question(
    resolve: bool, under: float | None, top: int | None, ties: float | None, most_seconds: float | None
) -> Resolve | None:
    given = {"--under": under, "--top": top, "--ties": ties, "--most-seconds": most_seconds}
    if not resolve:
        for name, value in given.items():
            if value is not None:
                raise BadInputError(f"{name} is an option of --resolve", f"Add --resolve, or leave out {name}.")
        return None
    from latlab.harness.statistics.ranking import TIES_PERCENT, Resolve

    ties_percent = TIES_PERCENT if ties is None else ties
    return Resolve(under_ms=under, top=top, ties_percent=ties_percent, most_s=most_seconds)


def _architectures(
    space: str | None,
    count: int | None,
    arch: list[str] | None,
    file: Path | None,
    model: str | None,
    blocks: bool,
) -> list[str] | None:
    given = [name for name, value in (("--count", count), ("--arch", arch), ("--file", file)) if value is not None]
    if model is not None:
        if given or blocks or space is not None:
            raise BadInputError("--model stands alone: it takes no --space, --count, --arch, --file or --blocks")
        return None
    if space is None:
        raise BadInputError("say what to measure", "--space NAME with --count, --arch or --file; or --model FILE.")
    if blocks:
        if given not in ([], ["--count"]):
            raise BadInputError(f"--blocks takes a --count or measures them all, but no {given[-1]}")
        return None
    if len(given) != 1:
        raise BadInputError(
            f"say which architectures, in one way ({' and '.join(given) or 'none was given'})",
            "Use --count N, or --arch STRING (repeatable), or --file F.",
        )
    if file is None:
        return arch
    from latlab.harness.architectures import read_archs, space_named

    return [a.text for a in read_archs(space_named(space), file)]


@app.command()
@grouped
def embed(
    devices: DevicesArgument,
    space: SpaceOption,
    *,
    policy: PolicyOption = "default",
    how: TargetGroup,
    seed: SeedOption = 0,
    new_session: NewSessionOption = False,
    out: Annotated[
        Path | None,
        output_option("--out", ".json", help="Also write the embedding to this JSON file."),
    ] = None,
    place: LabGroup,
    as_json: Annotated[bool, json_option("each target")] = False,
) -> None:
    """Measure HELP's ten reference architectures: the device's hardware embedding.

    [dim]Example:[/dim] latlab embed local --space nasbench201 --out embedding.json
    """
    from latlab.harness.terminal import console
    from latlab.harness.terminal import results as terminal

    lab = place.open()
    with terminal.watching(f"references of {space}", quiet=as_json) as view:
        found = lab.embed(
            devices,
            space=space,
            policy=policy,
            options=how.options(),
            seed=seed,
            new_session=new_session,
            listener=view.listener(quiet=as_json),
        )
    rows = found.rows
    embeddings = [
        {"target": target, "space": space, "references": records(own.drop(columns="target"))}
        for target, own in rows.groupby("target", sort=False)
    ]
    if out is not None:
        with whole_file(out) as part:
            part.write_text(json.dumps(embeddings[0] if len(embeddings) == 1 else embeddings, indent=1) + "\n")
    for embedding, (target, own) in zip(embeddings, rows.groupby("target", sort=False), strict=True):
        if as_json:
            print_json(embedding)
        else:
            console.show_table(own.drop(columns="target"), f"Hardware embedding of {target} in {space}")
    _end(found, as_json)
    if (rows["status"] != Status.OK).any():
        raise typer.Exit(1)


def _end(found: Measurements, as_json: bool) -> None:
    """Print the targets that failed, and exit if there are any."""
    failed = {one.target for one in found.failures}
    good = found.rows[found.rows["status"] == Status.OK]
    end_with_failures(found.failures, len(set(good["target"]) - failed), as_json=as_json)
