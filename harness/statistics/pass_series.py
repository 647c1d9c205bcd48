"""The passes of a session, anchors' and networks', on one clock, each with its latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from latlab.harness.statistics.drift import Observation
from latlab.harness.statistics.estimators import trimmed_mean, winsorised_stderr
from latlab.harness.telemetry.recorded_pass import RecordedPass

__all__ = ["PlacedPass", "pass_series"]

LEAST_SIGMA = 1e-3
"""Least relative standard error of a pass: samples that agree more closely do so by luck."""
LONE_SIGMA = 0.02
"""Relative standard error of a pass that has one sample."""
RESTART_S = 1.0
"""Seconds by which a steady clock goes back when the device was restarted."""


class PlacedPass(NamedTuple):
    """A recorded pass at its time in the session."""

    time_s: float
    """Seconds since the first pass, on the device's steady clock; over its restarts, and where it does not report
    that clock, by the date."""
    observation: Observation
    """What the drift is fitted to."""
    recorded: RecordedPass


def pass_series(passes: Sequence[RecordedPass], trim: float) -> list[PlacedPass]:
    """Place passes in the order in which they were taken; those without samples are left out.

    Args:
        passes: of one session, as the store has them (with `at`).
        trim: share of a pass's samples cut at each end for its latency.
    """
    found: list[PlacedPass] = []
    offset_s = last_s = 0.0
    last_wall_s: float | None = None
    for one in sorted((one for one in passes if one.samples_ns), key=lambda one: one.at):
        wall_s = datetime.fromisoformat(one.at).timestamp()
        clock_s = wall_s if one.at_s is None else one.at_s
        if last_wall_s is None:
            offset_s = -clock_s
        elif clock_s + offset_s < last_s - RESTART_S:
            offset_s = last_s + max(0.0, wall_s - last_wall_s) - clock_s
        last_s, last_wall_s = clock_s + offset_s, wall_s
        found.append(PlacedPass(last_s, _observation(last_s, one, trim), one))
    return found


def _observation(time_s: float, one: RecordedPass, trim: float) -> Observation:
    mean = max(1.0, trimmed_mean(one.samples_ns, trim))
    sigma = max(LEAST_SIGMA, winsorised_stderr(one.samples_ns, trim) / mean) if len(one.samples_ns) > 1 else LONE_SIGMA
    return Observation(time_s, one.network, math.log(mean / 1e6), sigma)
