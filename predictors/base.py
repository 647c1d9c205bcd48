"""The contract that every predictor fulfils, built in or a user's own, and the values that it takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlab.predictors.training_log import FORGETFUL, TrainingLog
from latlab.search_spaces import Architecture, SearchSpace

__all__ = [
    "WIDEST",
    "Archs",
    "FloatArray",
    "IntArray",
    "LatencyFormula",
    "OtherSpace",
    "Prediction",
    "Predictor",
    "SourceDevice",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Archs = Sequence[Architecture] | IntArray
"""Architectures, as values or as their genes: an integer array of shape (n, genes), which is faster."""


WIDEST = 16.0
"""Largest variance of a log-latency: a factor of e^4 = 55 either way, beyond which nothing is known."""


GAUSSIAN = 1.6449
"""Standard deviations from the middle of a Gaussian to the ends of its central 90 % interval."""


@dataclass(frozen=True, slots=True)
class SourceDevice:
    """The labels of another device: latencies of m architectures, which need not be those of the other sources.

    The arrays are in the same order: `genes` of shape (m, genes), `latency_ms` and its standard errors `stderr_ms` of
    shape (m,).
    """

    name: str
    genes: IntArray
    latency_ms: FloatArray
    stderr_ms: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class OtherSpace:
    """Labels of the target itself in another search space, in the same order in all arrays.

    `genes` has shape (m, genes of that space); `latency_ms` and its standard errors `stderr_ms` have shape (m,).
    """

    space: SearchSpace
    genes: IntArray
    latency_ms: FloatArray
    stderr_ms: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latencies of n architectures in milliseconds, each field of shape (n,).

    The standard deviation `std_ms` and the central 90 % interval from `lower_ms` to `upper_ms` describe a new
    measurement: they include the uncertainty of the fit and the noise of a label.
    """

    mean_ms: FloatArray
    std_ms: FloatArray
    lower_ms: FloatArray
    upper_ms: FloatArray

    def widened(self, variance: float) -> Prediction:
        """Return the predictions with so much more variance of the log-latencies; their means stay.

        The interval keeps its shape: its ends move from its middle by the factor by which the deviation grows.
        """
        if variance <= 0:
            return self
        own = np.log1p((self.std_ms / self.mean_ms) ** 2)
        total = np.minimum(own + variance, WIDEST)
        low, high = np.log(self.lower_ms), np.log(self.upper_ms)
        middle, half = (low + high) / 2, (high - low) / 2
        # Predictions without any deviation get the interval of a Gaussian.
        grown = np.where(own > 0, half * np.sqrt(total / np.where(own > 0, own, 1)), GAUSSIAN * np.sqrt(total))
        grown = np.maximum(grown, half)
        std_ms = np.maximum(self.std_ms, self.mean_ms * np.sqrt(np.expm1(total)))
        return Prediction(self.mean_ms, std_ms, np.exp(middle - grown), np.exp(middle + grown))


@dataclass(frozen=True, slots=True)
class LatencyFormula:
    """A fitted predictor in closed form. With f = `SearchSpace.features` of a network, of shape (d,):

        e = max(f . table, least),  latency = factor * e,
        variance = calibration * (log(1 + f' covariance f / e^2) + noise + (absolute / latency)^2)

    where the variance is that of the log-latency, and the 90 % interval goes from latency / exp(h) to latency * exp(h)
    with h = half_width * sqrt(variance). `absolute` is in milliseconds: short networks have larger relative errors. The
    variance is at most `WIDEST`.
    """

    table: FloatArray
    covariance: FloatArray
    least: float
    factor: float
    noise: float
    absolute: float
    calibration: float
    half_width: float

    def predict(self, features: FloatArray) -> Prediction:
        """Return predictions for features of shape (n, d)."""
        expected = np.maximum(features @ self.table, self.least)
        quadratic = np.einsum("nd,nd->n", features @ self.covariance, features)
        # The variance in log of a log-normal with this relative variance; the two agree where they are small.
        of_table = np.log1p(np.maximum(quadratic, 0) / expected**2)
        latency = self.factor * expected
        variance = np.minimum(self.calibration * (of_table + self.noise + (self.absolute / latency) ** 2), WIDEST)
        width = np.exp(self.half_width * np.sqrt(variance))
        return Prediction(latency, latency * np.sqrt(np.expm1(variance)), latency / width, latency * width)


