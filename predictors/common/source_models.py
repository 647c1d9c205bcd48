"""Regressions fitted to source devices, which estimate the latencies of architectures that a source did not measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.common.cost_totals import totals
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.common.ridge_regression import label_weights, ridge
from latlab.search_spaces import SearchSpace

__all__ = ["SourceTables"]

SAMPLE = 512
"""Number of architectures over which each source is standardised."""


class SourceTables:
    """Estimated log-latencies of the source devices of a space, each by ridge regression on costs and one-hot choices.

    The devices need not have measured the same architectures.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._coefficients = np.empty((0, 0))
        self._intercepts = np.empty(0)

    def fit(self, sources: Sequence[SourceDevice]) -> None:
        """Fit to these sources, possibly none, and forget earlier ones."""
        fits = []
        for source in sources:
            labels, variance = log_labels(source.genes, source.latency_ms, source.stderr_ms)
            fits.append(ridge(self._design(source.genes), labels, label_weights(variance), rounds=2))
        self._coefficients, self._intercepts = np.empty((0, 0)), np.empty(0)
        if not fits:
            return
        self._coefficients = np.stack([fit.coefficients for fit in fits], axis=1)
        self._intercepts = np.array([fit.intercept for fit in fits])
        space = self._space
        over = self(space.genes(space.sample(min(SAMPLE, space.size), 0)))
        scale = np.where(over.std(axis=0) > 0, over.std(axis=0), 1.0)
        self._coefficients /= scale
        self._intercepts = (self._intercepts - over.mean(axis=0)) / scale

    def __call__(self, genes: IntArray) -> FloatArray:
        """Return log-latencies on each source, of mean 0 and standard deviation 1 over the space: shape (n, sources).

        Without sources there is one column, the logarithm of the multiply-accumulates.
        """
        if not len(self._intercepts):
            return np.log(totals(self._space)(genes, "macs"))
        return np.asarray(self._design(genes) @ self._coefficients + self._intercepts)

    def _design(self, genes: IntArray) -> FloatArray:
        """Return the design of the regressions, shape (n, features); each group of columns has variance about 1."""
        choices = self._space.encode(genes, "one-hot") / np.sqrt(self._space.num_genes)
        return np.hstack([*cost_features(self._space)(genes).values(), choices])

    def state(self) -> files.Arrays:
        """Return the arrays that `restore` takes."""
        return {"source_coefficients": self._coefficients, "source_intercepts": self._intercepts}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Set the regressions to those of `state`."""
        self._coefficients, self._intercepts = arrays["source_coefficients"], arrays["source_intercepts"]
