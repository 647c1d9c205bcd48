"""The simplest predictors, which every other one must beat.

The scores of `flops`, `params` and `kernels` are total costs of a network; those of `source-mean` and `stacking`
combine its latencies on source devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_totals import totals
from latlab.predictors.common.ridge_regression import label_weights, ridge
from latlab.predictors.common.source_models import SourceTables
from latlab.search_spaces import SearchSpace

__all__ = ["Flops", "Kernels", "Params", "SourceMean", "Stacking"]


class _Total(ScorePredictor):
    """A predictor whose score is the logarithm of one total cost."""

    cost: ClassVar[str]
    """A name in `cost_totals.COSTS`."""

    def _scores(self, genes: IntArray) -> FloatArray:
        return np.log(totals(self.space)(genes, self.cost)[:, 0])


class Flops(_Total):
    """A predictor by the number of multiply-accumulates."""

    name = "flops"
    title = "Multiply-accumulates; no source devices"
    cost = "macs"


class Params(_Total):
    """A predictor by the number of learned parameters."""

    name = "params"
    title = "Parameters; no source devices"
    cost = "params"


class Kernels(_Total):
    """A predictor by the number of operators that the network as written executes."""

    name = "kernels"
    title = "Number of executed operators; no source devices"
    cost = "operators"


class _FromSources(ScorePredictor):
    """A predictor from latencies on the source devices, by a table fitted to each. Without sources it is `flops`."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._tables = SourceTables(space)

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        self._tables.fit(sources)
        super().pretrain(sources)

    def _state(self) -> files.Arrays:
        return self._tables.state()

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._tables.restore(arrays)


class SourceMean(_FromSources):
    """A predictor by the mean of the source devices' log-latencies, each standardised."""

    name = "source-mean"
    title = "Mean of the source devices, each by a table fitted to it"

    def _scores(self, genes: IntArray) -> FloatArray:
        return np.asarray(self._tables(genes).mean(axis=1))


class Stacking(_FromSources):
    """A predictor by the combination of the source devices that fits the support best.

    log t = a + b m + sum_s d_s (f_s - m), with f_s the log-latency of source s and m the mean over the sources, is
    fitted by ridge regression whose penalty is chosen by leaving one out. So with few labels the prediction stays near
    the mean, and many labels choose among the sources (Breiman, Stacked Regressions, 1996). Weights may be negative,
    because a target outside of the span of the sources is a difference of sources.
    """

    name = "stacking"
    title = "Ridge combination of the source devices, each by a table fitted to it"
    folds = 5

    MEAN_WEIGHT = 5.0
    """Factor on the column of the mean, so that its weight is penalised less than those of the differences."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._weights = np.empty(0)

    def _design(self, genes: IntArray) -> FloatArray:
        sources = self._tables(genes)
        mean = sources.mean(axis=1, keepdims=True)
        return np.hstack([self.MEAN_WEIGHT * mean, sources - mean])

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        design = self._design(genes)
        self._weights = ridge(design, log_latency, label_weights(label_variance)).coefficients
        if not self._weights.any():  # with fewer than three labels `ridge` returns zeros: then the mean is the score
            self._weights[0] = 1.0

    def _scores(self, genes: IntArray) -> FloatArray:
        return np.asarray(self._design(genes) @ self._weights)

    def _state(self) -> files.Arrays:
        return {**super()._state(), "weights": self._weights}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        super()._restore(arrays)
        self._weights = arrays["weights"]
