"""What the label of one more network costs the device, in seconds, before it is paid."""

from __future__ import annotations

from dataclasses import dataclass

from latlab.harness.timing_policy import PRESETS, TimingPolicy

__all__ = ["SampleCost"]

FIXED_S = 0.2
"""Seconds for a network's push, load and set-up on a device that has not measured any yet."""


@dataclass(frozen=True)
class SampleCost:
    """The device-seconds of a label: a fixed part, and the runs that the timing policy asks for."""

    policy: TimingPolicy = PRESETS["default"]
    fixed_s: float = FIXED_S
    """Seconds that every network takes: its push, its load, and the waits around them."""

    def seconds(self, latency_ms: float) -> float:
        """Return the seconds that a network of this latency takes with the least number of passes."""
        return self.fixed_s + self.passes_s(latency_ms, self.policy.passes)

    def passes_s(self, latency_ms: float, passes: int) -> float:
        """Return the seconds that so many passes of a network of this latency take."""
        policy = self.policy
        return passes * max((policy.warmup + policy.runs) * latency_ms / 1e3, policy.warmup_s + policy.pass_s)
