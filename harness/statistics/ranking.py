"""Which networks are worth further passes, and when their order is known: pure functions of labels.

A constraint or a list of the fastest needs the order of few networks, most of which a first label settles. What is
left are comparisons between networks, or of a network with a limit, whose intervals overlap. Everything is done in
logarithms, because the noise of latencies is relative: a comparison has the gap d >= 0 of two log-latencies and its
standard error s, where s^2 is the sum of both networks' (`statistics.summarise` has made them wide enough to be used
as those of normal distributions).

* A comparison is `decided` once P(the order is the other one) = Phi(-d / s) <= 1 - confidence. Networks are drawn from
  a wide population, so that the prior of a gap is flat where it matters: this is its posterior probability, whenever
  one looks at it.
* It is a `tie` once the labels differ by no more than the indifference zone, d <= delta, and Phi(-(d + delta) / s) <=
  1 - confidence: that the one put first is slower by more than delta is no more probable than that (the good
  selection which Kim and Nelson guarantee). Neither is measured any further; else it is `open`.
* Passes go where they lower the sum of Phi(-(d + delta) / s) over the open comparisons most per second, with the means
  as they are: OCBA's greedy step, with costs. For the k fastest the comparisons are those of neighbours among them, and
  of the k-th with everyone behind it, on both sides of which LUCB measures, too; for a limit each network's own. A
  network may get up to half as many passes again as it has, then everything is looked at anew.

Sources:
    Kim and Nelson (2001), ACM TOMACS 11, 251-273: fully sequential selection with an indifference zone.
    Chen, Lin, Yucesan and Chick (2000), Discrete Event Dynamic Systems 10, 251-270: OCBA; Chen, He, Fu and Lee
        (2008), INFORMS J. Computing 20, 579-595: of the k best.
    Kalyanakrishnan, Tewari, Auer and Stone (2012), ICML: LUCB.
    Szechtman and Yucesan (2008), Winter Simulation Conference, 273-280: which systems keep a limit.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from latlab.harness.errors import BadInputError

__all__ = ["TIES_PERCENT", "Comparison", "RankedNetwork", "Resolve", "State", "compare", "next_round", "uniform_s"]

TIES_PERCENT = 1.0
GROWTH = 0.5
"""By which share of its passes a network may get more in one round: what they are planned by changes with them."""

State = Literal["decided", "tie", "open"]
_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Resolve:
    """Which order is wanted, how surely, and what may be spent on it.

    With neither a limit nor a top, the order of all neighbours is wanted.
    """

    under_ms: float | None = None
    """The limit: which networks are below it?"""
    top: int | None = None
    """Which are so many fastest, and in which order?"""
    ties_percent: float = TIES_PERCENT
    """Latencies that differ by no more are as good as equal."""
    confidence: float = 0.95
    """Of each comparison."""
    most_passes: int = 50
    """Of one network, those that its label had before included."""
    most_s: float | None = None
    """Seconds of timing that may be added on each target; None: as many as the labels took before."""

    def __post_init__(self) -> None:
        if self.under_ms is not None and self.top is not None:
            raise BadInputError("a limit and a list of the fastest are two questions: ask one after the other")
        if self.under_ms is not None and not 0 < self.under_ms < math.inf:
            raise BadInputError(f"the limit is a positive number of milliseconds, not {self.under_ms}")
        if self.top is not None and self.top < 1:
            raise BadInputError(f"a list of the fastest has at least one network, not {self.top}")
        if not 0 <= self.ties_percent <= 100:
            raise BadInputError(f"what counts as a tie is a percentage from 0 to 100, not {self.ties_percent}")
        if not 0.5 < self.confidence < 1:
            raise BadInputError(f"the confidence is a share above 0.5 and below 1, not {self.confidence}")
        if self.most_passes < 1:
            raise BadInputError(f"a network gets at least one pass, not {self.most_passes}")
        if self.most_s is not None and not 0 <= self.most_s < math.inf:
            raise BadInputError(f"the seconds to spend are a number of at least 0, not {self.most_s}")

    @property
    def question(self) -> str:
        """In words."""
        if self.under_ms is not None:
            return f"which are below {self.under_ms:g} ms"
        return f"the {self.top} fastest" if self.top is not None else "the order of all"

    @property
    def zone(self) -> float:
        """The indifference zone, delta, in logarithms."""
        return math.log1p(self.ties_percent / 100)


@dataclass(frozen=True)
class RankedNetwork:
    """A network of a ranking: its latency, its error bar, and what a further pass costs."""

    name: str
    latency_ms: float
    stderr_ms: float
    """Of a normal distribution with the label's interval."""
    passes: int
    pass_s: float
    """Seconds that one pass of it takes."""


