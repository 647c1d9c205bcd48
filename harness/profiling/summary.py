"""The summary of a profile: operators and their kinds, and how their sum compares with a whole inference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import quantiles
from typing import Any, NamedTuple

from latlab.harness.statistics.estimators import trimmed_mean
from latlab.harness.telemetry.operator_profile import OperatorProfile, ProfiledOperator
from latlab.harness.telemetry.readings import number, text
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.text import count, latency_text

__all__ = ["AGREES", "Kind", "NetworkProfile"]

TRIM = 0.1
"""Share of a pass's samples that is cut at each end, as for labels."""
AGREES = 0.1
"""Share of an inference by which the sum of its operators may differ without an explanation."""


DISTURBED = 1.25
"""Ratio from which on two times that should be equal show a disturbance."""


class Kind(NamedTuple):
    """All operators of one type on one provider."""

    kind: str
    provider: str
    operators: int
    """How many there are."""
    typical_ms: float
    """Milliseconds per inference of all of them together."""
    share: float
    """Their part of the typical time of all operators."""


def _names(profile: OperatorProfile) -> list[tuple[str, str, str]]:
    return [(one.name, one.kind, one.provider) for one in profile.operators]


def _changes(written: Mapping[str, int], executed: Mapping[str, int]) -> list[str]:
    """Return in words how the operators in a file differ from those that ran; nothing if no type is in both."""
    if not set(written) & set(executed):
        return []
    fewer = {kind: n for kind, n in written.items() if executed.get(kind, 0) < n}
    more = {kind: n for kind, n in executed.items() if written.get(kind, 0) < n}
    changes = []
    if fewer:
        listed = ", ".join(f"{kind} {n} → {executed.get(kind, 0)}" for kind, n in sorted(fewer.items()))
        changes.append(f"fused or left out of the file's operators: {listed}")
    if more:
        listed = ", ".join(f"{kind} {n - written.get(kind, 0)}" for kind, n in sorted(more.items()))
        changes.append(f"added by the runtime: {listed}")
    return changes


