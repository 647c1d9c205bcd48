"""The command line. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from latlab.harness import cli_bench, cli_devices, cli_import, cli_quality, cli_sustain
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.options import (
    STORE,
    AcceleratorOption,
    BatchOption,
    InputOption,
    InventoryOption,
    JsonOption,
    ModelOption,
    RuntimeOption,
    SeedOption,
    StoreOption,
    ThreadsOption,
    WrittenOption,
    parse_shape,
    print_json,
)

if TYPE_CHECKING:
    import pandas as pd

    from latlab.harness.lab import Lab
    from latlab.harness.resolve import Resolve

__all__ = ["app", "main"]

app = typer.Typer(
    name="latlab",
    help="Measure the latency of neural networks on your own devices, and predict the ones you have not measured.\n\n"
    "Begin with: [bold]latlab onboard local --space nasbench201 --budget 20[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(cli_devices.app)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_import.app)
app.add_typer(cli_sustain.app)
app.add_typer(cli_quality.app)
app.add_typer(cli_import.sources, name="sources")


class TableFormat(StrEnum):
    """Files that `export` writes."""

    parquet = "parquet"
    csv = "csv"


DevicesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DEVICE...",
        help="Devices of the inventory, side by side; `local` is this machine, `all` is every one, and a full target "
        "such as pi4/tflite/cpu/fp32/t4/b1 says how, too.",
    ),
]
SpaceOption = Annotated[str, typer.Option("--space", help="A search space; `latlab spaces` lists them.")]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help="How networks are timed: `default`, `quick` or `thorough` (short passes, added until the interval is "
        "narrow); `help`, `tflite` or `nvbench` (as those do); or a policy of the inventory.",
    ),
]
PredictorOption = Annotated[
    str | None, typer.Option("--predictor", help="Which predictor to fit [default: latlab's own]")
]
SourcesOption = Annotated[
    str,
    typer.Option(
        "--sources",
        metavar="all|none|NAME,...",
        help="Which other devices of the store the predictor learns from first; `latlab sources` lists them.",
    ),
]
FactOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fact",
        metavar="NAME=NUMBER",
        help="What is known of the hardware, for predictors that take it: cores, clock_ghz, bandwidth_gbs, tops. "
        "May be repeated.",
    ),
]
NewSessionOption = Annotated[
    bool, typer.Option("--new-session", help="Measure again, beside what was measured before.")
]
INTERRUPTED = 130


def _lab(store: Path, inventory: Path | None) -> Lab:
    from latlab.harness.lab import Lab

    return Lab(store, inventory=inventory)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON types; what is missing is null."""
    import pandas as pd

    return [
        {str(key): None if pd.api.types.is_scalar(value) and pd.isna(value) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


@app.command()
def onboard(
    devices: DevicesArgument,
    space: SpaceOption,
    budget: Annotated[int, typer.Option("--budget", min=1, help="How many networks to measure.")] = 20,
    until_error: Annotated[
        float | None,
        typer.Option("--until-error", help="Stop earlier, once the expected error is at most this many percent."),
    ] = None,
    runtime: RuntimeOption = None,
    accelerator: AcceleratorOption = None,
    threads: ThreadsOption = None,
    batch_size: BatchOption = None,
    holdout: Annotated[
        int,
        typer.Option(
            "--holdout",
            min=0,
            help="Also measure this many random networks, twice, that the predictor never sees.",
        ),
    ] = 0,
    policy: PolicyOption = "default",
    predictor: PredictorOption = None,
    sources: SourcesOption = "all",
    fact: FactOption = None,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    store: StoreOption = STORE,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the report, table and predictor.")] = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a few well-chosen networks, predict the whole space, and write a report.

    [dim]Example:[/dim] latlab onboard local --space nasbench201 --budget 20 --holdout 100

    The same command continues where it stopped; a larger budget extends it.
    """
    from latlab.harness import terminal
    from latlab.harness.inputs import parse_facts

    lab = _lab(store, inventory)
    with terminal.watching(space, quiet=as_json) as view:
        results = lab.onboard_fleet(
            devices,
            space=space,
            budget=budget,
            until_percent=until_error,
            holdout=holdout,
            policy=policy,
            runtime=runtime,
            accelerator=accelerator,
            threads=threads,
            batch_size=batch_size,
            seed=seed,
            predictor=predictor,
            sources=sources,
            facts=parse_facts(fact or ()),
            as_written=as_written,
            out=out,
            observe=view.observe,
            watch=view.watch,
            say=None if as_json else view.say,
        )
    for result in results:
        if as_json:
            print_json(result.to_json())
        else:
            terminal.show_onboarding(result)
    if view.failures:
        raise typer.Exit(1)


@app.command()
def measure(
    devices: DevicesArgument,
    space: Annotated[str | None, typer.Option("--space", help="A search space; `latlab spaces` lists them.")] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="This many random architectures.")] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", help="An architecture's string; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file with an architecture's string per line.")] = None,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="The space's blocks, each alone: a lookup table, for `--predictor lookup`.")
    ] = False,
    model: ModelOption = None,
    input_shape: InputOption = None,
    policy: PolicyOption = "default",
    runtime: RuntimeOption = None,
    accelerator: AcceleratorOption = None,
    threads: ThreadsOption = None,
    batch_size: BatchOption = None,
    as_written: WrittenOption = False,
    seed: SeedOption = 0,
    new_session: NewSessionOption = False,
    resolve: Annotated[
        bool,
        typer.Option(
            "--resolve", help="Then add passes where intervals overlap and the order matters, and only there."
        ),
    ] = False,
    under: Annotated[
        float | None, typer.Option("--under", metavar="MS", help="Of --resolve: which networks are below this?")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", metavar="K", help="Of --resolve: which K are fastest?")] = None,
    ties: Annotated[
        float | None,
        typer.Option(
            "--ties", metavar="PERCENT", help="Of --resolve: what differs by less is as good as equal [default: 1]"
        ),
    ] = None,
    most_seconds: Annotated[
        float | None,
        typer.Option(
            "--most-seconds",
            metavar="S",
            help="Of --resolve: timing that may be added on each target [default: as much as the labels took]",
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="With every sample, in nanoseconds, in order.")] = False,
    store: StoreOption = STORE,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure networks of a space, or a model of your own.

    [dim]Examples:[/dim] latlab measure local --space fbnet --count 50

    latlab measure local --space fbnet --blocks

    latlab measure local --space fbnet --count 200 --resolve --top 10

    latlab measure local --model net.onnx --input 1x3x224x224
    """
    from latlab.harness import terminal

    archs = _architectures(space, count, arch, file, model, blocks)
    question = _question(resolve, under, top, ties, most_seconds)
    lab = _lab(store, inventory)
    with terminal.watching(model or str(space), quiet=as_json) as view:
        rows = lab.measure(
            devices,
            space=space,
            count=count,
            archs=archs,
            blocks=blocks,
            model=model,
            input_shape=parse_shape(input_shape),
            policy=policy,
            runtime=runtime,
            accelerator=accelerator,
            threads=threads,
            batch_size=batch_size,
            seed=seed,
            new_session=new_session,
            as_written=as_written,
            raw=raw,
            resolve=question,
            observe=view.observe,
            watch=view.watch,
            say=None if as_json else view.say,
        )
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
        for record in _records(frame):
            print_json(record)
        for resolved in rows.attrs["resolved"]:
            print_json({"resolved": resolved})
    else:
        terminal.show_measurements(rows, store, raw=raw)
        if question is not None:
            from latlab.harness.terminal_resolve import show_resolved

            for resolved in rows.attrs["resolved"]:
                show_resolved(resolved)
    _complain_of(rows, view.devices)
    if view.failures or not (rows["status"] == "ok").any():
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
    from latlab.harness.resolve import TIES_PERCENT, Resolve

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
    from latlab.harness.inputs import read_archs, space_named

    return [a.text for a in read_archs(space_named(space), file)]


@app.command()
def predict(
    target: Annotated[
        str,
        typer.Option("--target", help="As `latlab show` lists them; or a device's name, if it has only one."),
    ],
    space: Annotated[str | None, typer.Option("--space", help="Needed where the target has several.")] = None,
    arch: Annotated[list[str] | None, typer.Option("--arch", help="An architecture's string; may be repeated.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The whole space, or a large sample of a larger one.")] = False,
    predictor: PredictorOption = None,
    sources: SourcesOption = "all",
    fact: FactOption = None,
    seed: SeedOption = 0,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Predict networks that were not measured, from what the store holds of a target and of other devices.

    [dim]Example:[/dim] latlab predict --target local/onnxruntime/cpu/fp32/t1/b1 --all --json
    """
    from latlab.harness import terminal
    from latlab.harness.inputs import parse_facts
    from latlab.harness.lab import Lab
    from latlab.harness.store import Store

    if all_ == (arch is not None):
        raise BadInputError("say what to predict: --arch STRING (repeatable), or --all")
    Store(store, must_exist=True).close()
    facts = parse_facts(fact or ())
    with terminal.working("learning and predicting", quiet=as_json):
        table = Lab(store).predict(
            target, space=space, archs=arch, predictor=predictor, sources=sources, facts=facts, seed=seed
        )
    if not table.attrs["support"]:
        terminal.warn(f"nothing was measured on {target}: this is what other devices and the prior say, no more")
    if as_json:
        for record in _records(table):
            print_json(record)
    else:
        terminal.show_table(table, f"Predicted on {target}")
        terminal.show_prior(table.attrs["sources"])


@app.command()
def embed(
    devices: DevicesArgument,
    space: SpaceOption,
    policy: PolicyOption = "default",
    runtime: RuntimeOption = None,
    accelerator: AcceleratorOption = None,
    threads: ThreadsOption = None,
    batch_size: BatchOption = None,
    seed: SeedOption = 0,
    new_session: NewSessionOption = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the embedding to this JSON file.")] = None,
    store: StoreOption = STORE,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure HELP's ten reference architectures: the device's hardware embedding.

    [dim]Example:[/dim] latlab embed local --space nasbench201 --out embedding.json
    """
    from latlab.harness import terminal

    lab = _lab(store, inventory)
    with terminal.watching(f"references of {space}", quiet=as_json) as view:
        rows = lab.embed(
            devices,
            space=space,
            policy=policy,
            runtime=runtime,
            accelerator=accelerator,
            threads=threads,
            batch_size=batch_size,
            seed=seed,
            new_session=new_session,
            observe=view.observe,
            watch=view.watch,
        )
    embeddings = [
        {"target": target, "space": space, "references": _records(own.drop(columns="target"))}
        for target, own in rows.groupby("target", sort=False)
    ]
    if out is not None:
        try:
            out.write_text(json.dumps(embeddings[0] if len(embeddings) == 1 else embeddings, indent=1) + "\n")
        except OSError as error:
            raise BadInputError(f"cannot write {out}: {error.strerror}") from error
    for embedding, (target, own) in zip(embeddings, rows.groupby("target", sort=False), strict=True):
        if as_json:
            print_json(embedding)
        else:
            terminal.show_table(own.drop(columns="target"), f"Hardware embedding of {target} in {space}")
    _complain_of(rows, view.devices)
    if view.failures or (rows["status"] != "ok").any():
        raise typer.Exit(1)


@app.command()
def spaces(as_json: JsonOption = False) -> None:
    """List the search spaces."""
    from latlab.harness import terminal
    from latlab.search_spaces import get, names

    known = [get(name) for name in names()]
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


@app.command()
def show(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store.")] = STORE,
    as_json: JsonOption = False,
) -> None:
    """Show what a store holds: a line per campaign and session, and why networks failed."""
    from latlab.harness import terminal
    from latlab.harness.store import Store

    opened = Store(store, must_exist=True)
    campaigns, rows = opened.campaigns(), opened.table()
    failures = rows[rows["status"] != "ok"][["target", "space", "arch", "status", "error"]]
    if as_json:
        print_json({"store": str(store), "campaigns": _records(campaigns), "failures": _records(failures)})
    else:
        terminal.show_store(store, campaigns, failures)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    store: StoreOption = STORE,
    format_: Annotated[
        TableFormat | None, typer.Option("--format", help="What to write [default: by the file's suffix]")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only this target.")] = None,
    space: Annotated[str | None, typer.Option("--space", help="Only this space.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="With the raw samples of every pass, in nanoseconds.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write everything measured to a Parquet or CSV file, one row per measurement.

    [dim]Example:[/dim] latlab export --out measured.csv
    """
    from latlab.harness.store import Store
    from latlab.harness.tables import without_formulas

    suffix = out.suffix.lower().lstrip(".")
    if format_ is None:
        if suffix not in set(TableFormat):
            raise BadInputError(f"{out} does not say what to write", "Add --format parquet or --format csv.")
        format_ = TableFormat(suffix)
    elif suffix in set(TableFormat) and suffix != format_:
        raise BadInputError(f"--format {format_} contradicts the name {out}")
    table = Store(store, must_exist=True).table(target=target, space=space, raw=raw)
    if table.empty:
        raise BadInputError(f"{store} has no such measurements", f"`latlab show {store}` lists what it has.")
    if raw and format_ is TableFormat.csv:
        table["passes"] = table["passes"].map(json.dumps)
    try:
        if format_ is TableFormat.csv:
            without_formulas(table).to_csv(out, index=False)
        else:
            table.to_parquet(out, index=False)
    except OSError as error:
        raise BadInputError(f"cannot write {out}: {error.strerror or error}") from error
    if as_json:
        print_json({"file": str(out), "rows": len(table)})
    else:
        print(f"{len(table)} rows written to {out}")


@app.command()
def report(
    store: StoreOption = STORE,
    target: Annotated[str | None, typer.Option("--target", help="Or a device; where the store has several.")] = None,
    space: Annotated[str | None, typer.Option("--space", help="Needed where the target has several.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("report.html"),
    predictor: PredictorOption = None,
    sources: SourcesOption = "all",
    fact: FactOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Write the report of what a store holds of a target: one self-contained HTML file.

    [dim]Example:[/dim] latlab report --target local/onnxruntime/cpu/fp32/t1/b1 --space nasbench201 --out report.html
    """
    from latlab.harness import terminal
    from latlab.harness.inputs import parse_facts
    from latlab.harness.lab import Lab
    from latlab.harness.store import Store

    Store(store, must_exist=True).close()
    facts = parse_facts(fact or ())
    with terminal.working("learning and drawing", quiet=as_json):
        path = Lab(store).report(
            target=target, space=space, out=out, predictor=predictor, sources=sources, facts=facts, seed=seed
        )
    if as_json:
        print_json({"report": str(path)})
    else:
        print(f"Report: {path}")


def main() -> NoReturn:
    """Entry point of the command: errors in plain words, exit codes 0 ok, 1 failed, 2 bad input."""
    as_json = "--json" in sys.argv
    code = 0
    try:
        code = app(_spread_archs(sys.argv[1:]), standalone_mode=False) or 0
        if code == INTERRUPTED:  # typer turns Ctrl-C into this
            _complain("interrupted", "Everything measured so far is in the store; the same command continues.", as_json)
    except LatlabError as error:
        _complain(error.message, error.hint, as_json)
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except Exception as error:
        code = _usage_error(error)
    sys.exit(code)


def _spread_archs(words: list[str]) -> list[str]:
    """`--arch A B C` as `--arch A --arch B --arch C`, which is what the parser takes.

    Only where nothing else can be meant: `measure` must have had its DEVICE before.
    """
    if words[:1] == ["predict"]:
        start = 1
    elif words[:1] == ["measure"] and len(words) > 1 and not words[1].startswith("-"):
        start = 2
    else:
        return words
    spread, listing = words[:start], False
    for before, word in zip(words[start - 1 :], words[start:], strict=False):
        if word.startswith("-"):
            listing = word == "--arch"
        elif listing and before != "--arch":
            spread.append("--arch")
        spread.append(word)
    return spread


def _usage_error(error: Exception) -> int:
    """What typer finds wrong with the arguments is shown as typer shows it; anything else is a bug and raised."""
    show: Callable[[], None] | None = getattr(error, "show", None)
    exit_code = getattr(error, "exit_code", None)
    if show is None or exit_code is None:
        raise error
    from typer import rich_utils

    rich_utils.rich_format_error(error)  # type: ignore[arg-type]
    return int(exit_code)


def _complain_of(rows: pd.DataFrame, devices: Mapping[str, object]) -> None:
    """Why the only device failed after it had measured something; of several, each was told as it happened."""
    for error in rows.attrs.get("errors", ()):
        if len(devices) == 1:
            _complain(error, None, False)


def _complain(message: str, hint: str | None, as_json: bool) -> None:
    if as_json:
        print_json({"error": message, "hint": hint})
    print(f"latlab: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