@dataclass(frozen=True)
class Comparison:
    """How two networks, or a network and the limit, stand."""

    faster: str | None
    """None: the limit."""
    slower: str | None
    gap_percent: float
    """By which the slower one's label is larger."""
    probability: float
    """That the order is this one."""
    state: State


class _Pairs(NamedTuple):
    """Comparisons: places of their networks among the labels (`second` is -1 for the limit), and gaps >= 0."""

    first: _Ints
    second: _Ints
    gap: _Floats


def compare(labels: Sequence[RankedNetwork], resolve: Resolve) -> list[Comparison]:
    """Every comparison that the question consists of, those of the fastest networks first."""
    if not labels:
        return []
    variances, pairs = _variances(labels), _pairs(labels, resolve)
    error = _errors(variances, pairs, _passes(labels))
    states = _states(pairs, error, resolve)
    wrong = _tail(pairs.gap, error)
    result = []
    for place, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        ends: list[str | None] = [labels[first].name, labels[second].name if second >= 0 else None]
        if second < 0 and resolve.under_ms is not None and labels[first].latency_ms > resolve.under_ms:
            ends.reverse()
        result.append(
            Comparison(
                faster=ends[0],
                slower=ends[1],
                gap_percent=100 * math.expm1(pairs.gap[place]),
                probability=1 - float(wrong[place]),
                state=states[place],
            )
        )
    return result


def next_round(
    labels: Sequence[RankedNetwork], resolve: Resolve, left_s: float, without: Container[str] = ()
) -> dict[str, int]:
    """Networks to be repeated next, with the passes that each is to have then in total; none: it is over.

    Args:
        left_s: seconds of timing that may still be spent; the round takes no more, by what passes took so far.
        without: networks that cannot be repeated.
    """
    if not labels:
        return {}
    passes = _passes(labels)
    variances, pairs = _variances(labels), _pairs(labels, resolve)
    error = _errors(variances, pairs, passes)
    is_open = [state == "open" for state in _states(pairs, error, resolve)]
    pairs = _Pairs(pairs.first[is_open], pairs.second[is_open], pairs.gap[is_open])
    error = error[is_open]
    more = _increments(pairs, error, passes, resolve)
    more[[label.name in without for label in labels]] = 0
    cost = np.array([label.pass_s for label in labels]) * more
    ends = np.stack([pairs.first, pairs.second])
    gains = _gains(variances, pairs, error, passes, more, resolve.zone)
    total = np.zeros(len(labels))
    for end, gain in zip(ends, gains, strict=True):
        np.add.at(total, end[end >= 0], gain[end >= 0])
    rate = np.where(more > 0, total / np.maximum(cost, 1e-12), 0.0)
    result: dict[str, int] = {}
    for place in sorted(np.unique(ends[ends >= 0]), key=lambda place: -rate[place]):
        label = labels[place]
        affordable = left_s / label.pass_s if label.pass_s > 0 else math.inf
        extra = int(min(more[place], affordable))
        if rate[place] > 0 and extra > 0:
            result[label.name] = label.passes + extra
            left_s -= extra * label.pass_s
    return result


def uniform_s(labels: Sequence[RankedNetwork], before: Mapping[str, int], resolve: Resolve) -> float:
    """Seconds of timing that it would have taken to settle as many comparisons with as many passes for everyone.

    By the latencies and variances that are known now: the least number of passes in total, the same for all networks
    that did not have more, with which no fewer comparisons than now are decided or ties.

    Args:
        before: passes that each network had when this began.
    """
    if not labels:
        return 0.0
    variances, pairs, passes = _variances(labels), _pairs(labels, resolve), _passes(labels)
    began = np.array([before.get(label.name, label.passes) for label in labels])

    def settled(counts: _Ints) -> int:
        error = _errors(variances, pairs, counts)
        return sum(state != "open" for state in _states(pairs, error, resolve))

    enough = settled(passes)
    low, high = int(began.min()), int(passes.max())
    while low < high:
        middle = (low + high) // 2
        if settled(np.maximum(began, middle)) >= enough:
            high = middle
        else:
            low = middle + 1
    cost = np.array([label.pass_s for label in labels])
    return float(np.sum(np.maximum(low - began, 0) * cost))


