"""The result of a paired comparison on one device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.statistics.paired import Interval, Outcome

__all__ = ["ComparedModel", "ComparisonResult", "Pair", "Question"]


@dataclass(frozen=True)
class Question:
    """What is asked of a comparison, and what may be spent on the answer."""

    ties_percent: float = 1.0
    """The indifference zone: latencies that differ by no more percent are a tie."""
    confidence: float = 0.95
    """Probability that all intervals, and so all verdicts, of one run hold together."""
    budget_s: float = 30.0
    """Most seconds on each device."""
    limit_percent: float | None = None
    """A regression gate: is a network slower than the first one by more percent than this? None without a gate."""

    def __post_init__(self) -> None:
        if not 0 <= self.ties_percent <= 100:
            raise BadInputError(f"what counts as a tie is a percentage from 0 to 100, not {self.ties_percent}")
        if not 0.5 < self.confidence < 1:
            raise BadInputError(f"the confidence is a share above 0.5 and below 1, not {self.confidence}")
        if not 0 < self.budget_s < math.inf:
            raise BadInputError(f"the budget is a positive number of seconds, not {self.budget_s}")
        if self.limit_percent is not None and not 0 <= self.limit_percent <= 1000:
            raise BadInputError(f"the limit is a percentage from 0 to 1000, not {self.limit_percent}")

    @property
    def zone(self) -> float:
        """The indifference zone in logarithms."""
        return math.log1p(self.ties_percent / 100)

    @property
    def limit(self) -> float | None:
        """The gate's limit in logarithms."""
        return None if self.limit_percent is None else math.log1p(self.limit_percent / 100)


@dataclass(frozen=True)
class ComparedModel:
    """One of the compared networks, as it ran."""

    name: str
    """Name in the comparison and in the store; a second one of the same name has ` (2)` behind it."""
    target: str
    latency_ms: float | None
    """Median over its passes of their shortest run; None if there was no pass."""
    passes: int
    status: str
    """`ok`, `running`, or how it failed."""
    error: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two of the compared networks, and what is known about their ratio."""

    first: int
    """Place of the first network among the models."""
    second: int
    interval: Interval
    """Of log(second / first)."""
    outcome: Outcome
    """Of the first network: `faster` if the second takes longer."""

    def reversed(self) -> Pair:
        """Return the same pair with its networks swapped."""
        one = self.interval
        swapped = Interval(-one.log_ratio, -one.high, -one.low, one.blocks)
        opposite = {Outcome.FASTER: Outcome.SLOWER, Outcome.SLOWER: Outcome.FASTER}
        return Pair(self.second, self.first, swapped, opposite.get(self.outcome, self.outcome))

    @property
    def percent(self) -> float:
        """Percent by which the second network takes longer than the first; negative if it is faster."""
        return 100 * math.expm1(self.interval.log_ratio)

    @property
    def low_percent(self) -> float:
        """Lower end of the interval of `percent`."""
        return 100 * math.expm1(self.interval.low)

    @property
    def high_percent(self) -> float:
        """Upper end of the interval of `percent`; it may be infinite."""
        return 100 * math.expm1(min(self.interval.high, 700.0)) if self.interval.high < math.inf else math.inf

    @property
    def half_percent(self) -> float:
        """Half the width of the interval of `percent`; it may be infinite."""
        return (self.high_percent - self.low_percent) / 2


@dataclass(frozen=True)
class ComparisonResult:
    """The result of a comparison on one device, complete or not."""

    device: str
    models: tuple[ComparedModel, ...]
    """In the order in which they were given."""
    pairs: tuple[Pair, ...]
    """All pairs of networks that ran, each once, the first given one first."""
    question: Question
    blocks: int
    """Blocks (fresh loads of all networks) behind the intervals."""
    spent_s: float
    """Seconds on the device."""
    status: str
    """`decided`; `checked` if the check of the limit was certain before every pair was decided; `undecided` if the
    budget was spent before; `interrupted`; or `failed` if fewer than two networks ran."""
    simulated: bool = False
    """True if the device is a simulated one."""
    error: str | None = None
    """Why the device failed, if it did."""

    @property
    def order(self) -> tuple[int, ...]:
        """Places of the networks that ran, from the fastest to the slowest, by their estimated ratios."""
        gains: dict[int, float] = {}
        for pair in self.pairs:
            gains[pair.first] = gains.get(pair.first, 0.0) - pair.interval.log_ratio
            gains[pair.second] = gains.get(pair.second, 0.0) + pair.interval.log_ratio
        return tuple(sorted(gains, key=lambda place: gains[place]))

    def pair(self, first: int, second: int) -> Pair | None:
        """Return the pair of two networks, in this direction; None if one of them did not run."""
        for one in self.pairs:
            if {one.first, one.second} == {first, second}:
                return one if one.first == first else one.reversed()
        return None

    def neighbours(self) -> list[Pair]:
        """Return the pairs of neighbours in the order, the faster one first."""
        order = self.order
        found = (self.pair(a, b) for a, b in pairwise(order))
        return [one for one in found if one is not None]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "device": self.device,
            "status": self.status,
            "error": self.error,
            "simulated": self.simulated,
            "confidence": self.question.confidence,
            "ties_percent": self.question.ties_percent,
            "blocks": self.blocks,
            "spent_s": round(self.spent_s, 3),
            "budget_s": self.question.budget_s,
            "models": [vars(one) for one in self.models],
            "order": [self.models[place].name for place in self.order],
            "pairs": [_pair_json(one, self.models) for one in self.pairs],
        }


def _pair_json(pair: Pair, models: Sequence[ComparedModel]) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "first": models[pair.first].name,
        "second": models[pair.second].name,
        "verdict": str(pair.outcome),
        "second_longer_percent": pair.percent,
        "low_percent": number(pair.low_percent) if pair.interval.low > -math.inf else None,
        "high_percent": number(pair.high_percent),
        "blocks": pair.interval.blocks,
    }
