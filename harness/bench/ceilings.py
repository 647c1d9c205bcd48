"""Estimates of the best possible scores: a flexible fit to thousands of the target's samples, and the labels' noise.

The fit is a Gaussian process on the architecture's choices themselves, with the kernel exp(a * matches), where matches
counts the choices that two architectures share. It is a product over choices, so it contains all interactions, with
less weight for higher orders. It knows nothing of costs or other devices. Its width and noise minimise the
leave-one-out error on part of the samples (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
section 5.4.2).
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
"""The samples that the fit uses at most."""
TUNED_ON = 1000
"""The samples on which width and noise are tuned."""
WIDTHS = (0.1, 0.3, 1.0, 3.0)
"""Values to try for the kernel's a times the number of choices: from nearly linear to nearly a table."""
NOISES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values to try for the noise variance of a label, relative to the variance of the (log) latencies."""
MIN_REPEATED = 10
"""The fewest networks with repeated measurements that give a noise ceiling."""
NEAR = 100
"""A network's noise is drawn from the deviations of networks so many ranks slower or faster at most."""


@dataclass(frozen=True)
class Reference:
    """The scores of a fit to most of a device's labels, on the rest of them."""

    samples: int
    spearman: float
    mape_percent: float


def flexible_fit(table: LatencyTable, device: str, seed: int = 0, samples: int = SAMPLES) -> Reference:
    """Fit random architectures of `device`, and score the fit on all others.

    Args:
        table: the latencies.
        device: one of its columns.
        seed: draws the architectures.
        samples: how many to fit, at most 80 % of those measured.
    """
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
    """Return the kernel matrix, which is 1 for equal architectures.

    `a @ b` counts matches because nearly all choices are made in every architecture.
    """
    per_arch = max(float(a.sum(axis=1).max()), 1.0)
    different = (a.sum(axis=1)[:, None] + b.sum(axis=1)[None, :]) / 2 - a @ b.T
    return np.asarray(np.exp(-width / per_arch * different), dtype=np.float64)


def _tuned(choices: FloatArray, log_latency: FloatArray) -> tuple[float, float]:
    """Return the width and the noise with the least leave-one-out error."""
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
    """Return the flexible fit's scores and the noise ceiling of a task, averaged over its targets, for `--json`."""
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
    """Return the rank correlation that a perfect predictor would have with labels as noisy as these.

    Cells of NAS-Bench-201 that compute the same function by the same operations are repeated measurements of one
    network, so their deviations are the labels' noise. Other spaces have no such repetitions, and the result is NaN.
    The unknown true latencies are represented by the labels, shrunk to the spread that the truth must have.
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
    # A deviation from the mean of k labels is smaller than one from the truth, by the factor sqrt((k - 1) / k).
    deviations = np.concatenate([(one - one.mean()) * np.sqrt(len(one) / (len(one) - 1)) for one in repeated])
    levels = np.concatenate([np.full(len(one), one.mean()) for one in repeated])
    order = np.argsort(levels)
    # Fast networks are noisier, so each one gets the deviation of a network with a similar latency.
    rng = generator(seed, "noise", device)
    near = np.searchsorted(levels[order], log_latency) + rng.integers(-NEAR, NEAR, len(log_latency))
    noise = deviations[order[np.clip(near, 0, len(order) - 1)]]
    # The labels' variance is the truth's plus the noise's, so the truth spreads less than the labels.
    truth = log_latency * np.sqrt(max(1 - noise.var() / log_latency.var(), 0))
    return spearman(truth + noise, truth)
