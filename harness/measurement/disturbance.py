"""Honest words on a busy machine: how many labels are disturbed, what that does to ranks, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from latlab.harness.statistics.reliability import ceiling
from latlab.harness.store.vocabulary import Status
from latlab.harness.text import fine_correlation

__all__ = ["Disturbance", "disturbances"]

MOST = 0.5
"""Share of the labels that must be disturbed for the result to begin with it."""
RANKED = 5
"""Fewest networks of whose ranks something is said."""
DISTURBED = "disturbed"


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A target most of whose labels were disturbed by what else ran on the device."""

    target: str
    disturbed: int
    """Number of labels with the verdict `disturbed`."""
    labels: int
    retest: float
    """Spearman correlation that a second measurement is expected to have with this one, by the error bars; NaN if there
    are too few networks. Differences from one session to the next would lower it further."""
    ceiling: float
    """Spearman correlation with the truth, at most."""

    @property
    def sentence(self) -> str:
        """The finding, its consequence for ranks, and what to do, as plain text."""
        device = self.target.partition("/")[0]
        busy = f"Something else uses {device}: {self.disturbed} of {self.labels} labels are disturbed."
        ranks = ""
        if math.isfinite(self.retest):
            ranks = (
                f" By their error bars, the same networks measured again would agree to a rank correlation of "
                f"{fine_correlation(self.retest)} at most, and these ranks with the true ones to "
                f"{fine_correlation(self.ceiling)}."
            )
        return (
            f"{busy}{ranks} To do: end what else runs there (`latlab doctor {device}` shows the load), then measure "
            "again with --new-session; to tell two networks apart all the same, `latlab compare` takes turns."
        )


def disturbances(rows: pd.DataFrame) -> tuple[Disturbance, ...]:
    """Return the targets most of whose labels were disturbed.

    Args:
        rows: as `Store.table` returns them; of several spaces, each is ranked within the target as a whole.
    """
    found = []
    good = rows[(rows["status"] == Status.OK) & (rows["latency_ms"] > 0)]
    for target, own in good.groupby("target", sort=False):
        disturbed = int((own["verdict"] == DISTURBED).sum())
        if disturbed <= MOST * len(own):
            continue
        own = own.drop_duplicates("arch", keep="last")
        known = own.dropna(subset=["stderr_ms"])
        ranked = (
            ceiling(known["latency_ms"], known["stderr_ms"] / known["latency_ms"]) if len(known) >= RANKED else None
        )
        found.append(
            Disturbance(
                str(target),
                disturbed,
                len(good[good["target"] == target]),
                ranked.retest if ranked else math.nan,
                ranked.spearman if ranked else math.nan,
            )
        )
    return tuple(found)