def _passes(labels: Sequence[RankedNetwork]) -> _Ints:
    return np.array([label.passes for label in labels], dtype=np.int64)


def _pairs(labels: Sequence[RankedNetwork], resolve: Resolve) -> _Pairs:
    """What is to be compared with what; fastest first."""
    logs = np.log([label.latency_ms for label in labels])
    order = np.argsort(logs, kind="stable")
    if resolve.under_ms is not None:
        return _Pairs(order, np.full(len(order), -1), np.abs(logs[order] - math.log(resolve.under_ms)))
    first, second = order[:-1], order[1:]
    if resolve.top is not None and resolve.top < len(order):
        first = np.concatenate([order[: resolve.top - 1], np.full(len(order) - resolve.top, order[resolve.top - 1])])
    return _Pairs(first, second, logs[second] - logs[first])


def _variances(labels: Sequence[RankedNetwork]) -> _Floats:
    """Of the log-latency that one pass of each network gives."""
    return np.array([label.passes * (label.stderr_ms / label.latency_ms) ** 2 for label in labels])


def _errors(variances: _Floats, pairs: _Pairs, passes: _Ints) -> _Floats:
    """Standard errors of the gaps."""
    own = variances / passes
    return np.sqrt(own[pairs.first] + np.where(pairs.second >= 0, own[pairs.second], 0.0))


def _tail(distance: _Floats, error: _Floats) -> _Floats:
    """The probability that the truth lies farther away, on that side; .5 where both are 0."""
    ratio = np.divide(distance, error, out=np.where(distance > 0, math.inf, 0.0), where=error > 0)
    return np.asarray(special.ndtr(-ratio), dtype=np.float64)


def _states(pairs: _Pairs, error: _Floats, resolve: Resolve) -> list[State]:
    chance = 1 - resolve.confidence
    decided = _tail(pairs.gap, error) <= chance
    # Two networks that are exactly equal, without any noise, stay so.
    settled = (_tail(_margin(pairs, resolve.zone), error) <= chance) | (error == 0)
    return ["decided" if sure else "tie" if done else "open" for sure, done in zip(decided, settled, strict=True)]


def _margin(pairs: _Pairs, zone: float) -> _Floats:
    """How far the truth must be from the label before a comparison would come out wrong."""
    return np.where(pairs.gap <= zone, pairs.gap + zone, pairs.gap)


def _increments(pairs: _Pairs, error: _Floats, passes: _Ints, resolve: Resolve) -> _Ints:
    """Passes that each network may get in a round: what its hardest open comparison needs, but not all at once."""
    wanted = _margin(pairs, resolve.zone) / special.ndtri(resolve.confidence)
    factor = np.divide(error, wanted, out=np.full(len(error), math.inf), where=wanted > 0) ** 2
    needed = np.zeros(len(passes))
    for end in (pairs.first, pairs.second):
        there = end >= 0
        np.maximum.at(needed, end[there], factor[there])
    growth = np.minimum(np.ceil(passes * np.maximum(needed - 1, 0)), np.ceil(GROWTH * passes))
    return np.asarray(np.minimum(growth, np.maximum(resolve.most_passes - passes, 0)), dtype=np.int64)


def _gains(
    variances: _Floats, pairs: _Pairs, error: _Floats, passes: _Ints, more: _Ints, zone: float
) -> tuple[_Floats, _Floats]:
    """By how much Phi(-(d + delta) / s) falls when a comparison's first, or second, network gets its passes."""
    saved = variances / passes - variances / (passes + more)
    margin = pairs.gap + zone
    now = _tail(margin, error)

    def fall(end: _Ints) -> _Floats:
        less = np.where(end >= 0, saved[end], 0.0)
        return now - _tail(margin, np.sqrt(np.maximum(error**2 - less, 0)))

    return fall(pairs.first), fall(pairs.second)
