"""How well one could do: a flexible fit to thousands of samples of the target, and what the labels' own noise leaves.

The fit is a Gaussian process on the architecture's choices themselves, with the kernel exp(a * matches), where matches
counts the choices that two architectures share: a product over choices, so that all interactions are there, weighted
down with their order. It knows nothing of costs or other devices. Its width and noise minimise the leave-one-out error
of a part of the samples (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from latlab.harness.bench.protocols import generator
from latlab.harness.bench.results import Record
from latlab.harness.bench.tables import LatencyTable
from latlab.harness.bench.tasks import Task
from latlab.predictors.base import FloatArray
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.search_spaces.nasbench201.cell import to_unique_str
from latlab.search_spaces.nasbench201.space import NASBench201

__all__ = ["Reference", "flexible_fit", "noise_ceiling", "reference_of"]

SAMPLES = 4000
TUNED_ON = 1000
WIDTHS = (0.1, 0.3, 1.0, 3.0)
"""The kernel's a, times the number of choices: from nearly linear to nearly a table."""
NOISES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Variance of a label's noise, relative to that of the latencies (logarithms)."""
MIN_REPEATED = 10
NEAR = 100


@dataclass(frozen=True)
class Reference:
    """A fit to most of what there is of a device, scored on the rest of it."""

    samples: int
    spearman: float
    mape_percent: float


def flexible_fit(table: LatencyTable, device: str, seed: int = 0, samples: int = SAMPLES) -> Reference:
    """Fit to `samples` random architectures of `device` (at most 80 % of those measured), score on all others."""
    order = generator(seed, "reference", device).permutation(table.measured(device))
    count = min(samples, int(0.8 * len(order)))
    choices = table.space.encode(table.genes, "one-hot").astype(np.float32)
    log_latency = np.log(table.column(device))
    train, test = order[:count], order[count:]
    width, noise = _tuned(choices[train[:TUNED_ON]], log_latency[train[:TUNED_ON]])
    level = log_latency[train].mean()
    gram = _kernel(choices[train], choices[train], width)
    gram[np.diag_indices(count)] += noise
    weights = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), log_latency[train] - level)
    predicted = np.exp(_kernel(choices[test], choices[train], width) @ weights + level)
    truth = table.column(device)[test]
    return Reference(count, spearman(predicted, truth), mape_percent(predicted, truth))


def _kernel(a: FloatArray, b: FloatArray, width: float) -> FloatArray:
    """1 where all choices are the same; most choices are made in every architecture, so that a @ b counts matches."""
    per_arch = max(float(a.sum(axis=1).max()), 1.0)
    different = (a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :]) / 2 - a @ b.T
    return np.asarray(np.exp(-width / per_arch * different), dtype=np.float64)


def _tuned(choices: FloatArray, log_latency: FloatArray) -> tuple[float, float]:
    """The width and the noise with the least leave-one-out error."""
    y = log_latency - log_latency.mean()
    best = (np.inf, WIDTHS[0], NOISES[0])
    for width in WIDTHS:
        values, vectors = np.linalg.eigh(_kernel(choices, choices, width))
        projected = vectors.T @ y
        for noise in NOISES:
            inverse = 1 / (np.maximum(values, 0) + noise)
            error = (vectors @ (inverse * projected)) / ((vectors**2) @ inverse)
            best = min(best, (float(error @ error), width, noise))
    return best[1:]


def reference_of(task: Task) -> Record:
    """The flexible fit and the noise ceiling of a task, averaged over its targets: an object for `--json`."""
    table = task.table()
    fits = {device: flexible_fit(table, device) for split in task.splits for device in split.targets}
    ceilings = {device: noise_ceiling(table, device) for device in fits}
    return {
        "task": task.name,
        "predictor": "flexible fit",
        "samples": max(fit.samples for fit in fits.values()),
        "spearman_mean": float(np.mean([fit.spearman for fit in fits.values()])),
        "mape_percent": float(np.mean([fit.mape_percent for fit in fits.values()])),
        "noise_ceiling": _known(float(np.mean(list(ceilings.values())))),
        "per_device": {
            device: {
                "spearman": fit.spearman,
                "mape_percent": fit.mape_percent,
                "noise_ceiling": _known(ceilings[device]),
            }
            for device, fit in fits.items()
        },
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def noise_ceiling(table: LatencyTable, device: str, seed: int = 0) -> float:
    """The rank correlation that a perfect predictor would have with labels as noisy as these.

    Cells of NAS-Bench-201 that compute the same function by the same operations are repeated measurements of one
    network, and their deviations are the label's noise; elsewhere there are no such repetitions, which is NaN. The
    labels, drawn together to the spread that the truth must have, stand for the truth.
    """
    if not isinstance(table.space, NASBench201):
        return float("nan")
    rows = table.measured(device)
    log_latency = np.log(table.column(device)[rows])
    groups: dict[object, list[float]] = {}
    for genes, value in zip(table.genes[rows].tolist(), log_latency, strict=True):
        groups.setdefault((to_unique_str(genes), tuple(sorted(genes))), []).append(value)
    repeated = [np.array(values) for values in groups.values() if len(values) > 1]
    if len(repeated) < MIN_REPEATED:
        return float("nan")
    # A deviation from the mean of k is short of one from the truth by sqrt((k - 1) / k).
    deviations = np.concatenate([(one - one.mean()) * np.sqrt(len(one) / (len(one) - 1)) for one in repeated])
    levels = np.concatenate([np.full(len(one), one.mean()) for one in repeated])
    order = np.argsort(levels)
    # Fast networks are noisier: each gets a deviation of networks about as fast.
    rng = generator(seed, "noise", device)
    near = np.searchsorted(levels[order], log_latency) + rng.integers(-NEAR, NEAR, len(log_latency))
    noise = deviations[order[np.clip(near, 0, len(order) - 1)]]
    # The truth spreads less than the labels, whose variance is that of both.
    truth = log_latency * np.sqrt(max(1 - noise.var() / log_latency.var(), 0))
    return spearman(truth + noise, truth)
