"""A base class for predictors without covariances, which the choice of measurements (`acquisition`) needs."""

from __future__ import annotations

from functools import cached_property

from latlab.predictors.base import Archs, FloatArray, IntArray, Predictor
from latlab.predictors.common.log_latency import from_log
from latlab.predictors.ridge import Ridge

__all__ = ["RidgePlanned"]


class RidgePlanned(Predictor):
    """A predictor whose covariances are those of `ridge`, which is fitted to the same support when they are needed."""

    _genes: IntArray
    _log_latency: FloatArray
    _label_variance: FloatArray

    def _new_support(self) -> None:
        """Drop the planner, whose fit is out of date. Every `adapt` must call this."""
        self.__dict__.pop("_planner", None)

    @cached_property
    def _planner(self) -> Predictor:
        planner = Ridge(self.space, seed=self.seed)
        planner.adapt(self._genes, *from_log(self._log_latency, self._label_variance))
        return planner

    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        """Return the posterior covariance of `ridge` fitted to the same support: shape (len(a), len(b))."""
        return self._planner.covariance(a, b)

    @property
    def noise_variance(self) -> float:
        return self._planner.noise_variance
