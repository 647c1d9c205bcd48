"""Few-shot tasks to train on: source devices, synthetic devices and mixtures, each with a few noisy measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.in_context.encoding import Encoding, FloatTable
from latlab.predictors.synthetic.devices import synthesise
from latlab.predictors.synthetic.workload import workload_of
from latlab.search_spaces import SearchSpace

__all__ = ["Batch", "Tasks", "TasksSettings", "scale_of"]

PRIOR_LABELS = 4.0
"""Number of labels that the typical spread of the space counts for when a device's spread is estimated from few."""
RIDGE = 0.02
"""Penalty per label of the regression that estimates the latencies that a source device did not measure."""
NOISE = (0.005, 0.4)
"""Range of the standard deviation of a label's noise, as a share of the device's spread. It is log-uniform between that
of a GPU at a large batch size and that of a phone that rounds to milliseconds."""


@dataclass(frozen=True, slots=True)
class TasksSettings:
    """The settings of the tasks."""

    architectures: int = 3000
    """Number of architectures in all tasks together; those that source devices measured come first."""
    pool: int = 1024
    """Number of synthetic devices at a time."""
    source_share: float = 0.5
    """Share of the tasks that are about source devices, where there are any."""
    components: int = 32
    """Number of principal components in the encoding."""


class Batch(NamedTuple):
    """Tasks of one size; each field has shape (tasks, n + queries)."""

    rows: NDArray[np.intp]
    """Rows of the architectures in `Tasks.inputs`."""
    log_latency: FloatArray
    stderr: FloatArray
    """Standard deviation of a noise of known size that is not in `log_latency` yet; 0 for most tasks."""


def scale_of(log_latency: FloatArray, typical: float) -> FloatArray:
    """Return the spread of log-latencies (..., n) around their mean, shrunk towards the typical spread: (..., 1)."""
    squares = (log_latency - log_latency.mean(axis=-1, keepdims=True)) ** 2
    total = squares.sum(axis=-1, keepdims=True) + PRIOR_LABELS * typical**2
    return np.asarray(np.sqrt(total / (PRIOR_LABELS + log_latency.shape[-1] - 1)))


