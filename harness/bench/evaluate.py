"""The evaluation of one predictor with one seed on one task.

The predictor is pre-trained once, adapted to each target with each budget, and scored.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from latlab.harness.bench.predictor_spec import PredictorSpec
from latlab.harness.bench.protocols import PROTOCOLS, Protocol, generator
from latlab.harness.bench.selection import TargetDevice, select
from latlab.harness.bench.tables import LatencyTable, Positions
from latlab.harness.bench.tasks import Task
from latlab.harness.encoding.tables import read_encoding_table
from latlab.predictors import Predictor, SourceDevice
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.metrics import coverage_percent, kendall, mape_percent, spearman, within_percent
from latlab.predictors.encodings.table import EncodingTable
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.hat.space import HATDecoder

__all__ = ["CpuSeconds", "Score", "Unit", "adapt", "evaluate", "predicted_per_s", "within_depth"]

TIMED = 10_000
"""The number of architectures whose prediction is timed."""


@dataclass(frozen=True)
class Unit:
    """The unit of work, for one process: all targets and budgets share one pre-training."""

    task: Task
    predictor: PredictorSpec
    protocol: str
    selection: str
    samples: tuple[int, ...]
    source_samples: int
    seed: int
    encoding_table: Path | None = None
    """The table that encodings are read from instead of being computed."""

    def encodings(self) -> EncodingTable | None:
        """Return the table of encodings, or None.

        Raises:
            BadInputError: it cannot be read.
        """
        table = self.task.table()
        return (
            None if self.encoding_table is None else read_encoding_table(self.encoding_table, table.space, table.genes)
        )


@dataclass(frozen=True)
class Score:
    """The scores of a predictor on one target with one budget and one seed."""

    device: str
    samples: int
    seed: int
    spearman: float
    kendall: float
    mape_percent: float
    within_10_percent: float
    coverage_90: float
    """Percentage of latencies inside the predicted 90 % interval."""
    within_depth: float
    """Mean Spearman correlation among networks of equal depth; NaN in all spaces but HAT's decoders.

    In HAT's space depth decides nearly everything.
    """
    pretrain_s: float
    """Seconds of CPU time to create and pre-train the predictor.

    CPU time, also in the next two fields, does not grow on a
    busy machine.
    """
    select_s: float
    """Seconds of CPU time to select the architectures to measure."""
    adapt_s: float
    """Seconds of CPU time to fit the predictor to the measurements."""
    predict_per_s: float
    """Predictions per second of CPU time, measured once for all scores of seed 0; NaN for other seeds."""


def evaluate(unit: Unit) -> list[Score]:
    """Return the scores of `unit`. Budgets that the predictor cannot work with (too small, or zero) give none."""
    table, protocol, encodings = unit.task.table(), PROTOCOLS[unit.protocol], unit.encodings()
    scores: list[Score] = []
    per_s = float("nan")
    for split in unit.task.splits:
        folder = unit.predictor.pretrained
        if folder is not None:
            for device in split.targets:
                folder.check_target(device, lambda _: False)
        sources = protocol.sources(table, split.sources, unit.source_samples, unit.seed)
        started = time.process_time()
        predictor = unit.predictor.create(table.space, unit.seed, encodings)
        if folder is None:
            predictor.pretrain(sources)
        pretrain_s = time.process_time() - started
        for device in split.targets:
            for n in unit.samples:
                spent = adapt(
                    predictor,
                    table,
                    device,
                    n,
                    protocol,
                    unit.selection,
                    unit.seed,
                    sources=sources,
                    encodings=encodings,
                )
                if spent is None:
                    continue
                test = protocol.test(table, device, spent.paid)
                try:
                    prediction = predictor.predict(table.genes[test])
                except ValueError:
                    if n:
                        raise
                    continue  # this predictor has no scale without a measurement
                if unit.seed == 0 and not scores:
                    per_s = predicted_per_s(predictor, table, only_table=encodings is not None)
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
    """Return Spearman's correlation among networks of equal depth, averaged with the number of networks as weight.

    Returns:
        NaN for every space but HAT's decoders.
    """
    if not isinstance(table.space, HATDecoder):
        return float("nan")
    depth = np.array([table.space.depth(genes) for genes in table.genes[rows].tolist()])
    groups = [depth == one for one in np.unique(depth)]
    return float(
        np.average([spearman(predicted[own], truth[own]) for own in groups], weights=[g.sum() for g in groups])
    )


@dataclass(frozen=True)
class CpuSeconds:
    """The measurements that a budget paid for, and the seconds of CPU time for choosing and fitting."""

    paid: Positions
    select_s: float
    adapt_s: float


def adapt(
    predictor: Predictor,
    table: LatencyTable,
    device: str,
    n: int,
    protocol: Protocol,
    selection: str,
    seed: int,
    *,
    sources: Sequence[SourceDevice] = (),
    encodings: EncodingTable | None = None,
) -> CpuSeconds | None:
    """Choose `n` architectures of `device`, pay for them, and fit `predictor` to them (arguments: `select`).

    Returns:
        What was spent, or None if n is positive but smaller than what must be measured first.
    """
    first, pool = protocol.first(table, device, predictor), protocol.pool(table, device)
    if n and n < len(first):
        return None
    target = TargetDevice(table.genes, table.column(device), np.union1d(pool, first))
    started = time.process_time()
    if n:
        rng = generator(seed, "support", device)
        select(selection, predictor, target, first, n, rng, sources=sources, encodings=encodings)
    chosen = time.process_time()
    target.fit(predictor)
    return CpuSeconds(target.paid, chosen - started, time.process_time() - chosen)


def predicted_per_s(predictor: Predictor, table: LatencyTable, *, only_table: bool = False) -> float:
    """Return how many architectures per second of CPU time a warm predictor predicts, features included.

    The architectures are the table's own in a space small enough to be predicted whole, and where only those have
    encodings (`only_table`); else random ones that were not predicted before.
    """
    space = table.space
    warm, *_ = np.split(table.genes, [200])
    genes = table.genes if space.finite or only_table else _random_genes(space)
    predictor.predict(warm)
    started = time.process_time()
    predictor.predict(genes)
    return len(genes) / (time.process_time() - started)


@lru_cache(1)
def _random_genes(space: SearchSpace) -> IntArray:
    return space.genes(space.sample(min(TIMED, space.size), 1))
