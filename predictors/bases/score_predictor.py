"""A base class for predictors that compute a score, higher for slower networks, in any unit.

A subclass computes the score (`_scores`) and, where the score is learned from the support, fits it (`_fit`). This class
turns scores into milliseconds and intervals, writes files and provides covariances.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlab.predictors.base import Archs, FloatArray, IntArray, Prediction
from latlab.predictors.bases.ridge_planner import RidgePlanned
from latlab.predictors.common import serialization as files
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.common.score_to_latency import Line
from latlab.search_spaces import SearchSpace

__all__ = ["ScorePredictor"]

SAMPLE = 256
"""Number of architectures over which scores are standardised, so that scores of different folds can be joined."""
MANY = 400
"""Number of labels above which two folds are enough, because half of the labels then teach nearly what all do."""
SLOPE_WIDTH = 0.3
"""Prior standard deviation of the slope, around 1, for scores that are log-latencies."""
OWN = ("genes", "log_latency", "label_variance", "z")
"""Names of the saved arrays of this class; those of a subclass have other names."""


class ScorePredictor(RidgePlanned):
    """A predictor that maps a score to latency by a robust Bayesian line with a positive slope (`Line`).

    So the score alone determines the order of the predictions. A score has no covariances; those of `ridge`, fitted to
    the same support, are used to choose what to measure.
    """

    folds: ClassVar[int] = 0
    """Number of folds of the support where `_fit` learns from it, so that the line is fitted to scores of architectures
    that the score was not fitted to; 0 where the score does not depend on the support."""

    is_log_latency: ClassVar[bool] = False
    """True where a score is log-latency up to a constant, so that the line's slope should be about 1."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._genes = space.genes([])
        self._log_latency = self._label_variance = np.empty(0)
        self._line = Line(np.empty(0), np.empty(0), np.empty(0))

    # Methods that a subclass overrides.

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        """Fit the score to n labels (n >= 0); forget earlier labels and keep what `pretrain` learned.

        Each `adapt` calls it once per fold, and last with the whole support. The default learns nothing.
        """

    @abstractmethod
    def _scores(self, genes: IntArray) -> FloatArray:
        """Return scores (n,) of architectures `genes` (n, genes), higher for slower ones.

        Predictions are best where scores are linear in log-latency.
        """

    def _state(self) -> files.Arrays:
        """Return the arrays that `save` writes in addition to the support, by name, for `_restore`; by default none."""
        return {}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Set the state that `_state` returned, so that it is as after `pretrain` and `_fit`."""

    # The contract of `Predictor`.

    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        self._log_latency, self._label_variance = log_labels(support, latency_ms, stderr_ms)
        self._genes = self.space.genes(support)
        self._new_support()
        z = self._unseen_scores()
        self._fit(self._genes, self._log_latency, self._label_variance)
        if not len(self._genes):  # nothing to predict yet, and perhaps nothing learned
            z = np.empty(0)
        else:
            self._standardise()
        if z is None:
            z = self._standard_scores(self._genes)
        self._line = self._fitted_line(z)

    def _fitted_line(self, z: FloatArray) -> Line:
        if not (self.is_log_latency and len(z)):
            return Line(z, self._log_latency, self._label_variance)
        return Line(z, self._log_latency, self._label_variance, self._scale, SLOPE_WIDTH * self._scale)

    def _unseen_scores(self) -> FloatArray | None:
        """Return the standardised score of each label by a fit to the other folds; None where there are no folds."""
        n = len(self._genes)
        parts = min(self.folds if n <= MANY else min(self.folds, 2), n)
        if parts < 2:
            return None
        z = np.empty(n)
        part = np.random.default_rng(self.seed).permutation(n) % parts
        for number in range(parts):
            kept, left = part != number, part == number
            self._fit(self._genes[kept], self._log_latency[kept], self._label_variance[kept])
            self._standardise()
            z[left] = self._standard_scores(self._genes[left])
        return z

    def _standardise(self) -> None:
        scores = self._scores(self._sample)
        self._centre, self._scale = float(scores.mean()), float(scores.std()) or 1.0

    @cached_property
    def _sample(self) -> IntArray:
        return self.space.genes(self.space.sample(min(SAMPLE, self.space.size), 0))

    def _standard_scores(self, genes: IntArray) -> FloatArray:
        return (np.asarray(self._scores(genes), dtype=np.float64) - self._centre) / self._scale

    def predict(self, archs: Archs) -> Prediction:
        if not len(self._genes):
            raise ValueError("nothing has been measured yet, so there is no scale: call adapt first")
        return self._line.predict(self._standard_scores(self.space.genes(archs)))

    def leave_one_out(self) -> Prediction:
        """Predict each label by the line through the others; with `folds`, its score is a fit to the other folds."""
        if len(self._genes) < 2:
            raise ValueError("leaving one out needs at least two measurements")
        return self._line.leave_one_out()

    def save(self, folder: str | Path) -> None:
        own = (self._genes, self._log_latency, self._label_variance, self._line.z)
        arrays = {**self._state(), **dict(zip(OWN, own, strict=True))}
        files.save(folder, self.name, self.space, arrays, {"seed": self.seed})

    @classmethod
    def load(cls, folder: str | Path, space: SearchSpace) -> Self:
        arrays, facts = files.load(folder, cls.name, space)
        with files.restoring(folder):
            predictor = cls(space, seed=int(facts["seed"]))
            genes, log_latency, label_variance, z = (arrays.pop(name) for name in OWN)
            predictor._genes, predictor._log_latency, predictor._label_variance = genes, log_latency, label_variance
            predictor._restore(arrays)
            if len(genes):
                predictor._standardise()
            predictor._line = predictor._fitted_line(z)
        return predictor
