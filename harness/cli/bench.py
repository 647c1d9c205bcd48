"""The commands that compare predictors on published or own latency tables. They need no device."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.interruption import interruption
from latlab.harness.cli.options import (
    SAMPLERS_HELP,
    EncodingTableOption,
    EngineOption,
    complain,
    json_option,
    print_json,
    seed_in_range,
)
from latlab.harness.errors import BadInputError

if TYPE_CHECKING:
    from latlab.harness.bench.tasks import Task

__all__ = ["app"]

app = App(no_args_is_help=True, help="Compare predictors on latency tables: published ones, or your own.")
DATA = "LATLAB_DATA"


class ProtocolName(StrEnum):
    """Protocols: which measurements predictors get, and what they are scored on."""

    latlab = "latlab"
    help = "help"
    nasflat = "nasflat"
    nasflat_as_published = "nasflat_as_published"


def _seed(seed: int) -> int:
    if seed < 0:
        raise typer.BadParameter(f"{seed} is below 0.")
    return seed_in_range(seed)


TableOption = Annotated[
    Path | None,
    typer.Option(
        "--table",
        help="Your own table: Parquet or CSV, a row per architecture (`arch`), a column of latencies in ms per device.",
    ),
]
SpaceOption = Annotated[str | None, typer.Option("--space", help="The search space of --table.")]


@app.command()
def predictors(
    data: Annotated[
        Path | None, typer.Option("--data", help=f"Folder of the published tables \\[default: ${DATA}]")
    ] = None,
    predictor: Annotated[
        str | None,
        typer.Option("--predictor", help="NAME,... or NAME:option=value,... \\[default: latlab's own]"),
    ] = None,
    pretrained: Annotated[
        list[Path] | None,
        typer.Option(
            "--pretrained",
            metavar="FOLDER",
            help="Also, or without --predictor only, a predictor that `latlab pretrain` wrote; may be repeated.",
        ),
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="ND,F1,... or files that `latlab bench tasks` wrote \\[default: all published]"),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option("--samples", help="Measurements of each target \\[default: 5,10,20, or the protocol's]"),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Number of repetitions.")] = 5,
    selection: Annotated[
        str,
        typer.Option(
            "--selection",
            metavar="NAME",
            help=f"How to choose the measurements: {SAMPLERS_HELP}; sequential, as onboard does, one at a time after "
            "the first five; or latency-oracle, by the latencies themselves.",
        ),
    ] = "random",
    encoding_table: EncodingTableOption = None,
    protocol: Annotated[
        ProtocolName,
        typer.Option("--protocol", metavar="NAME", help=f"latlab's protocol, or a paper's: {', '.join(ProtocolName)}."),
    ] = ProtocolName.latlab,
    source_samples: Annotated[
        int | None,
        typer.Option(
            "--source-samples", min=1, max=10**9, help="Measurements of each source \\[default: the protocol's]"
        ),
    ] = None,
    table: TableOption = None,
    space: SpaceOption = None,
    source: Annotated[str | None, typer.Option("--source", help="Source devices, as columns of --table: a,b,c")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Target devices, as columns of --table: d,e")] = None,
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling", help="Also estimate the best possible scores: by a fit to thousands of samples, and by noise."
        ),
    ] = False,
    engine: EngineOption = "local",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=1024, help="Number of processes, with one thread each.")
    ] = 1,
    out: Annotated[
        Path | None,
        output_option("--out", help="Add each finished result to this file; results in it are not computed again."),
    ] = None,
    as_json: Annotated[bool, json_option("each result")] = False,
) -> None:
    """Score predictors on devices that they have not seen, with a few measurements of each.

    [dim]Examples:[/dim] latlab bench predictors --tasks ND,FD --samples 5,10,20 --selection designed

    latlab bench predictors --table mine.parquet --space fbnet --source pi3,pi4 --target pi5
    """
    from latlab.harness.distributed.local import one_thread

    one_thread()
    from latlab import predictors as installed
    from latlab.harness.active_learning.pretrained import read_pretrained
    from latlab.harness.bench.ceilings import reference_of
    from latlab.harness.bench.evaluate import Unit
    from latlab.harness.bench.predictor_spec import PredictorSpec, parse_specs
    from latlab.harness.bench.protocols import PROTOCOLS
    from latlab.harness.bench.results import ResultFile
    from latlab.harness.bench.run import compare
    from latlab.harness.bench.selection import check_selection
    from latlab.harness.terminal import bench as show
    from latlab.harness.terminal import results as terminal

    chosen, selection = PROTOCOLS[protocol], check_selection(selection)
    if chosen.selections and selection not in chosen.selections:
        raise BadInputError(f"protocol {protocol} has no {selection} selection: what it draws from is fixed")
    budgets = _numbers(samples) if samples is not None else chosen.samples
    ready = [PredictorSpec(one.card.predictor, pretrained=one) for one in map(read_pretrained, pretrained or [])]
    given = predictor if predictor is not None else None if ready else installed.DEFAULT
    specs = [*(parse_specs(given) if given is not None else []), *ready]
    units = [
        Unit(
            task,
            spec,
            protocol.value,
            selection,
            budgets,
            source_samples or chosen.source_samples(task.space),
            seed=0,
            encoding_table=encoding_table,
        )
        for task in _tasks(data, tasks, table, space, source, target)
        for spec in specs
    ]
    for unit in units:
        unit.encodings()  # a faulty table must fail before anything is computed
        unit.task.table()
    results = ResultFile(out)
    try:
        with show.progress(len(units), seeds, quiet=as_json) as finished:
            comparison = compare(units, seeds, engine=engine, jobs=jobs, results=results, finished=finished)
        with terminal.working("fitting to thousands of samples", quiet=as_json or not ceiling):
            references = [reference_of(task) for task in {unit.task: None for unit in units}] if ceiling else []
    except KeyboardInterrupt:
        kept = f"What is finished is in {out}; the same command continues." if out else "Nothing is kept without --out."
        print(f"latlab: {interruption.words}\n{kept}", file=sys.stderr)
        sys.exit(interruption.exit_code)
    if as_json:
        for record in (*comparison.records, *references):
            print_json(record)
    else:
        show.show_comparison(comparison.records, references)
    for failure in comparison.failures:
        complain(failure, None, False)
    if comparison.failures:
        raise typer.Exit(1)


def _tasks(
    data: Path | None, tasks: str | None, table: Path | None, space: str | None, source: str | None, target: str | None
) -> list[Task]:
    from latlab.harness.bench.tasks import PUBLISHED, Split, Task, published_task, read_tasks

    if table is not None:
        if space is None or source is None or target is None:
            raise BadInputError(
                "--table needs --space, --source and --target", "For example --source pi3,pi4 --target pi5."
            )
        if tasks is not None:
            raise BadInputError("--table and --tasks exclude each other: a table's own devices are the task")
        split = Split(_names(source, "--source"), _names(target, "--target"))
        both = sorted(set(split.sources) & set(split.targets))
        if both:
            raise BadInputError(f"{', '.join(both)} cannot be both --source and --target")
        return [Task(table.stem, space, (table,), (split,))]
    if space is not None or source is not None or target is not None:
        raise BadInputError("--space, --source and --target describe a --table")
    found: list[Task] = []
    for name in _names(tasks, "--tasks") if tasks is not None else PUBLISHED:
        if name.endswith(".json"):
            found += read_tasks(Path(name))
        else:
            found.append(published_task(name, _data(data)))
    return found


def _data(folder: Path | None) -> Path:
    named = str(folder) if folder is not None else os.environ.get(DATA)
    if not named:
        raise BadInputError(
            "the published tasks need the published tables",
            f"--data FOLDER (or the variable {DATA}) names where they are; --table FILE compares on a table of yours.",
        )
    return Path(named)


def _names(text: str, option: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise BadInputError(f"{option} names nothing")
    return found


def _numbers(text: str) -> tuple[int, ...]:
    parts = _names(text, "--samples")
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise BadInputError(f"--samples {text}: not all of these are whole numbers", "Write them like 5,10,20.")
    return tuple(sorted({int(part) for part in parts}))


@app.command()
def tasks(
    table: Annotated[
        Path, typer.Option("--table", help="Parquet or CSV: one row per architecture, one column per device.")
    ],
    space: Annotated[str, typer.Option("--space", help="The search space of the table.")],
    out: Annotated[
        Path | None,
        output_option(
            "--out",
            ".json",
            help="Also write them to this .json file, for `bench predictors --tasks`.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=50, help="How many tasks at most; the hardest ones.")] = 4,
    sources: Annotated[int, typer.Option("--sources", min=1, help="Number of source devices.")] = 5,
    targets: Annotated[int, typer.Option("--targets", min=1, help="Number of target devices.")] = 3,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", callback=_seed, help="Seed of the first bisections, from 0 on.")
    ] = 0,
    as_json: Annotated[bool, json_option("each task")] = False,
) -> None:
    """Make hard tasks from any table: source and target devices that correlate as little as possible.

    [dim]Example:[/dim] latlab bench tasks --table mine.parquet --space fbnet --out tasks.json
    """
    from latlab.harness.bench.bisection import hard_splits
    from latlab.harness.bench.tables import read_table
    from latlab.harness.bench.tasks import Task, write_tasks
    from latlab.harness.terminal import bench as show

    found = hard_splits(read_table(table, space), count, sources, targets, seed)
    if not found:
        raise BadInputError(
            f"no split of the devices of {table} has {sources} sources and {targets} targets",
            "Ask for fewer: --sources and --targets.",
        )
    made = [Task(f"{table.stem}-{i}", space, (table,), (one.split,)) for i, one in enumerate(found, 1)]
    if out is not None:
        write_tasks(out, made)
    if as_json:
        for task, one in zip(made, found, strict=True):
            print_json(
                {
                    "task": task.name,
                    "source": one.split.sources,
                    "target": one.split.targets,
                    "correlation": one.across,
                }
            )
    else:
        show.show_tasks(made, found)
        if out is not None:
            print(f"{out} written; now: latlab bench predictors --tasks {out}")
