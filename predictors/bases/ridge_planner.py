"""What predictors without covariances of their own choose by: an A-optimal design needs them."""

from __future__ import annotations

from functools import cached_property

from latlab.predictors.base import Archs, FloatArray, IntArray, Predictor
from latlab.predictors.common.log_latency import from_log
from latlab.predictors.ridge import Ridge

__all__ = ["Planned"]


class Planned(Predictor):
    """Leaves the choice of what to measure next to a planner: `ridge`, fitted to the same support when it is asked."""

    _genes: IntArray
    _log_latency: FloatArray
    _label_variance: FloatArray

    def _new_support(self) -> None:
        """The planner's fit is of no use any more: to be called by `adapt`."""
        self.__dict__.pop("_planner", None)

    @cached_property
    def _planner(self) -> Predictor:
        planner = Ridge(self.space, seed=self.seed)
        planner.adapt(self._genes, *from_log(self._log_latency, self._label_variance))
        return planner

    def covariance(self, a: Archs, b: Archs) -> FloatArray:
        """Of `ridge`, fitted to the same support."""
        return self._planner.covariance(a, b)

    @property
    def noise_variance(self) -> float:
        return self._planner.noise_variance
