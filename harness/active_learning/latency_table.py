"""Latency tables: predictions of a whole space as a data frame."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import pandas as pd

from latlab.predictors import Prediction
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["latency_table", "whole_space"]

WHOLE_UP_TO = 20_000
"""Finite spaces up to this size are predicted whole."""
SAMPLE_OF_LARGER = 10_000


def whole_space(space: SearchSpace) -> list[Architecture]:
    """Every architecture, or a large random sample of a space that is too large to list."""
    if space.finite and space.size <= WHOLE_UP_TO:
        return list(space.enumerate())
    return space.sample(SAMPLE_OF_LARGER, random.Random(0))


def latency_table(archs: Sequence[Architecture], prediction: Prediction, measured: Collection[str]) -> pd.DataFrame:
    """One row per architecture: arch, latency_ms, std_ms, lower_ms, upper_ms (90 %), measured."""
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
