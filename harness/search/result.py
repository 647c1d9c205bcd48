"""What a search has found: the answer, the networks that came near it, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from latlab.harness.active_learning.target_labels import LATENCY
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.search.limits import Constraints

__all__ = ["Finalist", "Found", "Latency", "SearchCosts", "SearchResult"]


class Found(StrEnum):
    """Why a search has ended."""

    STANDS = "stands"
    """The answer was measured, and no other candidate is better and likely to keep the limits."""
    BUDGET = "budget spent"
    """The budget was spent before that."""
    UNMEASURED = "not measured"
    """Nothing was measured: the answer is a prediction."""
    NOTHING = "nothing found"
    """No measured network keeps the limits."""
    FAILED = "a target failed"
    """One of several targets failed before that: the answer, if there is one, is the best that is known."""


@dataclass(frozen=True)
class Latency:
    """What is known of one network under one limit: of its latency on a target in ms; None if it was not measured."""

    target: str
    limit_ms: float
    predicted_ms: float
    lower_ms: float
    upper_ms: float
    """The predicted 90 % interval."""
    measured_ms: float | None = None
    stderr_ms: float | None = None
    sessions: int = 0
    measured_lower_ms: float | None = None
    measured_upper_ms: float | None = None
    """The 90 % interval of a measurement in one more session."""
    metric: str = LATENCY
    """What it is; of another metric, the fields that are named after milliseconds are in its unit."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; fields of another metric are named after its unit, such as `limit_mj`."""
        return _in_its_unit(asdict(self), self.metric)


@dataclass(frozen=True)
class Finalist:
    """One of the best networks."""

    arch: str
    accuracy: float
    probability: float
    """Probability that it keeps all latency limits: by its labels if it was measured, else as predicted."""
    keeps: bool
    """Whether that is at least the asked-for confidence."""
    macs: int
    params: int
    latencies: tuple[Latency, ...]
    """One for each limit."""

    @property
    def measured(self) -> bool:
        """Whether it was measured on all targets."""
        return all(one.measured_ms is not None for one in self.latencies)


@dataclass(frozen=True)
class SearchCosts:
    """What a search has cost. Without a device, the counts of measurements are 0."""

    measured: int
    """Networks that were measured for it; another session of one counts again."""
    onboarded: int
    """Networks that were measured before it, because a target had no labels."""
    resolved: int
    """Networks to which passes were added, because it was not certain that they keep the limits."""
    rounds: int
    scored: int
    """Candidates that were scored, over all looks."""
    looking_s: float
    """Seconds for fitting predictors and looking through candidates."""
    measuring_s: float
    """Seconds for measuring and for getting to know devices, exports included, over all runs of this search."""
    wall_s: float
    """Seconds of this run, without getting to know devices."""


@dataclass(frozen=True)
class SearchResult:
    """The result of `Lab.search`."""

    space: str
    constraints: Constraints
    accuracy: str
    """The source of accuracies, in words."""
    candidates: str
    """What was looked at, in words."""
    found: Found
    winner: Finalist | None
    """The answer; None if no network keeps the limits."""
    finalists: tuple[Finalist, ...]
    """The best networks, the winner first: those that keep the limits, then by accuracy."""
    measured: tuple[Finalist, ...]
    """All measured networks with a known accuracy."""
    front: tuple[Finalist, ...]
    """Predicted Pareto front of accuracy and latency, the fastest first."""
    spread_percent: tuple[float, ...]
    """Deviation from one measurement session to the next, for each limit, which is part of the intervals."""
    remarks: tuple[str, ...]
    costs: SearchCosts
    seed: int
    failures: tuple[TargetFailure, ...] = ()
    """The targets that failed, and why."""
    simulated: bool = False
    report: Path | None = None
    exported: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the long lists of measured and predicted networks."""
        return {
            "space": self.space,
            "limits": [_in_its_unit(asdict(one), one.metric) for one in self.constraints.limits],
            "confidence": self.constraints.confidence,
            "max_macs": self.constraints.max_macs,
            "max_params": self.constraints.max_params,
            "accuracy": self.accuracy,
            "candidates": self.candidates,
            "found": str(self.found),
            "winner": None if self.winner is None else finalist_json(self.winner),
            "finalists": [finalist_json(one) for one in self.finalists],
            "spread_percent": list(self.spread_percent),
            "remarks": list(self.remarks),
            "costs": asdict(self.costs),
            "seed": self.seed,
            "failures": [one.to_json() for one in self.failures],
            "simulated": self.simulated,
            "report": None if self.report is None else str(self.report),
            "exported": [str(one) for one in self.exported],
        }

    def full_json(self) -> dict[str, Any]:
        """Return `to_json` with all measured networks and the predicted front."""
        lists: dict[str, Sequence[Finalist]] = {"measured": self.measured, "front": self.front}
        return {**self.to_json(), **{name: [finalist_json(one) for one in many] for name, many in lists.items()}}


def finalist_json(one: Finalist) -> dict[str, Any]:
    """Return a network as JSON values."""
    return {**asdict(one), "measured": one.measured, "latencies": [each.to_json() for each in one.latencies]}


def _in_its_unit(fields: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return fields that are named after milliseconds with the name of a metric's unit."""
    unit = metric.rpartition("_")[2]
    return {f"{name.removesuffix('_ms')}_{unit}" if name.endswith("_ms") else name: fields[name] for name in fields}
