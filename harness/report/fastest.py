"""The networks that a predictor expects to be the fastest of a space."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from latlab.harness.active_learning.latency_table import fastest, scope_in_words
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["MOST", "fastest_networks"]

MOST = 10
"""The most networks that are listed."""


def fastest_networks(
    table: pd.DataFrame, space: SearchSpace, view: Callable[[Architecture], Architecture]
) -> tuple[pd.DataFrame, str]:
    """Return the `MOST` networks with the shortest predicted latency, and a sentence that says of how many.

    Strings that are the same network for the predictor are listed once: as the one that was measured, or else as the
    predictor sees it.

    Args:
        table: predictions of a whole space, or of a sample of it and all that was measured (`latency_table.COLUMNS`).
        space: the space.
        view: returns an architecture in the form that the predictor sees (`NetworkView`).

    Returns:
        A frame with the columns `FASTEST_COLUMNS` of `ReportData`, the fastest first, and the sentence.
    """
    rows, alike = fastest(table, space, view, MOST)
    rows = rows.rename(columns={"latency_ms": "predicted_ms"})
    chosen = rows[["arch", "predicted_ms", "lower_ms", "upper_ms", "measured_ms", "stderr_ms"]]
    best = "The fastest" if len(chosen) == 1 else f"The {len(chosen)} fastest"
    return chosen, f"{best} of {scope_in_words(space, table)}.{_ALIKE if alike else ''}"


_ALIKE = " Strings that mean the same network are listed once."
