"""One predictor with one seed on one task: pre-trained once, adapted to each target with each budget, scored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from latlab.harness.bench.predictor_spec import PredictorSpec
from latlab.harness.bench.protocols import PROTOCOLS, Protocol, generator
from latlab.harness.bench.selection import SELECTIONS, Target
from latlab.harness.bench.tables import LatencyTable, Positions
from latlab.harness.bench.tasks import Task
from latlab.predictors import Predictor
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.metrics import coverage_percent, kendall, mape_percent, spearman, within_percent
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.hat.space import HATDecoder

__all__ = ["CpuSeconds", "Score", "Unit", "adapt", "evaluate", "predicted_per_s", "within_depth"]

TIMED = 10_000
"""Architectures whose prediction is timed."""


@dataclass(frozen=True)
class Unit:
    """What is computed in one piece, and by one process: pre-training is shared by all targets and budgets."""

    task: Task
    predictor: PredictorSpec
    protocol: str
    selection: str
    samples: tuple[int, ...]
    source_samples: int
    seed: int


@dataclass(frozen=True)
class Score:
    """How a predictor did on one target with one budget and one seed."""

    device: str
    samples: int
    seed: int
    spearman: float
    kendall: float
    mape_percent: float
    within_10_percent: float
    coverage_90: float
    """Percent."""
    within_depth: float
    """Spearman among networks of one depth, averaged; NaN where depth does not decide nearly all, as in HAT's space."""
    pretrain_s: float
    """Making the predictor included. Of a core's time, like the next two: a busy machine makes no predictor slow."""
    select_s: float
    adapt_s: float
    predict_per_s: float
    """NaN but for the first seed: a rate depends on none."""


def evaluate(unit: Unit) -> list[Score]:
    """Scores of `unit`; none for budgets that the predictor cannot work with (too small for what it wants, or zero)."""
    table, protocol = unit.task.table(), PROTOCOLS[unit.protocol]
    scores: list[Score] = []
    per_s = float("nan")
    for split in unit.task.splits:
        sources = protocol.sources(table, split.sources, unit.source_samples, unit.seed)
        started = time.process_time()
        predictor = unit.predictor.create(table.space, unit.seed)
        predictor.pretrain(sources)
        pretrain_s = time.process_time() - started
        for device in split.targets:
            for n in unit.samples:
                spent = adapt(predictor, table, device, n, protocol, unit.selection, unit.seed)
                if spent is None:
                    continue
                test = protocol.test(table, device, spent.paid)
                try:
                    prediction = predictor.predict(table.genes[test])
                except ValueError:
                    if n:
                        raise
                    continue  # no scale without a measurement, says this predictor
                if unit.seed == 0 and not scores:
                    per_s = predicted_per_s(predictor, table)
                truth, mean = table.column(device)[test], prediction.mean_ms
                scores.append(
                    Score(
                        device,
                        n,
                        unit.seed,
                        spearman(mean, truth),
                        kendall(mean, truth),
                        mape_percent(mean, truth),
                        within_percent(mean, truth),
                        coverage_percent(prediction, truth),
                        within_depth(mean, truth, table, test),
                        pretrain_s,
                        spent.select_s,
                        spent.adapt_s,
                        per_s,
                    )
                )
    return scores


def within_depth(predicted: FloatArray, truth: FloatArray, table: LatencyTable, rows: Positions) -> float:
    """Spearman's correlation within each depth, weighted by how many networks have it; NaN but for HAT's decoders."""
    if not isinstance(table.space, HATDecoder):
        return float("nan")
    depth = np.array([table.space.depth(genes) for genes in table.genes[rows].tolist()])
    groups = [depth == one for one in np.unique(depth)]
    return float(
        np.average([spearman(predicted[own], truth[own]) for own in groups], weights=[g.sum() for g in groups])
    )


@dataclass(frozen=True)
class CpuSeconds:
    """What a budget went for, and how long choosing and fitting took."""

    paid: Positions
    select_s: float
    adapt_s: float


def adapt(
    predictor: Predictor, table: LatencyTable, device: str, n: int, protocol: Protocol, selection: str, seed: int
) -> CpuSeconds | None:
    """Choose `n` architectures of `device`, pay for them, and fit `predictor` to them; None where n is too small."""
    first, pool = protocol.first(table, device, predictor), protocol.pool(table, device)
    if n and n < len(first):
        return None
    target = Target(table.genes, table.column(device), np.union1d(pool, first))
    started = time.process_time()
    if n:
        SELECTIONS[selection](predictor, target, first, n, generator(seed, "support", device))
    chosen = time.process_time()
    target.fit(predictor)
    return CpuSeconds(target.paid, chosen - started, time.process_time() - chosen)


def predicted_per_s(predictor: Predictor, table: LatencyTable) -> float:
    """Architectures predicted per second from their genes: warm, features included, none of them predicted before.

    Where the space is small enough to be predicted whole, they are the table's own.
    """
    space = table.space
    warm, *_ = np.split(table.genes, [200])
    genes = table.genes if space.finite else _random_genes(space)
    predictor.predict(warm)
    started = time.process_time()
    predictor.predict(genes)
    return len(genes) / (time.process_time() - started)


@lru_cache(1)
def _random_genes(space: SearchSpace) -> IntArray:
    return space.genes(space.sample(min(TIMED, space.size), 1))
