"""Figure 10: every predictor on every published task, and the flagship without its parts.

    python benchmarks/predictors.py --data FOLDER [--suite main ablation few help nasflat ...] [--jobs N]

FOLDER has the published tables. Each finished task and predictor is written to `results/predictors.jsonl` at once and
is not computed again: the script can be stopped, and continued with more suites (after a change of a predictor, delete
its lines). At the end it prints, from the whole file, the tables of RESULTS.md and the figures asked for with those
found. The papers' systems choose networks as in their papers: at random, or by NASFLAT's sampler under its own
protocol.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from latlab.harness.distributed.local import one_thread

one_thread()

from common import RESULTS, save, show  # noqa: E402

from latlab import predictors as installed  # noqa: E402
from latlab.harness.bench.ceilings import flexible_fit, noise_ceiling  # noqa: E402
from latlab.harness.bench.evaluate import Unit  # noqa: E402
from latlab.harness.bench.predictor_spec import parse_specs  # noqa: E402
from latlab.harness.bench.protocols import PROTOCOLS  # noqa: E402
from latlab.harness.bench.published import CEILINGS, PUBLISHED_SPEARMAN  # noqa: E402
from latlab.harness.bench.results import Record, ResultFile  # noqa: E402
from latlab.harness.bench.run import compare  # noqa: E402
from latlab.harness.bench.tasks import PUBLISHED, published_task  # noqa: E402
from latlab.harness.terminal.bench import progress  # noqa: E402

FLAGSHIP = "roost"
BASELINES = ("flops", "params", "kernels", "source-mean", "lookup", "stacking")
PAPERS = ("help", "multipredict", "nasflat", "in-context")
TWELVE = ("ND", "N1", "N2", "N3", "N4", "NA", "FD", "F1", "F2", "F3", "F4", "FA")
BUDGETS = (5, 10, 20)


@dataclass(frozen=True)
class Part:
    """A part of the comparison: predictors, tasks, ways to choose samples, and numbers of samples."""

    predictors: Sequence[str]
    tasks: Sequence[str] = TWELVE
    selections: Sequence[str] = ("designed",)
    samples: Sequence[int] = BUDGETS
    protocol: str = "latlab"
    source_samples: int | None = None
    """Samples of each source device; None for the protocol's number."""


SUITES: Mapping[str, Sequence[Part]] = {
    "main": (
        Part([FLAGSHIP], PUBLISHED, ("random", "designed"), (0, 3, *BUDGETS)),
        Part(["ridge"], PUBLISHED, ("random", "designed")),
        Part(BASELINES, PUBLISHED, ("random",)),
    ),
    "papers": (Part(PAPERS, PUBLISHED, ("random",)),),
    "sequential": (Part([FLAGSHIP], selections=("sequential",)),),
    "ablation": (
        Part([f"{FLAGSHIP}:{off}" for off in ("synthetic=off", "sources=off", "synthetic=off,sources=off")]),
        Part([f"{FLAGSHIP}:robust=off"]),
    ),
    "few": (Part([FLAGSHIP, "ridge"], TWELVE[:6], source_samples=25),),
    "help": (Part([FLAGSHIP, "ridge", "help"], ("ND", "FD", "OFA"), ("random",), (20,), "help"),),
    "nasflat": (
        Part([FLAGSHIP, "ridge"], selections=("random",), samples=(20,), protocol="nasflat"),
        Part(["nasflat"], selections=("diverse",), samples=(20,), protocol="nasflat"),
        Part(["nasflat"], selections=("diverse",), samples=(20,), protocol="nasflat_as_published"),
    ),
}
# Goals of the flagship predictor: Spearman of each task with samples chosen one at a time, and means.
GOALS = {
    20: (0.977, 0.986, 0.965, 0.982, 0.985, 0.990, 0.996, 0.926, 0.976, 0.976, 0.830, 0.816),
    10: (0.975, 0.984, 0.950, 0.981, 0.983, 0.982, 0.990, 0.915, 0.970, 0.969, 0.825, 0.802),
    5: (0.970, 0.980, 0.920, 0.975, 0.978, 0.960, 0.980, 0.900, 0.962, 0.960, 0.810, 0.785),
}
MEANS = {20: 0.951, 10: 0.943, 5: 0.930}
LEAST = {("OFA", 5): 0.955, ("OFA", 10): 0.955, ("OFA-V100", 10): 0.935, ("HAT", 5): 0.977}


