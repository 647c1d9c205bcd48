"""The regression gate: has a network become slower than its baseline by more than a limit?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from latlab.harness.compare.result import ComparisonResult
from latlab.harness.fleet.campaigns import Measurements

__all__ = ["GateCheck", "GateOutcome", "paired_checks", "passes", "unmeasured_checks"]


class GateOutcome(StrEnum):
    """Result of one check."""

    PASSED = "passed"
    """It is slower by no more than the limit, with confidence."""
    SLOWER = "slower"
    """It is slower by more than the limit, with confidence."""
    UNDECIDED = "undecided"
    """Neither is certain; the check passes, with a warning."""
    FAILED = "failed"
    """The network, its baseline or the device failed, so that there is nothing to compare."""


@dataclass(frozen=True)
class GateCheck:
    """One network on one device against its baseline."""

    model: str
    baseline: str
    """What it is compared with: another network, or a store and the day of its label."""
    target: str
    limit_percent: float
    outcome: GateOutcome
    percent: float | None = None
    """Percent by which it is slower than the baseline; negative if it is faster. None if there is no figure."""
    low_percent: float | None = None
    high_percent: float | None = None
    note: str = ""
    """What else is to be known: why it failed, or how the figure came about."""

    @property
    def sentence(self) -> str:
        """The check in a sentence, as plain text."""
        if self.percent is None:
            return f"{self.model} on {self.target}: {self.note}"
        how = "slower" if self.percent >= 0 else "faster"
        low, high = self.low_percent, self.high_percent
        ends = f" ({low:+.1f} to {high:+.1f} %)" if low is not None and high is not None else ""
        verdict = {
            GateOutcome.PASSED: f"within {self.limit_percent:g} %",
            GateOutcome.SLOWER: f"more than {self.limit_percent:g} %",
            GateOutcome.UNDECIDED: f"may be more than {self.limit_percent:g} %, or not: undecided, which passes",
        }[self.outcome]
        return f"{self.model} on {self.target} is {abs(self.percent):.1f} % {how} than {self.baseline}{ends}: {verdict}"

    def to_json(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {**vars(self), "outcome": str(self.outcome)}


def outcome_of(low: float, high: float, limit_percent: float) -> GateOutcome:
    """Return the outcome for an interval of log(new / old)."""
    limit = math.log1p(limit_percent / 100)
    if low > limit:
        return GateOutcome.SLOWER
    return GateOutcome.PASSED if high <= limit else GateOutcome.UNDECIDED


def paired_checks(results: Sequence[ComparisonResult]) -> list[GateCheck]:
    """Return a check of every network but the first against the first, on every device."""
    checks = []
    for result in results:
        first = result.models[0]
        limit = result.question.limit_percent
        assert limit is not None
        for place, model in enumerate(result.models[1:], start=1):
            pair = result.pair(0, place)
            if pair is None:
                why = model.error or first.error or result.error or "it was not compared"
                checks.append(GateCheck(model.name, first.name, model.target, limit, GateOutcome.FAILED, note=str(why)))
                continue
            finite = math.isfinite(pair.interval.half_width)
            checks.append(
                GateCheck(
                    model.name,
                    first.name,
                    model.target,
                    limit,
                    outcome_of(pair.interval.low, pair.interval.high, limit),
                    pair.percent,
                    pair.low_percent if finite else None,
                    pair.high_percent if finite else None,
                )
            )
    return checks


def unmeasured_checks(
    found: Measurements, networks: Sequence[str], baseline: str, limit_percent: float
) -> list[GateCheck]:
    """Return a failed check for each network that a target did not come to, because the target failed.

    Without it the gate would open for a device that nothing was measured on.

    Args:
        found: today's measurements.
        networks: the names that were to be measured.
        baseline: the store that they are compared with.
        limit_percent: percent by which a network may be slower.
    """
    checks = []
    for failure in found.failures:
        there = set(found.rows.loc[found.rows["target"] == failure.target, "arch"])
        left = [name for name in networks if name not in there] if len(there) < len(networks) else []
        checks += [
            GateCheck(name, baseline, failure.target, limit_percent, GateOutcome.FAILED, note=failure.message)
            for name in left
        ]
    return checks


def passes(checks: Sequence[GateCheck]) -> bool:
    """Return whether the gate opens: no check is slower or failed."""
    return all(one.outcome in (GateOutcome.PASSED, GateOutcome.UNDECIDED) for one in checks)
