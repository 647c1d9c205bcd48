"""A recorded pass: what came back from the device for one short run of one network, and what the store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from latlab.harness.telemetry.readings import number

__all__ = ["PassKind", "RecordedAnchor", "RecordedPass"]


class PassKind(StrEnum):
    """The use of a stored pass."""

    LABEL = "label"
    """Its samples are part of its network's label."""
    REJECTED = "rejected"
    """The anchor after it failed: the pass is kept, but is no part of a label."""
    PROBE = "probe"
    """A known network timed again out of turn: the pass shows the noise, and is no part of a label."""
    SUSTAIN = "sustain"
    """Part of a sustained run, which gives no label."""
    COMPARE = "compare"
    """Part of a paired comparison, which gives no label."""


@dataclass(frozen=True)
class RecordedPass:
    """One pass of one network: raw samples in the order in which they were taken, and the device's state around them.

    A sample is the duration of one inference in nanoseconds, or the mean over `calls` inferences where they are too
    short to be timed one by one, or the mean of a whole run where a program prints no more (`benchmark_model`).
    """

    warmup_ns: list[int]
    samples_ns: list[int]
    telemetry: dict[str, Any]
    """`before` and `after`, two readings of the device's sensors, and what else the worker reports of the pass."""
    number: int = 0
    """Place among the passes of the network in its session, from 0."""
    kind: PassKind = PassKind.LABEL
    at: str = ""
    """Time of storing, UTC, ISO 8601; empty before that."""
    measurement_id: int = 0
    """The row of the store that it belongs to; 0 before it is stored."""

    @property
    def network(self) -> int | str:
        """Identity of what was timed, among the passes of one session."""
        return self.measurement_id

    @property
    def at_s(self) -> float | None:
        """Seconds on the device's steady clock when the first sample began; None where the device does not say."""
        return number(self.telemetry, "at_s")

    @property
    def warmup_s(self) -> float:
        """Seconds of warm-up."""
        return sum(self.warmup_ns) / 1e9

    @property
    def samples_s(self) -> float:
        """Seconds of all inferences behind the samples, of which a sample may be the mean of several."""
        return self._inferences_per_sample * sum(self.samples_ns) / 1e9

    @property
    def busy_s(self) -> float:
        """Seconds that the device spent on the network, warm-up included."""
        return self.warmup_s + self.samples_s

    @property
    def inferences(self) -> int:
        """Inferences whose durations add up to `inference_s`."""
        counted = round(self._inferences_per_sample * len(self.samples_ns))
        return counted if self._is_aggregate else counted + len(self.warmup_ns)

    @property
    def inference_s(self) -> float:
        """Seconds of `inferences`: warm-up included, except where a program does not report its number of runs."""
        return self.samples_s if self._is_aggregate else self.busy_s

    @property
    def _is_aggregate(self) -> bool:
        return number(self.telemetry, "aggregate", "runs") is not None

    @property
    def _inferences_per_sample(self) -> float:
        runs = number(self.telemetry, "aggregate", "runs")
        if runs is not None:
            return runs / max(1, len(self.samples_ns))
        return number(self.telemetry, "calls") or 1.0

    def without_drift(self, factor: float, at_s: float) -> Self:
        """Return the pass with its samples divided by the session's drift at its time.

        Args:
            factor: how much slower the device was then (1: no drift).
            at_s: time of the pass on the session's clock, in seconds, which becomes its `at_s`.
        """
        samples = [round(ns / factor) for ns in self.samples_ns] if factor != 1.0 else self.samples_ns
        return replace(self, samples_ns=samples, telemetry={**self.telemetry, "at_s": at_s})


@dataclass(frozen=True)
class RecordedAnchor(RecordedPass):
    """A pass of an anchor, the small network that every session times now and then."""

    arch: str = field(default="", kw_only=True)
    """The anchor's architecture in NAS-Bench-201, whatever space the campaign measures."""
    in_line: bool = field(default=True, kw_only=True)
    """True if its latency agreed with the anchors before it."""

    @property
    def network(self) -> str:
        """The anchor's architecture."""
        return self.arch