def units(part: Part, data: Path, only: Sequence[str] | None) -> Iterator[Unit]:
    for text in part.predictors:
        name = text.partition(":")[0]
        if name not in installed.names() or (only is not None and name not in only):
            continue
        (spec,) = parse_specs(text)
        for task in (published_task(name, data) for name in part.tasks):
            count = part.source_samples or PROTOCOLS[part.protocol].source_samples(task.space)
            for selection in part.selections:
                yield Unit(task, spec, part.protocol, selection, tuple(part.samples), count, seed=0)


def references(data: Path, path: Path) -> dict[str, dict[str, Any]]:
    """Return for each "task target" the score of a flexible fit and the ceiling of its noise.

    New ones are computed and saved in the file `path`.
    """
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in PUBLISHED:
        task = published_task(name, data)
        missing = [one for split in task.splits for one in split.targets if f"{name} {one}" not in known]
        for device in missing:
            fit, ceiling = flexible_fit(task.table(), device), noise_ceiling(task.table(), device)
            known[f"{name} {device}"] = {**asdict(fit), "noise_ceiling": None if isnan(ceiling) else ceiling}
        if missing:
            save(path, known)
    return known


def find(records: Sequence[Record], row: Sequence[Any]) -> dict[tuple[str, int], Record]:
    """Return the records of one row of the table, by task and number of samples."""
    found = {(record["task"], record["samples"]): record for record in records if key_of(record) == tuple(row)}
    return {cell: record for cell, record in found.items() if record["spearman_mean"] is not None}


def key_of(record: Record) -> tuple[str, str, str, bool]:
    """Return what identifies a row: predictor, selection, protocol, and whether sources had unusually few samples."""
    few = record["protocol"] == "latlab" and record["source_samples"] < 100
    return record["predictor"], record["selection"], record["protocol"], few


def table(records: Sequence[Record], tasks: Sequence[str]) -> list[str]:
    """Return Markdown lines: a row per predictor, selection and budget, then published figures and the ceiling."""
    lines = [
        f"| | n | {' | '.join(tasks)} | mean |",
        f"|---|---|{'---|' * (len(tasks) + 1)}",
    ]

    def line(name: str, n: object, values: Sequence[float | None]) -> None:
        known = [value for value in values if value is not None]
        mean = sum(known) / len(known) if len(known) == len(tasks) else None
        cells = ("" if value is None else f"{value:.3f}".removeprefix("0") for value in (*values, mean))
        lines.append(f"| {name} | {n} | {' | '.join(cells)} |")

    for *row, n in dict.fromkeys((*key_of(record), record["samples"]) for record in records):
        own = find(records, row)
        predictor, selection, protocol, few = row
        notes = [selection, *([protocol] if protocol != "latlab" else []), *(["25 per source"] if few else [])]
        values = [own[task, n]["spearman_mean"] if (task, n) in own else None for task in tasks]
        if any(value is not None for value in values):
            line(f"{predictor}, {', '.join(notes)}", n, values)
    for name, known in {**PUBLISHED_SPEARMAN, "ceiling": CEILINGS}.items():
        if any(task in known for task in tasks):
            line(name, "" if known is CEILINGS else 20, [known.get(task) for task in tasks])
    return lines