class Predictor(ABC):
    """A predictor of the latency of any architecture of one space, from a few measured ones.

    First `pretrain` it on source devices, or not at all; then `adapt` it to any number of target devices in turn. Each
    `adapt` starts from the pre-trained state. Everything random comes from `seed`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """A line that says what it is and where it comes from."""
    pretraining_lasts: ClassVar[bool] = False
    """True if `pretrain` trains for seconds or more, so that its result is worth keeping. Then `save` after `pretrain`
    keeps all that it learned: a predictor that `load` returns adapts as the saved one does."""

    training_log: TrainingLog = FORGETFUL
    """What `pretrain` reports its progress to, and leaves its unfinished state with. The default keeps nothing."""
    pretrains_quickly: ClassVar[bool] = False
    """Whether `pretrain` takes about a second at most, so that it may be repeated while labels of sources come in."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Learn from other devices and forget earlier sources and all adaptation. The default learns nothing."""
        self.adapt([], [])

    def use_blocks(self, latency_ms: Mapping[str, float]) -> None:  # noqa: B027  (to do nothing is the default)
        """Use latencies of single blocks of the space on the target, in ms by name (`search_spaces.blocks_of(space)`).

        The default ignores them. A predictor that uses them forgets its adaptation.
        """

    def use_other_spaces(self, others: Sequence[OtherSpace]) -> None:  # noqa: B027  (to do nothing is the default)
        """Use labels of the target in other search spaces instead of any that were given before.

        The default ignores them. A predictor that uses them forgets its adaptation, and says in `other_spaces` which.

        Raises:
            ValueError: a latency is not positive and finite, a standard error is negative, or lengths differ.
        """

    @property
    def other_spaces(self) -> Mapping[str, int]:
        """Number of labels that it uses of each other space, by the space's name; by default none."""
        return {}

    def wanted(self) -> tuple[Architecture, ...]:
        """Return the architectures that must be measured before any others and count in the budget; by default none."""
        return ()

    @abstractmethod
    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        """Fit to the measured architectures and forget earlier ones.

        Args:
            support: n measured architectures; n may be 0, which leaves the prior.
            latency_ms: their latencies in ms, all positive, shape (n,).
            stderr_ms: the standard errors of the latencies in ms, where known; a noisy label counts for less.

        Raises:
            ValueError: lengths differ, a latency is not positive and finite, a standard error is negative, or genes are
                of another space.
        """

    @abstractmethod
    def predict(self, archs: Archs) -> Prediction:
        """Predict the latencies of `archs`.

        Raises:
            ValueError: no label has been given to `adapt`, and without one the predictor knows no scale.
        """

    @abstractmethod
    def leave_one_out(self) -> Prediction:
        """Predict each measurement of the support from all the others.

        Raises:
            ValueError: the support has fewer than two measurements.
        """

    @abstractmethod
    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        """Return the posterior covariance of the noise-free log-latencies of `a` and `b`: shape (len(a), len(b)).

        `acquisition.choose` depends on it. Without any measurement it is the prior covariance.
        """

    def covariance_root(self, archs: Archs) -> FloatArray | None:
        """Return F of shape (n, k) such that F F' is the covariance of `archs`, by default None.

        Where k is small, choosing measurements is quick.
        """
        return None

    @property
    @abstractmethod
    def noise_variance(self) -> float:
        """Noise variance that one more label would have, in log-latency."""

    @property
    def stated_noise_variance(self) -> float:
        """The part of `noise_variance` that the standard errors of the labels state; by default 0, as if none did."""
        return 0.0

    def formula(self) -> LatencyFormula | None:
        """Return the predictor as a formula of `SearchSpace.features`; by default None, because it is none."""
        return None

    def remarks(self) -> tuple[str, ...]:
        """Return sentences about labels that cannot all be right, for the user; by default none."""
        return ()

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write the fitted predictor into `folder`, made where it is missing: safetensors and JSON, never pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: str | Path, space: SearchSpace) -> Self:
        """Return the predictor that `save` wrote.

        Raises:
            ValueError: the folder holds no predictor of `space`, or one that this version cannot read; the message
                then says to fit the predictor again.
        """