@dataclass(frozen=True)
class NetworkProfile:
    """The profile of one network on one target, from several rounds.

    The fastest round is compared with the fastest of the passes between the rounds: whatever else runs on a device can
    only make both slower (the argument of Python's `timeit`). Which round is the fastest, the clock around its
    inferences says: the sum over the operators has an estimate in it, and the smallest sum would be the one with the
    largest error. An operator's typical time is the least of its medians over the rounds, since a disturbance hits some
    operators and not others.
    """

    target: str
    network: str
    threads: int
    passes: tuple[RecordedPass, ...]
    """Passes without the profiler: one before the first round, and one after each."""
    profiles: tuple[OperatorProfile, ...]
    """One of each round."""
    facts: Mapping[str, Any]
    """What the worker reported when it loaded the network (`LoadedModel.facts`)."""
    file_operators: Mapping[str, int]
    """Number of operators of each type in the model file; empty if it is not known."""
    simulated: bool = False
    """True if the device is a simulated one."""

    @cached_property
    def best(self) -> OperatorProfile:
        """The profile of the round that counts."""
        return min(self.profiles, key=lambda one: one.inference_ms)

    @cached_property
    def operators(self) -> tuple[ProfiledOperator, ...]:
        """The operators of the best round in the order in which they ran, with their typical times over all rounds."""
        alike = [one.operators for one in self.profiles if _names(one) == _names(self.best)]
        return tuple(
            replace(one, typical_ms=min(round_[place].typical_ms for round_ in alike))
            for place, one in enumerate(self.best.operators)
        )

    @property
    def sum_ms(self) -> float:
        """Milliseconds of all operators of an inference together, by the means of the best round."""
        return self.best.sum_ms

    @cached_property
    def typical_ms(self) -> float:
        """Milliseconds of all listed operators together, by their typical times."""
        return sum(one.typical_ms for one in self.operators)

    @cached_property
    def passes_ms(self) -> tuple[float, ...]:
        """Milliseconds of an inference without the profiler in each pass: trimmed means, as labels are."""
        return tuple(trimmed_mean(one.samples_ns, TRIM) / 1e6 for one in self.passes)

    @property
    def latency_ms(self) -> float:
        """Milliseconds of an inference without the profiler, in the fastest pass."""
        return min(self.passes_ms)

    @property
    def ratio(self) -> float:
        """The sum over the operators, divided by the time of an inference."""
        return self.sum_ms / self.latency_ms

    @cached_property
    def quiet_ms(self) -> float:
        """Milliseconds of an undisturbed inference without the profiler: the least of the passes' 10th percentiles."""
        return min(quantiles(one.samples_ns, n=10, method="inclusive")[0] for one in self._with_samples()) / 1e6

    def _with_samples(self) -> list[RecordedPass]:
        """Return the passes, with two samples at least: a program that prints only their mean gives one."""
        return [one if len(one.samples_ns) > 1 else replace(one, samples_ns=2 * one.samples_ns) for one in self.passes]

    @property
    def quiet_ratio(self) -> float:
        """The typical times of the operators together, divided by the time of an undisturbed inference."""
        return self.typical_ms / self.quiet_ms

    @property
    def agrees(self) -> bool:
        """True if the sum differs from an inference by at most `AGREES` of it."""
        return abs(self.ratio - 1) <= AGREES

    @property
    def disturbed(self) -> bool:
        """True if something else used the device: passes differ, or the operators' means are far above the medians."""
        return (
            max(self.passes_ms) > DISTURBED * self.latency_ms
            or self.sum_ms - self.best.left_out_ms > DISTURBED * self.typical_ms > 0
        )

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The types of operators, those that take the most time first."""
        groups: dict[tuple[str, str], list[float]] = {}
        for one in self.operators:
            groups.setdefault((one.kind, one.provider), []).append(one.typical_ms)
        kinds = [Kind(kind, provider, len(ms), sum(ms), self.share(sum(ms))) for (kind, provider), ms in groups.items()]
        return tuple(sorted(kinds, key=lambda one: (-one.typical_ms, one.kind)))

    def share(self, ms: float) -> float:
        """Return latency_text as a part of the typical time of all operators; 0 if that is 0."""
        return ms / self.typical_ms if self.typical_ms > 0 else 0.0

    def longest(self, most: int) -> list[ProfiledOperator]:
        """Return at most so many operators, the longest first."""
        return sorted(self.operators, key=lambda one: -one.typical_ms)[:most]

    def explanation(self) -> str:
        """Return in words how the sum over the operators compares with an inference, and what the difference is."""
        said = (
            f"the operators add up to {latency_text(self.sum_ms)}, {100 * self.ratio:.0f} % of an inference "
            f"({latency_text(self.latency_ms)})"
        )
        if self.disturbed:
            said += (
                f". Something else used the device meanwhile: passes took from {latency_text(self.latency_ms)} to "
                f"{latency_text(max(self.passes_ms))}. The typical times of the operators add up to "
                f"{latency_text(self.typical_ms)}, {100 * self.quiet_ratio:.0f} % of an undisturbed inference "
                f"({latency_text(self.quiet_ms)})"
            )
        if self.agrees:
            return said
        if self.ratio > 1:
            return (
                f"{said}. The profiler slows them: under it an inference takes "
                f"{latency_text(self.best.inference_ms)}. Shares hold better than latency_text here"
            )
        unit_ms = self.best.resolution_ms
        lost_ms = unit_ms / 2 * len(self.operators)
        rounded = (
            f", and the profiler's rounding down to {1000 * unit_ms:.0f} µs, which is some {latency_text(lost_ms)} here"
            if lost_ms > 0.01 * self.latency_ms
            else ""
        )
        return f"{said}. The rest is the runtime's work between them and around them{rounded}"

    def fusion(self) -> str:
        """Return in words what became of the file's operators: fused, or run by a delegate; empty if nothing is known.

        Types of operators can be compared only where the runtime names them as the file does.
        """
        parts = []
        delegated, of = number(self.facts, "delegated", "delegated"), number(self.facts, "delegated", "operators")
        if delegated is not None and of is not None:
            pieces = count(number(self.facts, "delegated", "partitions") or 0, "piece")
            provider = text(self.facts, "provider") or "the delegate"
            parts.append(f"{provider} runs {delegated:.0f} of the file's {count(of, 'operator')}, in {pieces}")
        else:
            written = {kind.removeprefix("aten::"): n for kind, n in self.file_operators.items() if kind != "Constant"}
            parts.extend(_changes(written, Counter(one.kind for one in self.operators)))
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return {
            "target": self.target,
            "network": self.network,
            "simulated": self.simulated,
            "latency_ms": self.latency_ms,
            "sum_ms": self.sum_ms,
            "sum_percent": 100 * self.ratio,
            "typical_ms": self.typical_ms,
            "quiet_ms": self.quiet_ms,
            "disturbed": self.disturbed,
            "profiled_ms": self.best.inference_ms,
            "overhead_ms": self.best.overhead_ms,
            "runs": self.best.runs,
            "rounds_ms": [one.sum_ms for one in self.profiles],
            "passes_ms": list(self.passes_ms),
            "explanation": self.explanation(),
            "fusion": self.fusion(),
            "delegated": self.facts.get("delegated"),
            "file_operators": dict(self.file_operators),
            "kinds": [one._asdict() for one in self.kinds],
            "operators": [
                {**vars(one), "fused": list(one.fused), "share": self.share(one.typical_ms)} for one in self.operators
            ],
            "left_out": {"operators": self.best.left_out, "mean_ms": self.best.left_out_ms},
        }