class Tasks:
    """The generator of tasks.

    The paper trains on real devices and on "synthetic hardware" that mixes them. Here a task's device is a source
    device, or a synthetic device of a roofline model (`synthetic.devices`), or a mixture of two, of latencies or of
    their logarithms. Then its log-latencies may be stretched or compressed, a smooth random function of the features is
    added, and noise, sometimes with heavy tails, sometimes of a known size.
    """

    def __init__(
        self, space: SearchSpace, sources: Sequence[SourceDevice], settings: TasksSettings, rng: np.random.Generator
    ) -> None:
        for source in sources:
            if len(source.genes) < 2:
                raise ValueError(f"source device {source.name} has fewer than two measurements: leave it out")
        self._settings = settings
        self.generator = rng
        """The generator that everything is drawn from."""
        genes = self._architectures(space, [source.genes for source in sources])
        self.encoding = Encoding.fitted(space, genes)
        plain = self.encoding.plain(genes)
        self._workload = workload_of(space, space.architectures(genes))
        self._pool = self._synthetic()
        self._sources = np.stack([self._complete(source, genes, plain) for source in sources]) if sources else None
        self.typical = float(np.median(self._pool.std(axis=1)))
        """Median spread of log-latency over synthetic devices."""
        # Sources count three times, but not more, so that the axes of the synthetic devices are not lost.
        known = self._pool if self._sources is None else np.concatenate([self._pool, *[self._sources] * 3])
        self.encoding.find_components(plain, known, settings.components)
        self._plain = plain.astype(np.float32)
        self.inputs: FloatTable = self.encoding.inputs(plain)
        """Inputs of the network for each architecture: (architectures, features)."""

    def _architectures(self, space: SearchSpace, measured: Sequence[IntArray]) -> IntArray:
        count = min(self._settings.architectures, space.size)
        drawn = space.genes(space.sample(count, int(self.generator.integers(2**31))))
        known = np.unique(np.concatenate(measured), axis=0) if measured else drawn[:0]
        if len(known) > count:
            known = known[np.sort(self.generator.choice(len(known), count, replace=False))]
        both = np.concatenate([known, drawn])
        first = np.unique(both, axis=0, return_index=True)[1]
        return both[np.sort(first)[:count]]

    def _complete(self, source: SourceDevice, genes: IntArray, plain: FloatArray) -> FloatArray:
        """Return centred log-latencies of a source device for `genes`: measured, or else by ridge regression."""
        try:
            y, _ = log_labels(source.genes, source.latency_ms)
        except ValueError as error:
            raise ValueError(f"source device {source.name}: {error}") from error
        x = self.encoding.plain(source.genes)
        mean_x, mean_y = x.mean(axis=0), y.mean()
        gram = (x - mean_x).T @ (x - mean_x) + RIDGE * len(x) * np.eye(x.shape[1])
        values = mean_y + (plain - mean_x) @ np.linalg.solve(gram, (x - mean_x).T @ (y - mean_y))
        measured = {gene.tobytes(): value for gene, value in zip(source.genes, y, strict=True)}
        values = np.array([measured.get(gene.tobytes(), value) for gene, value in zip(genes, values, strict=True)])
        return np.asarray(values - values.mean())

    def _synthetic(self) -> FloatArray:
        seed = int(self.generator.integers(2**31))
        values = np.log(synthesise(self._workload, self._settings.pool, seed).latency)
        return np.asarray(values - values.mean(axis=1, keepdims=True))

    @property
    def pool(self) -> FloatArray:
        """Log-latencies of the synthetic devices now, (devices, architectures); `refresh` changes them in place."""
        return self._pool

    def refresh(self) -> None:
        """Draw new synthetic devices."""
        self._pool[...] = self._synthetic()

    def normal(self, shape: tuple[int, ...]) -> FloatArray:
        """Draw standard normal numbers."""
        return self.generator.standard_normal(shape)

    def draw(self, tasks: int, total: int) -> Batch:
        """Draw `tasks` devices, each with `total` different architectures and their measured log-latencies."""
        rng = self.generator
        total = min(total, len(self.inputs))
        rows = np.stack([rng.choice(len(self.inputs), total, replace=False) for _ in range(tasks)])

        def chance(share: float) -> NDArray[np.bool_]:
            return np.asarray(rng.random((tasks, 1)) < share)

        def some(devices: FloatArray) -> FloatArray:
            return np.asarray(devices[rng.integers(len(devices), size=tasks)[:, None], rows])

        one, other = some(self._pool), some(self._pool)
        if self._sources is not None:
            real = chance(self._settings.source_share)
            one = np.where(real, some(self._sources), one)
            other = np.where(real & chance(0.5), some(self._sources), other)
        weight = rng.random((tasks, 1)) * chance(0.5)
        mixed = np.log((1 - weight) * np.exp(one) + weight * np.exp(other))
        y = np.where(chance(0.5), mixed, (1 - weight) * one + weight * other)
        y *= np.exp(0.3 * rng.standard_normal((tasks, 1)) * chance(0.5))
        spread = y.std(axis=1, keepdims=True)
        direction = rng.standard_normal((tasks, self._plain.shape[1])) / math.sqrt(self._plain.shape[1])
        smooth = np.einsum("ijk,ik->ij", self._plain[rows], direction.astype(np.float32))
        y += spread * rng.uniform(0, 0.15, (tasks, 1)) * smooth

        tails = rng.standard_t(4, y.shape) / math.sqrt(2)
        normal = rng.standard_normal(y.shape)
        low, high = np.log(NOISE)
        y += spread * np.exp(rng.uniform(low, high, (tasks, 1))) * np.where(chance(0.3), tails, normal)
        stderr = spread * np.exp(rng.uniform(low, high, y.shape)) * chance(0.3)
        return Batch(rows, y, stderr)
