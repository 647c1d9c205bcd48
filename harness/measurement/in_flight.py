"""Networks on their way through the pass scheduler, and which of them gets a pass that costs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from latlab.harness.exporters import Artifact
from latlab.harness.statistics.estimators import NoiseModel, needs_pass
from latlab.harness.store.store import Measurement
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["InFlight", "Ready", "for_spare_pass"]

SPARE_SPACING_S = 1.0
"""Least seconds between two passes of a network if the second one is a spare one: it is to meet another moment."""
SPARE_TIMES = 2
"""A network gets at most so many times the passes that its policy allows."""


@dataclass(frozen=True)
class Ready:
    """An exported network that waits for its turn on the device."""

    artifact: Artifact
    arch: str
    role: str
    since: float = field(default_factory=time.monotonic)


@dataclass
class InFlight:
    """A network that takes turns on the device, with its passes so far."""

    row: Measurement
    artifact: Artifact
    passes: list[RecordedPass]
    """The passes of its label."""
    taken: int
    """The number of its next pass; the store has those before, rejected ones and probes included."""
    queue_s: float
    """Seconds that the exported network waited for its turn on the device."""
    due: int = 0
    """The round of its next pass."""
    last: float = 0.0
    """Time on the monotonic clock when its last pass ended."""
    attempts: int = 0
    """Number of times that it lost the worker, or that its file was damaged."""
    push_s: float = 0.0
    load_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    followers: list[str] = field(default_factory=list)
    """Architectures with the same graph, whose rows get a copy of the result."""
    probe_for: Measurement | None = None
    """The finished row of the same graph, if this network's pass is a probe: this row gets a copy of its result."""

    @property
    def samples(self) -> list[list[int]]:
        return [one.samples_ns for one in self.passes]

    @property
    def timed_s(self) -> float:
        return sum(one.busy_s for one in self.passes)


def for_spare_pass(
    networks: Iterable[InFlight], policy: TimingPolicy, noise: NoiseModel | None, now: float
) -> InFlight | None:
    """Return the network that gets a further pass while its device would wait; None if none needs one.

    It is the one with the fewest passes, and of those the one whose last pass is the longest ago. Needed are the passes
    of the policy, and, as long as the interval is wider than the policy asks for, as many again.

    Args:
        networks: those that were timed, and that wait for nothing.
        now: the time on the monotonic clock.
    """
    generous = replace(policy, max_passes=SPARE_TIMES * policy.most_passes)
    open_ = [
        net
        for net in networks
        if now - net.last >= SPARE_SPACING_S and needs_pass(net.samples, generous, net.timed_s, noise)
    ]
    return min(open_, key=lambda net: (len(net.passes), net.last), default=None)
