"""Latency tables: predictions of a whole space as a data frame."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import pandas as pd

from latlab.predictors import Prediction
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["latency_table", "whole_space"]

WHOLE_UP_TO = 20_000
"""Greatest size of a finite space that is predicted whole."""
SAMPLE_OF_LARGER = 10_000
"""Number of random architectures that stand for a larger space."""


def whole_space(space: SearchSpace) -> list[Architecture]:
    """Return every architecture of a space, or a large random sample if the space is too large to list."""
    if space.finite and space.size <= WHOLE_UP_TO:
        return list(space.enumerate())
    return space.sample(SAMPLE_OF_LARGER, random.Random(0))


def latency_table(archs: Sequence[Architecture], prediction: Prediction, measured: Collection[str]) -> pd.DataFrame:
    """Return a table with one row per architecture: arch, latency_ms, std_ms, lower_ms, upper_ms (90 %), measured.

    Args:
        archs: n architectures.
        prediction: their predictions, in the same order.
        measured: canonical strings of the architectures that were measured.
    """
    return pd.DataFrame(
        {
            "arch": [arch.text for arch in archs],
            "latency_ms": prediction.mean_ms,
            "std_ms": prediction.std_ms,
            "lower_ms": prediction.lower_ms,
            "upper_ms": prediction.upper_ms,
            "measured": [arch.text in measured for arch in archs],
        }
    )
