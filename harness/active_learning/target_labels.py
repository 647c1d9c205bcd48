"""The labels of one target that predictors learn from: latencies, or another metric in their place."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from latlab.harness.errors import BadInputError
from latlab.harness.statistics.distribution import PERCENTILES
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import LATENCY, Status
from latlab.harness.telemetry.metrics import METRICS

__all__ = ["LATENCY", "MEMORY", "PREDICTED", "check_metric", "in_place_of_latency", "named_for", "target_labels"]

MEMORY = "peak_memory_mb"
PREDICTED = (LATENCY, *(name for name in METRICS if name != "file_bytes"), *PERCENTILES)
"""What can be predicted, by the names of the store's columns. The size of a file need not be: exporting tells it."""
_VALUES = {"latency_ms": "", "std_ms": "std", "lower_ms": "lower", "upper_ms": "upper", "measured_ms": "measured"}


def check_metric(metric: str) -> None:
    """Raise `BadInputError` if a metric is none that can be predicted."""
    if metric not in PREDICTED:
        raise BadInputError(f"{metric!r:.60} is no metric that is predicted", f"Choose one of: {', '.join(PREDICTED)}.")


def named_for(metric: str) -> dict[str, str]:
    """Return the columns of predictions whose names differ for a metric, with these names: `lower_mj` for energy."""
    if metric == LATENCY:
        return {}
    unit = metric.rpartition("_")[2]
    new = {old: f"{word}_{unit}" if word else metric for old, word in _VALUES.items()}
    return {**new, "stderr_ms": f"stderr_{unit}"}


def target_labels(store: Store, target: str, metric: str = LATENCY, more: Collection[str] = ()) -> pd.DataFrame:
    """Return the labels of a target: finished ones, and the provisional ones of networks that are being measured.

    Args:
        metric: what `latency_ms` is to hold instead. Rows without it, or whose value is not positive, are left out, and
            `stderr_ms` is not known then.
        more: columns besides `tables.LABELS`.

    Raises:
        BadInputError: the target has labels, and none of them has the metric; or no metric has that name.
    """
    check_metric(metric)
    rows = store.table(target=target, only=(*LABELS, *more, metric), provisional=True)
    rows = rows[rows["status"] == Status.OK]
    if metric == LATENCY or rows.empty:
        return rows
    found = in_place_of_latency(rows, metric)
    if found.empty:
        raise BadInputError(
            f"the store {store.path} has no {metric} of {target}, of none of its {len(rows)} measurements",
            f"It has: {', '.join(_metrics_of(store, target))}.",
        )
    return found


def in_place_of_latency(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows that have a metric, a column of theirs, with its values as `latency_ms`.

    Their `stderr_ms` is not known. For the latency itself the rows stay as they are.
    """
    if metric == LATENCY:
        return rows
    values = rows[metric].to_numpy(np.float64, na_value=np.nan)
    found: pd.DataFrame = rows.assign(latency_ms=values, stderr_ms=np.nan).loc[np.isfinite(values) & (values > 0)]
    return found


def _metrics_of(store: Store, target: str) -> list[str]:
    """Return the metrics that some label of a target has."""
    rows = store.table(target=target, only=PREDICTED)
    return [name for name in PREDICTED if rows[name].notna().any()]
