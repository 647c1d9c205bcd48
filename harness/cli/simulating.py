"""The command `latlab simulate`: onboardings replayed on a table of latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from latlab.harness.cli.command import App, output_option
from latlab.harness.cli.options import (
    EngineOption,
    NearOption,
    PredictorOption,
    SeedOption,
    UntilOption,
    json_option,
    milliseconds_of,
    percent,
    print_json,
)
from latlab.harness.cli.table_files import table_format, write_table

app = App()


@app.command()
def simulate(
    *,
    table: Annotated[
        Path,
        typer.Option("--table", help="Parquet or CSV: a row per architecture, a column of milliseconds per device."),
    ],
    space: Annotated[str, typer.Option("--space", help="The search space of the table.")],
    target: Annotated[str, typer.Option("--target", help="The device that is onboarded: a column of the table.")],
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=1, help="The most networks to measure \\[default: 20; 100 with --until]."),
    ] = None,
    until: UntilOption = None,
    near: NearOption = None,
    noise: Annotated[
        str | None, typer.Option("--noise", metavar="PERCENT", help="Noise of the labels, such as 2% \\[default: 0].")
    ] = None,
    predictor: PredictorOption = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=10_000, help="Number of runs.")] = 10,
    seed: SeedOption = 0,
    engine: EngineOption = "local",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, max=1024, help="Number of processes, with one thread each.")
    ] = 1,
    out: Annotated[
        Path | None,
        output_option("--out", help="Write a .parquet or .csv file with a row per run and number of samples."),
    ] = None,
    as_json: Annotated[bool, json_option("each run")] = False,
) -> None:
    """Replay onboardings of a device whose latencies are in a table, to judge the method by the loop itself.

    [dim]Example:[/dim] latlab simulate --table nasbench201.parquet --space nasbench201 --target pixel2 --budget 20

    It chooses, learns and stops as `latlab onboard` does, and prints how good it was after each number of samples.
    """
    from latlab.harness.distributed.local import one_thread

    one_thread()
    from latlab.harness.active_learning.predictor_factory import PredictorOptions
    from latlab.harness.active_learning.stopping import most_samples, parse_goals
    from latlab.harness.bench import simulation
    from latlab.harness.bench.replay import ReplayPlan
    from latlab.harness.terminal import simulation as show

    goals = parse_goals(until)
    format_ = None if out is None else table_format(out)
    plan = ReplayPlan(
        table=table,
        space=space,
        target=target,
        budget=most_samples(budget, goals),
        goals=goals,
        noise_percent=percent("--noise", noise) or 0.0,
        predictor=PredictorOptions(predictor),
        near_ms=None if near is None else milliseconds_of("--near", near),
        seed=seed,
    )
    with show.progress(seeds, quiet=as_json) as finished:
        replays = simulation.simulate(plan, seeds=seeds, engine=engine, jobs=jobs, finished=finished)
    if out is not None and format_ is not None:
        write_table(simulation.points_of(replays), out, format_, digits=6)
    if as_json:
        for one in replays:
            print_json(one.to_json())
    else:
        show.show_replays(replays, f"{target} in {table}, {plan.predictor.name or 'default predictor'}")
