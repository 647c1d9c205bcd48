"""Search among the networks of a table under limits: predict once and choose, as the papers do, or in latlab's loop."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.bench.tables import LatencyTable
from latlab.harness.bench.tasks import Task
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.search.accuracy import Table
from latlab.harness.search.candidates import Listed
from latlab.harness.search.limits import Constraints, Limit, Measured
from latlab.harness.search.result import SearchResult
from latlab.harness.search.rounds import Search, SearchPlan
from latlab.harness.search.scoring import Predict
from latlab.harness.search.state import SearchFolder
from latlab.harness.store.vocabulary import Status
from latlab.predictors import Predictor
from latlab.search_spaces import SearchSpace
from seeds.figure6 import regret
from seeds.methods import Options, pretrained, runs, samples

__all__ = ["LOOP", "Case", "searched_rows"]

LOOP = "latlab search"
"""The method that measures, learns and looks again, with `roost`."""
SAMPLES, FIRST = 10, 5
"""Networks that are measured, and those of them that the loop of `latlab onboard` chooses."""
TOLERANCE = 1.02
"""A limit counts as met within 2 %."""


class TableEvidence:
    """A column of a table in the place of a device (`search.rounds.Evidence`): measuring is looking up."""

    def __init__(self, space: SearchSpace, predictor: Predictor, latency: Mapping[str, float]) -> None:
        self._space, self._predictor, self._latency = space, predictor, latency
        self.known: dict[str, Measured] = {}

    def predicts(self) -> Sequence[Predict]:
        archs = [self._space.parse(text) for text in self.known]
        self._predictor.adapt(self._space.genes(archs), [one.latency_ms for one in self.known.values()])
        return [self._predictor.predict]

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        return [self.known]

    def spreads(self) -> Sequence[float]:
        return [0.0]

    def failed(self) -> set[str]:
        return set()

    def measure(self, archs: Sequence[str], again: bool) -> Sequence[TargetFailure]:
        self.known.update({arch: Measured(self._latency[arch], 0.0) for arch in archs})
        return ()

    def resolve(self, archs: Sequence[str]) -> Sequence[TargetFailure]:
        return ()

    def begin(self, count: int, seed: int) -> None:
        """Measure what the closed loop of `latlab onboard` chooses."""
        pool = [self._space.parse(text) for text in self._latency]
        loop = ClosedLoop(self._space, self._predictor, budget=count, seed=seed, as_written=True, pool=pool)
        proposals = loop.proposals()
        while len(self.known) < count:
            arch = next(proposals)
            self.measure([arch], False)
            loop.record(arch, Status.OK, self._latency[arch], 0.0)


@dataclass(frozen=True)
class Case:
    """Limits on one device, under which the most accurate candidate is looked for."""

    device: str
    split: int
    """Number of the task's split whose sources are known."""
    limits: Sequence[float]
    """In ms."""
    candidates: NDArray[np.intp]
    """Rows of the table to choose from."""
    accuracy: NDArray[np.float64]
    """Of all rows of the table."""


def searched_rows(task: Task, cases: Sequence[Case], options: Options) -> list[dict[str, Any]]:
    """Return a row for each device, limit and method: means over the seeds, of networks that are then looked up."""
    table = task.table()
    rows = []
    for case in cases:
        latency = table.column(case.device)
        methods = {name: _predicted(name, task, case, options) for name in options.predictors}
        for limit in case.limits:
            able = case.candidates[latency[case.candidates] <= limit]
            best = float(case.accuracy[able].max()) if len(able) else float("nan")
            row = {"device": case.device, "limit ms": float(limit), "best": best}
            rows.append({**row, **_in_the_loop(task, case, limit, options)})
            for name, found in methods.items():
                rows.append({**row, "method": name, **_chosen(found, latency, case, limit)})
        print(*rows[-len(case.limits) * (1 + len(methods)) :], sep="\n", flush=True)
    return rows


