"""The seconds that each stage of measuring took."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["Stage", "stages"]


PREPARING = {"build": "build", "export": "export", "parity": "parity check"}
"""Stages of the export workers, by their column without `_s`, and what they are called."""
ON_DEVICE = {"push": "push", "load": "load", "warm": "warm-up", "measure": "measure"}
"""Stages on the device, likewise."""


@dataclass(frozen=True)
class Stage:
    """One stage of measuring and the time that it took."""

    name: str
    lane: str
    """Where it runs: `export workers` or `device`."""
    colour: str
    """The CSS variable of its part of the bar."""
    seconds: float
    """Total seconds over all networks."""
    per_network_s: float
    """Median seconds over the networks that went through it."""
    share: float
    """Share of the seconds of all stages."""


def stages(attempts: pd.DataFrame) -> list[Stage]:
    """Return the stages that took any time, failed attempts included.

    The rows may come from several runs of the command, so that these seconds are no part of the last run's wall clock.

    Args:
        attempts: a row per measurement, with a column `<stage>_s` for each stage (NaN where it did not run).
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