def verdicts(records: Sequence[Record], fits: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the figures that were asked for of the flagship predictor, with those found."""
    own = find(records, (FLAGSHIP, "sequential", "latlab", False))
    at_random = find(records, (FLAGSHIP, "random", "latlab", False))
    ridge = find(records, ("ridge", "random", "latlab", False))
    rows: list[dict[str, Any]] = []

    def judge(what: str, asked: str, found: float | None, holds: Callable[[float], bool]) -> None:
        good = "" if found is None else "yes" if holds(found) else "NO"
        rows.append({"what": what, "asked for": asked, "found": found, "holds": good})

    for n, goals in GOALS.items():
        if not all((task, n) in own for task in TWELVE):
            continue
        rho = [own[task, n]["spearman_mean"] for task in TWELVE]
        judge(f"mean of the twelve, n = {n}", f">= {MEANS[n]}", sum(rho) / 12, lambda x, m=MEANS[n]: x >= m)
        reached = sum(round(mine, 3) >= goal for mine, goal in zip(rho, goals, strict=True))
        judge(f"tasks at their goal, n = {n}", "12", reached, lambda x: x == 12)
        for what, others, least in (("random samples", at_random, -0.002), ("ridge", ridge, 0.0)):
            if all((task, n) in others for task in TWELVE):
                margin = min(mine - others[task, n]["spearman_mean"] for mine, task in zip(rho, TWELVE, strict=True))
                judge(f"least margin to {what}, n = {n}", f">= {least}", margin, lambda x, y=least: x >= y)
    for (task, n), least in LEAST.items():
        if (task, n) in own:
            judge(f"{task}, n = {n}", f">= {least}", own[task, n]["spearman_mean"], lambda x, y=least: x >= y)
    for n in (*BUDGETS, 50, 200):
        cells = [
            device["coverage_90"]
            for task in TWELVE
            if (task, n) in at_random
            for device in at_random[task, n]["per_device"].values()
        ]
        if cells:
            inside = 100 * sum(85 <= cell <= 95 for cell in cells) / len(cells)
            judge(f"% of devices with coverage in 85-95 %, random, n = {n}", ">= 80", inside, lambda x: x >= 80)
    for (task, n), record in own.items():
        limits = [fits.get(f"{task} {device}") for device in record["per_device"]]
        if n == 20 and None not in limits:
            limit = 1.25 * sum(one["mape_percent"] for one in limits if one) / len(limits) + 2
            judge(f"MAPE % on {task}, n = 20", f"<= {limit:.1f}", record["mape_percent"], lambda x, y=limit: x <= y)
    for name, asked, limit in (("pretrain_s", "<= 30", 30), ("adapt_s", "<= .05", 0.05), ("select_s", "<= .2", 0.2)):
        if own:
            judge(f"largest {name}", asked, max(record[name] for record in own.values()), lambda x, y=limit: x <= y)
    rates = [record["predict_per_s"] for record in own.values() if record["predict_per_s"] is not None]
    if rates:
        judge("least predictions per second", ">= 400,000", min(rates), lambda x: x >= 400_000)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"))
    parser.add_argument("--suite", nargs="*", choices=[*SUITES, "reference"], default=["main", "reference"])
    parser.add_argument("--predictor", nargs="*", help="only these")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "predictors.jsonl")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data (or LATLAB_DATA) names the folder of the published tables")
    failures: list[str] = []
    for suite in (suite for suite in arguments.suite if suite in SUITES):
        work = [unit for part in SUITES[suite] for unit in units(part, arguments.data, arguments.predictor)]
        with progress(len(work), arguments.seeds, quiet=False) as finished:
            done = compare(
                work, arguments.seeds, jobs=arguments.jobs, results=ResultFile(arguments.out), finished=finished
            )
        failures += done.failures
    kept = arguments.out.with_name(f"{arguments.out.stem}_reference.json")
    fits = references(arguments.data, kept) if "reference" in arguments.suite else {}
    records = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for tasks in (TWELVE, tuple(task for task in PUBLISHED if task not in TWELVE)):
        print("\n".join(["", *table(records, tasks)]))
    judged = verdicts(records, fits)
    if judged:
        show("Asked for and found", judged)
        save(arguments.out.with_suffix(".json"), {"asked for and found": judged, "failures": failures})
    for failure in failures:
        print(failure)


if __name__ == "__main__":
    main()
