"""The verdicts of a comparison in words, as plain text."""

from __future__ import annotations

import math

from latlab.harness.compare.result import ComparisonResult, Pair, Question
from latlab.harness.statistics.paired import Outcome
from latlab.harness.text import printable

__all__ = ["FEW", "advice", "headline", "pairs_to_tell", "sentence"]

FEW = 4
"""Up to so many networks, the verdict of every pair is told; with more, those of neighbours in the order."""
MANY_PERCENT = 200
"""From so many percent on, a difference is told as a factor."""
MOST_TIMES = 20
"""A budget of more times the present one is not recommended."""


def percent(value: float) -> str:
    """Return a percentage with as many digits as a comparison deserves: 0.08, 1.5, 25, 1,900."""
    size = abs(value)
    if not math.isfinite(value):
        return "?"
    return f"{value:.2f}" if size < 1 else f"{value:.1f}" if size < 20 else f"{value:,.0f}"


def pairs_to_tell(result: ComparisonResult) -> list[Pair]:
    """Return the pairs whose verdicts are told, the faster network first, in the order of the networks."""
    order = result.order
    if len(order) > FEW:
        return result.neighbours()
    pairs = [result.pair(a, b) for place, a in enumerate(order) for b in order[place + 1 :]]
    return [one for one in pairs if one is not None]


def sentence(result: ComparisonResult, pair: Pair) -> tuple[str, str]:
    """Return the verdict on a pair in a word, and a sentence about it."""
    first, second = (printable(result.models[place].name) for place in (pair.first, pair.second))
    if pair.outcome is Outcome.TIE:
        ends = f"{percent(pair.low_percent)} to {percent(pair.high_percent)} %"
        return "tie", f"{first} and {second} differ by less than {result.question.ties_percent:g} % ({ends})"
    if pair.outcome is Outcome.UNDECIDED:
        if not math.isfinite(pair.interval.half_width):
            return "undecided", f"{first} and {second}, after {result.blocks} blocks"
        ends = f"{percent(pair.low_percent)} to {percent(pair.high_percent)} %"
        return "undecided", f"{second} takes {ends} longer than {first}"
    fast, slow, told = (first, second, pair) if pair.outcome is Outcome.FASTER else (second, first, pair.reversed())
    if told.percent >= MANY_PERCENT:
        how = f"{1 + told.percent / 100:.3g} ± {told.half_percent / 100:.2g} times as long"
    else:
        how = f"{percent(told.percent)} % ± {percent(told.half_percent)} % longer"
    return "faster", f"{fast} is faster: {slow} takes {how}"


def headline(result: ComparisonResult) -> str:
    """Return how long the comparison took, and what it rests on."""
    if not result.blocks:
        return "nothing was compared"
    endings = {"interrupted": ", interrupted", "undecided": ", the whole budget", "checked": ", the check is certain"}
    end = endings.get(result.status, "")
    return f"{result.blocks} blocks of fresh loads in {result.spent_s:.0f} s{end}"


def advice(result: ComparisonResult) -> str:
    """Return what to do about undecided pairs; empty if there are none."""
    open_pairs = [one for one in result.pairs if one.outcome is Outcome.UNDECIDED]
    if not open_pairs or result.status in ("interrupted", "checked"):
        return ""
    times = max(_times(one, result.question) for one in open_pairs)
    if times > MOST_TIMES:
        return f"They are too close to each other, or to {result.question.ties_percent:g} %, to be told apart here."
    return f"--budget {math.ceil(times * result.question.budget_s / 10) * 10} may decide it."


def _times(pair: Pair, question: Question) -> float:
    """Return by how much the time has to grow until an interval of this centre is decided."""
    half, centre = pair.interval.half_width, abs(pair.interval.log_ratio)
    if not math.isfinite(half):
        return 4.0
    needed = max(centre, question.zone - centre)
    return max(1.5, 1.2 * (half / needed) ** 2) if needed > 0 else math.inf
