"""The network's inputs for an architecture: analytic costs, choices, and the axes along which devices differ."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.cost_features import cost_features
from latlab.search_spaces import SearchSpace

__all__ = ["Encoding"]

FloatTable = NDArray[np.float32]

LIMIT = 6.0
"""Number of standard deviations at which a feature is cut off, so that no input is far from those of the training."""
RIDGE = 0.003
"""Penalty of the regression of the principal components on the features, per architecture."""
PLAIN = 0.3
"""Weight of the plain features relative to the components, to which they add only details."""


class Encoding:
    """A function from genes to inputs of the network.

    The plain features are the analytic costs of `cost_features.CostFeatures`, which stand for the paper's zero-cost
    proxies (they come from the same counts, need no data and rank latency better), and the one-hot choices, each
    standardised over a sample. Before them are principal components: the directions in which the log-latencies of the
    training devices vary, as linear functions of the plain features, weighted by the fourth root of their variance.
    They hold no information that the plain features lack, but without them the network spends most of its training on
    finding them.
    """

    def __init__(self, space: SearchSpace, centre: FloatArray, scale: FloatArray, components: FloatArray) -> None:
        self._space, self._centre, self._scale, self._components = space, centre, scale, components

    @classmethod
    def fitted(cls, space: SearchSpace, sample: IntArray) -> Self:
        """Return an encoding that is standardised over `sample` (m, genes) and has no components yet."""
        values = _raw(space, sample)
        scale = values.std(axis=0)
        constant = scale < 1e-9 * (1 + np.abs(values.mean(axis=0)))
        return cls(space, values.mean(axis=0), np.where(constant, 1.0, scale), np.zeros((values.shape[1], 0)))

    def plain(self, genes: IntArray) -> FloatArray:
        """Return the plain features of architectures: shape (len(genes), f)."""
        return np.asarray(np.clip((_raw(self._space, genes) - self._centre) / self._scale, -LIMIT, LIMIT))

    def find_components(self, plain: FloatArray, log_latency: FloatArray, count: int) -> None:
        """Find up to `count` components and add them to the inputs.

        Args:
            plain: plain features of m architectures, (m, f).
            log_latency: their log-latencies on the training devices, (devices, m).
        """
        count = min(count, *log_latency.shape)
        rows = log_latency - log_latency.mean(axis=1, keepdims=True)
        rows = rows / rows.std(axis=1, keepdims=True)
        squares, vectors = eigh(rows @ rows.T, subset_by_index=[len(rows) - count, len(rows) - 1])
        values, vectors = np.sqrt(np.maximum(squares[::-1], 1e-9 * squares[-1])), vectors[:, ::-1]
        axes = rows.T @ vectors / values * np.sqrt(len(plain))
        gram = plain.T @ plain + RIDGE * len(plain) * np.eye(plain.shape[1])
        self._components = np.linalg.solve(gram, plain.T @ axes) * np.sqrt(np.sqrt(values / values[0]))

    def inputs(self, plain: FloatArray) -> FloatTable:
        """Return the inputs of the network for plain features (m, f): shape (m, components + f)."""
        return np.concatenate([plain @ self._components, PLAIN * plain], axis=1).astype(np.float32)

    def __call__(self, genes: IntArray) -> FloatTable:
        """Return the inputs of the network for architectures: shape (len(genes), components + f)."""
        return self.inputs(self.plain(genes))

    @property
    def arrays(self) -> dict[str, FloatArray]:
        """The arrays from which `restored` makes the encoding again."""
        return {"centre": self._centre, "scale": self._scale, "components": self._components}

    @classmethod
    def restored(cls, space: SearchSpace, arrays: dict[str, FloatArray]) -> Self:
        """Return the encoding whose `arrays` these are.

        Raises:
            ValueError: the number of the space's features has changed since.
        """
        encoding = cls(space, arrays["centre"], arrays["scale"], arrays["components"])
        features = _raw(space, space.genes(space.sample(1, 0))).shape[1]
        if features != len(encoding._centre):
            raise ValueError(f"it has {len(encoding._centre)} features of {space.name}, this version has {features}")
        return encoding


def _raw(space: SearchSpace, genes: IntArray) -> FloatArray:
    return np.concatenate([*cost_features(space)(genes).values(), space.encode(genes, "one-hot")], axis=1)
