"""The ways to choose networks that the experiments compare, and the predictors among them, pre-trained once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.bench.protocols import PROTOCOLS, generator
from latlab.harness.bench.tables import LatencyTable, Positions
from latlab.harness.bench.tasks import Task
from latlab.predictors import Predictor, names, predictor_class

__all__ = ["PREDICTORS", "RANDOM", "Options", "pretrained", "runs", "samples"]

PREDICTORS = ("roost", "help", "brp-nas", "nasflat", "stacking", "flops")
"""Predictors by name; one that is not installed is left out."""
ALONE = ("brp-nas",)
"""Predictors that get no source devices, because their papers know none."""
RANDOM = "random"
"""No prediction at all: the best of the measured networks themselves."""


@dataclass(frozen=True)
class Options:
    """What all experiments are given."""

    data: Path
    """Folder of the published tables."""
    seeds: int
    """Number of seeds: of the samples, of the evolution, of the closed loop."""
    predictors: tuple[str, ...]
    kept: Path
    """Folder of pre-trained predictors. Meta-training takes minutes, and is the same for all targets and seeds."""

    @staticmethod
    def installed(wanted: Sequence[str]) -> tuple[str, ...]:
        """Return those of the predictors that are installed, and say which are not."""
        found = set(names())
        for name in wanted:
            if name not in found:
                print(f"no predictor {name} is installed: left out")
        return tuple(name for name in wanted if name in found)


def pretrained(name: str, task: Task, split: int, options: Options) -> Predictor:
    """Return a predictor, pre-trained with seed 0 on the sources of a task, or as an earlier run has kept it."""
    table = task.table()
    folder = options.kept / f"{task.name}-{split}-{name}"
    if folder.is_dir():
        return predictor_class(name).load(folder, table.space)
    protocol = PROTOCOLS["latlab"]
    count = protocol.source_samples(task.space)
    devices = () if name in ALONE else task.splits[split].sources
    sources = protocol.sources(table, devices, count, seed=0)
    start = time.process_time()
    predictor = predictor_for(PredictorOptions(name), table.space, seed=0, sources=sources)
    print(f"{name} is pre-trained for {task.name}: {time.process_time() - start:.0f} s of CPU", flush=True)
    predictor.save(folder)
    return predictor


def runs(table: LatencyTable, device: str, count: int, seeds: int) -> int:
    """Return how many different sets of samples so many seeds give: one, if HELP's references are all of them."""
    references = table.rows_of(table.space.references())
    return seeds if np.isin(references, table.measured(device)).sum() < count else 1


def samples(table: LatencyTable, device: str, count: int, seed: int) -> Positions:
    """Return the rows of so many samples of a device: HELP's references first, then random ones, as HELP takes them.

    All methods get the same.
    """
    measured = table.measured(device)
    references = table.rows_of(table.space.references())
    references = references[np.isin(references, measured)][:count]
    drawn = generator(seed, device, "samples").permutation(np.setdiff1d(measured, references))
    return np.concatenate([references, drawn[: count - len(references)]])
