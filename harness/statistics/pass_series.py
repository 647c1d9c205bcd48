"""The runs of a session, anchors' and networks', on one clock, each with its latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from latlab.harness.statistics.drift import Point
from latlab.harness.statistics.estimators import trimmed_mean, winsorised_stderr
from latlab.harness.store.store import Anchor, Pass

__all__ = ["Run", "timeline"]

LEAST_SIGMA = 1e-3
"""Relative standard error of a pass: what samples that agree by luck say is not believed."""
LONE_SIGMA = 0.02
"""Of a pass of one sample."""
RESTART_S = 1.0
"""A steady clock that goes back by more has begun anew: the device was restarted."""


class Run(NamedTuple):
    """One pass of a network, or of an anchor."""

    time_s: float
    """Since the first run, on the device's steady clock where it tells, over its restarts carried on by the date."""
    point: Point
    """Its network is a row's id, or an anchor's architecture."""
    what: Pass | Anchor


def timeline(rows: Sequence[Pass | Anchor], trim: float) -> list[Run]:
    """Runs in the order in which they were taken. Those without samples are left out.

    Args:
        trim: share of a run's samples cut at each end for its latency.
    """
    found: list[Run] = []
    offset_s = last_s = 0.0
    last_wall_s: float | None = None
    for row in sorted((row for row in rows if row.samples_ns), key=lambda row: row.at):
        wall_s = datetime.fromisoformat(row.at).timestamp()
        told = row.telemetry.get("at_s")
        clock_s = float(told) if isinstance(told, (int, float)) else wall_s
        if last_wall_s is None:
            offset_s = -clock_s
        elif clock_s + offset_s < last_s - RESTART_S:
            offset_s = last_s + max(0.0, wall_s - last_wall_s) - clock_s
        last_s, last_wall_s = clock_s + offset_s, wall_s
        found.append(Run(last_s, _point(last_s, row, trim), row))
    return found


def _point(time_s: float, row: Pass | Anchor, trim: float) -> Point:
    network = row.measurement_id if isinstance(row, Pass) else row.arch
    mean = max(1.0, trimmed_mean(row.samples_ns, trim))
    sigma = max(LEAST_SIGMA, winsorised_stderr(row.samples_ns, trim) / mean) if len(row.samples_ns) > 1 else LONE_SIGMA
    return Point(time_s, network, math.log(mean / 1e6), sigma)
