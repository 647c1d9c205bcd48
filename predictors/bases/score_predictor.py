"""Predictors that give a score, higher for slower networks, in any unit: this base class makes milliseconds of it.

A subclass says what the score is (`_scores`) and, where it learns from the support, how (`_fit`); it never sees
milliseconds, intervals, files or the choice of what to measure.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlab.predictors.base import Archs, FloatArray, IntArray, Prediction
from latlab.predictors.bases.ridge_planner import Planned
from latlab.predictors.common import serialization as files
from latlab.predictors.common.log_latency import log_labels
from latlab.predictors.common.score_to_latency import Line
from latlab.search_spaces import SearchSpace

__all__ = ["ScorePredictor"]

SAMPLE = 256
"""Architectures over which scores are standardised, so that folds whose scores differ in unit can be put together."""
SLOPE_WIDTH = 0.3
"""Prior deviation of the slope of scores that are log-latencies."""
OWN = ("genes", "log_latency", "label_variance", "z")
"""Names of the arrays that this class keeps; a subclass's state has others."""


class ScorePredictor(Planned):
    """Maps a score to latency by a robust Bayesian line with a positive slope (`line.Line`).

    Which networks are slower is the score's word alone. What to measure next is a planner's (`ridge`, fitted to the
    same support): an A-optimal choice needs covariances, which a score has not.
    """

    folds: ClassVar[int] = 0
    """Where `_fit` learns from the support, into how many parts it is cut so that the line is fitted to scores of
    architectures that the score has not seen; 0 where the score does not depend on the support."""

    is_log_latency: ClassVar[bool] = False
    """Whether a score is log-latency up to a constant, so that the line's slope should be about 1."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self._genes = space.genes([])
        self._log_latency = self._label_variance = np.empty(0)
        self._line = Line(np.empty(0), np.empty(0), np.empty(0))

    # What a subclass says.

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        """Learn the score from n labels (n >= 0), forgetting earlier ones and keeping what `pretrain` taught.

        Called several times in each `adapt`, last with the whole support. By default there is nothing to learn.
        """

    @abstractmethod
    def _scores(self, genes: IntArray) -> FloatArray:
        """Scores of shape (n,) of the architectures `genes` (n, genes): higher is slower. A linear relation with
        log-latency is best."""

    def _state(self) -> files.Arrays:
        """Arrays that `save` keeps beside the support, by name; `_restore` gets them back. By default none."""
        return {}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over what `_state` gave, as after `pretrain` and `_fit`."""

    # What a predictor does.

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
        """Standardised score of each label by a fit to other parts of the support; None where there is no need."""
        n = len(self._genes)
        parts = min(self.folds, n)
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
        """Of the line; with `folds`, the score of a label is that of a fit to the other parts of the support."""
        if len(self._genes) < 2:
            raise ValueError("leaving one out needs at least two measurements")
        return self._line.leave_one_out()

    def save(self, folder: Path) -> None:
        own = (self._genes, self._log_latency, self._label_variance, self._line.z)
        arrays = {**self._state(), **dict(zip(OWN, own, strict=True))}
        files.save(folder, self.name, self.space, arrays, {"seed": self.seed})

    @classmethod
    def load(cls, folder: Path, space: SearchSpace) -> Self:
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
