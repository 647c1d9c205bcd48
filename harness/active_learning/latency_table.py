"""Latency tables: predictions of a whole space as a data frame."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from latlab.harness.store.vocabulary import Selection, Status
from latlab.predictors import Prediction
from latlab.search_spaces import Architecture, SearchSpace

__all__ = [
    "COLUMNS",
    "MeasuredLatency",
    "fastest",
    "latency_table",
    "measured_latencies",
    "scope_in_words",
    "whole_space",
    "with_measured",
]

COLUMNS = ("arch", "latency_ms", "std_ms", "lower_ms", "upper_ms", "measured", "measured_ms", "stderr_ms")
"""The architecture; its predicted latency, standard deviation and 90 % interval; whether it was measured, and then its
label with the standard error."""

WHOLE_UP_TO = 20_000
"""Greatest size of a finite space that is predicted whole."""
SAMPLE_OF_LARGER = 10_000
"""Number of random architectures that stand for a larger space."""


class MeasuredLatency(NamedTuple):
    """A label: milliseconds, and their standard error where it is known."""

    latency_ms: float
    stderr_ms: float | None


def whole_space(space: SearchSpace) -> list[Architecture]:
    """Return every architecture of a space, or a large random sample if the space is too large to list."""
    if space.finite and space.size <= WHOLE_UP_TO:
        return list(space.enumerate())
    return space.sample(SAMPLE_OF_LARGER, random.Random(0))


def with_measured(space: SearchSpace, archs: Sequence[Architecture], measured: Collection[str]) -> list[Architecture]:
    """Return the architectures, and after them those that were measured and are not among them.

    Args:
        archs: of `space`, such as `whole_space` returns.
        measured: canonical strings.
    """
    listed = {arch.text for arch in archs}
    return [*archs, *(space.parse(text) for text in measured if text not in listed)]


def latency_table(
    archs: Sequence[Architecture], prediction: Prediction, measured: Mapping[str, MeasuredLatency]
) -> pd.DataFrame:
    """Return a table with one row per architecture, by `COLUMNS`.

    Args:
        archs: n architectures.
        prediction: their predictions, in the same order.
        measured: the labels of those that were measured, by canonical string.
    """
    labels = [measured.get(arch.text) for arch in archs]
    return pd.DataFrame(
        {
            "arch": [arch.text for arch in archs],
            "latency_ms": prediction.mean_ms,
            "std_ms": prediction.std_ms,
            "lower_ms": prediction.lower_ms,
            "upper_ms": prediction.upper_ms,
            "measured": [label is not None for label in labels],
            "measured_ms": np.array([None if label is None else label.latency_ms for label in labels], dtype=float),
            "stderr_ms": np.array([None if label is None else label.stderr_ms for label in labels], dtype=float),
        }
    )


def fastest(
    table: pd.DataFrame,
    space: SearchSpace,
    view: Callable[[Architecture], Architecture],
    most: int,
    by: str = "latency_ms",
) -> tuple[pd.DataFrame, bool]:
    """Return the rows of the networks with the shortest predicted latency, and whether strings were left out.

    Strings that are the same network for the predictor are listed once: as the one that was measured, or else as the
    predictor sees it.

    Args:
        table: a latency table.
        space: its space.
        view: returns an architecture in the form that the predictor sees.
        most: the most networks to return.
        by: the column that says which are first, in a table of another metric.
    """
    labels = table[table["measured"].astype(bool)] if "measured" in table else table[:0]
    measured: dict[Architecture, str] = {}
    for arch in labels["arch"]:
        measured.setdefault(view(space.parse(arch)), arch)
    listed = set(table["arch"])
    found: dict[Architecture, str] = {}
    alike = False
    for arch in table.sort_values([by, "arch"], kind="stable")["arch"]:
        network = view(space.parse(arch))
        if network in found:
            alike = True
        elif len(found) == most:
            break
        else:
            found[network] = measured.get(network, network.text if network.text in listed else arch)
    return table.drop_duplicates("arch").set_index("arch").loc[list(found.values())].reset_index(), alike


def measured_latencies(rows: pd.DataFrame) -> dict[str, MeasuredLatency]:
    """Return the labels of a target's rows (`Store.table`), by architecture.

    Of networks that were measured several times the mean counts, with the standard error of a mean. A label that the
    user has imported counts only where latlab has not measured the network itself, as for predictors (`comparable`).
    """
    good = rows[rows["status"] == Status.OK]
    imported = good["selection"] == Selection.IMPORTED
    good = good[~imported | ~good["arch"].isin(good.loc[~imported, "arch"])]
    variances = good["stderr_ms"].astype(float) ** 2
    groups, of_variances = good.groupby("arch", sort=False), variances.groupby(good["arch"], sort=False)
    known = of_variances.count() == groups.size()
    errors = (of_variances.sum() ** 0.5 / groups.size()).where(known)
    return {
        str(arch): MeasuredLatency(ms, None if np.isnan(error) else error)
        for arch, ms, error in zip(errors.index, groups["latency_ms"].mean().tolist(), errors.tolist(), strict=True)
    }


def scope_in_words(space: SearchSpace, table: pd.DataFrame) -> str:
    """Return what part of its space a latency table holds.

    For example `10,025 of the space's 9.8e20 networks, among them all 25 measured`.
    """
    size = f"{space.size:,}" if space.size < 1e6 else f"{space.size:.2g}".replace("e+", "e")
    measured = int(table["measured"].sum()) if "measured" in table else 0
    if len(table) == space.size:
        return f"all {size} networks of the space" + (f", {measured:,} of them measured" if measured else "")
    labels = f", among them all {measured:,} measured" if measured else ""
    return f"{len(table):,} of the space's {size} networks{labels}"