@dataclass(frozen=True)
class _Predicted:
    """Predicted latencies of the candidates, one array for each seed, and the seconds of CPU of each."""

    latency_ms: list[NDArray[np.float64]]
    adapting_s: list[float]


def _predicted(name: str, task: Task, case: Case, options: Options) -> _Predicted:
    table: LatencyTable = task.table()
    predictor = pretrained(name, task, case.split, options)
    latency = table.column(case.device)
    found, seconds = [], []
    for seed in range(runs(table, case.device, SAMPLES, options.seeds)):
        support = samples(table, case.device, SAMPLES, seed)
        start = time.process_time()
        predictor.adapt(table.genes[support], latency[support])
        found.append(predictor.predict(table.genes[case.candidates]).mean_ms)
        seconds.append(time.process_time() - start)
    return _Predicted(found, seconds)


def _chosen(found: _Predicted, latency: NDArray[np.float64], case: Case, limit: float) -> dict[str, Any]:
    """Return what choosing by predicted latencies finds below a limit."""
    accuracy, real = case.accuracy[case.candidates], latency[case.candidates]
    chosen = []
    for predicted in found.latency_ms:
        *_, rows = regret(predicted, real, accuracy, np.array([limit]))
        chosen += rows.tolist()
    return _figures(
        [(float(accuracy[row]), float(real[row])) for row in chosen],
        limit,
        len(found.latency_ms),
        SAMPLES,
        float(np.median(found.adapting_s)),
    )


def _figures(
    found: Sequence[tuple[float, float]], limit: float, runs: int, measured: float, cpu_s: float
) -> dict[str, Any]:
    """Return the figures of networks that were found, as pairs of accuracy and latency."""
    met = sum(latency <= TOLERANCE * limit for _, latency in found)
    nothing = float("nan")
    return {
        "accuracy": float(np.mean([one for one, _ in found])) if found else nothing,
        "least": float(np.min([one for one, _ in found])) if found else nothing,
        "latency ms": float(np.mean([one for _, one in found])) if found else nothing,
        "met": f"{met} of {runs}",
        "samples": measured,
        "cpu s": cpu_s,
    }


def _in_the_loop(task: Task, case: Case, limit: float, options: Options) -> dict[str, Any]:
    """Return what latlab's search finds below a limit, with as many measurements in all."""
    table: LatencyTable = task.table()
    space, latency = table.space, table.column(case.device)
    measured = table.measured(case.device)
    by_text = {space.from_genes(table.genes[row]).text: float(latency[row]) for row in measured}
    genes = np.ascontiguousarray(table.genes[case.candidates])
    known = dict(zip((row.tobytes() for row in genes), case.accuracy[case.candidates].tolist(), strict=True))
    source = Table("the table", "the table", genes, known)
    found, counts, seconds = [], [], []
    for seed in range(options.seeds):
        predictor = pretrained("roost", task, case.split, options)
        start = time.process_time()
        evidence = TableEvidence(space, predictor, by_text)
        evidence.begin(FIRST, seed)
        winner = _search(space, source, genes, evidence, limit, seed).winner
        seconds.append(time.process_time() - start)
        counts.append(len(evidence.known))
        if winner is not None:
            found.append((winner.accuracy, by_text[winner.arch]))
    figures = _figures(found, limit, options.seeds, float(np.mean(counts)), float(np.median(seconds)))
    return {"method": LOOP, **figures}


def _search(
    space: SearchSpace, source: Table, genes: NDArray[np.int64], evidence: TableEvidence, limit: float, seed: int
) -> SearchResult:
    constraints = Constraints((Limit("table", limit),), 0.9)
    plan = SearchPlan(space, constraints, source, Listed(genes), "", SAMPLES - FIRST, seed=seed, confirm=False)
    with tempfile.TemporaryDirectory() as folder:
        return Search(plan, evidence, SearchFolder(Path(folder), [], space)).run()
