"""Where the time of a measurement went, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["Stage", "stages"]


PREPARING = {"build": "build", "export": "export", "parity": "parity check"}


ON_DEVICE = {"push": "push", "load": "load", "warm": "warm-up", "measure": "measure"}


@dataclass(frozen=True)
class Stage:
    """Seconds of one stage over all networks. `colour` is the CSS variable of its part of the bar."""

    name: str
    lane: str
    colour: str
    seconds: float
    per_network_s: float
    """Median over the networks that have it."""
    share: float
    """Of the total of all stages."""


def stages(attempts: pd.DataFrame) -> list[Stage]:
    """Stages that took any time, failed attempts included.

    The rows may be of several runs, so none of this is a part of the wall clock of the last one.
    """
    spent = []
    for lane, names in (("export workers", PREPARING), ("device", ON_DEVICE)):
        for key, name in names.items():
            seconds = attempts[f"{key}_s"].dropna()
            total = float(seconds.sum())
            if total > 0:
                spent.append((name, lane, key, total, float(seconds.median())))
    everything = sum(total for *_, total, _ in spent)
    return [Stage(*one, share=one[3] / everything) for one in spent]
