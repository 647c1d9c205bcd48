"""What a predictor is: the contract that each one, built in or a user's own, fulfils."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Archs", "FloatArray", "IntArray", "Prediction", "Predictor", "SourceDevice"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Archs = Sequence[Architecture] | IntArray
"""Architectures, as values or as their genes: an integer array of shape (n, genes), which is the fast way."""


@dataclass(frozen=True, slots=True)
class SourceDevice:
    """What is known of another device: latencies of m architectures, which need not be those of the other sources.

    Its arrays are in the same order: `genes` of shape (m, genes), `latency_ms` and `stderr_ms` of shape (m,).
    """

    name: str
    genes: IntArray
    latency_ms: FloatArray
    stderr_ms: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted latencies of n architectures in milliseconds, each field of shape (n,).

    `std_ms` and the central 90 % interval are of a new measurement: they hold the uncertainty of the
    fit and the noise of a label.
    """

    mean_ms: FloatArray
    std_ms: FloatArray
    lower_ms: FloatArray
    upper_ms: FloatArray


class Predictor(ABC):
    """Predicts the latency of any architecture of one space from a few measured ones.

    Life: `pretrain` on source devices (or not at all), then `adapt` to as many target devices as one likes, each
    `adapt` from the pre-trained state. Whatever chance is involved comes from `seed`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """One line: what it is and where it comes from."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Learn from other devices, forgetting earlier ones and all adaptation. By default: nothing to learn."""
        self.adapt([], [])

    def use_blocks(self, latency_ms: Mapping[str, float]) -> None:  # noqa: B027  (to do nothing is the default)
        """Take what single blocks of the space took on the target itself, by name (`search_spaces.blocks_of(space)`).

        A predictor that has no use for them does nothing, as by default; others forget their adaptation.
        """

    def wanted(self) -> tuple[Architecture, ...]:
        """Architectures that must be measured before any other (they count in the budget). By default none."""
        return ()

    @abstractmethod
    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        """Fit to the measured architectures, forgetting earlier ones.

        Args:
            support: n measured architectures; n may be 0, which leaves the prior.
            latency_ms: their latencies, all positive.
            stderr_ms: standard errors of these, where known: a noisy label counts for less.
        """

    @abstractmethod
    def predict(self, archs: Archs) -> Prediction:
        """Predict `archs`. Needs `adapt` with at least one measurement (there is no scale without one)."""

    @abstractmethod
    def leave_one_out(self) -> Prediction:
        """Each measurement of the support predicted from all the others."""

    @abstractmethod
    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        """Posterior covariance of the noise-free log-latencies of `a` and `b`: shape (len(a), len(b)).

        Acquisition lives on this; without any measurement it is the prior's.
        """

    @property
    @abstractmethod
    def noise_variance(self) -> float:
        """Variance that one more label would have, in log-latency."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the fitted predictor into `folder` (made where missing): safetensors and JSON, no pickle."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, space: SearchSpace) -> Self:
        """The predictor that `save` wrote. Raises `ValueError` when the folder holds none of `space`."""
