"""Predictors of latency: fitted to a few measurements of a device, they predict a whole search space.

A predictor is a subclass of `base.Predictor`, registered under the entry-point group `latlab.predictors`. Its module is
imported by `create` only, so that predictors that need torch cost nothing where others are used.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from latlab.predictors.base import Archs, IntArray, LatencyFormula, OtherSpace, Prediction, Predictor, SourceDevice
from latlab.predictors.common.kept import keep_in
from latlab.search_spaces import SearchSpace

__all__ = [
    "DEFAULT",
    "Archs",
    "IntArray",
    "LatencyFormula",
    "OtherSpace",
    "Prediction",
    "Predictor",
    "SourceDevice",
    "UnknownPredictorError",
    "create",
    "keep_in",
    "names",
    "predictor_class",
]

DEFAULT = "roost"


class UnknownPredictorError(ValueError):
    """The error for a name that no installed predictor has; its message lists the installed ones."""


def names() -> tuple[str, ...]:
    """Return the names of the installed predictors (entry points of the group `latlab.predictors`), sorted."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.predictors")}))


def create(name: str, space: SearchSpace, *, seed: int = 0, **options: Any) -> Predictor:
    """Create the predictor called `name` for `space`.

    Args:
        seed: seed of everything random in the predictor.
        options: further arguments of its constructor.

    Raises:
        UnknownPredictorError: no installed predictor has that name, or its package is broken.
    """
    return predictor_class(name)(space, seed=seed, **options)


def predictor_class(name: str) -> type[Predictor]:
    """Return the class of the predictor called `name`.

    Raises:
        UnknownPredictorError: no installed predictor has that name, or its package is broken.
    """
    for point in entry_points(group="latlab.predictors", name=name):
        try:
            kind: type[Predictor] = point.load()
        except Exception as error:  # whatever a package of somebody else raises
            raise UnknownPredictorError(
                f"the predictor {name!r} cannot be loaded from {point.value}: {error}"
            ) from error
        return kind
    raise UnknownPredictorError(f"unknown predictor {name!r}; installed are: {', '.join(names())}")
