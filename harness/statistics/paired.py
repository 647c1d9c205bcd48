"""Paired comparison of two networks whose passes take turns: blocks of rounds, their log-ratios, interval and verdict.

What can go wrong when one asks which of two networks is faster, and what is done about it:

* Bursts slow both networks at once: in every round each network has one pass, and only ratios within a few successive
  rounds are used. Two successive rounds have opposite orders (ABBA), so that a drift within them cancels.
* A disturbance only ever adds time, so a network is represented by its shortest run in a window of `WINDOW` rounds
  (Chen and Revels). Both passes of a round are cut to the same number of runs, because more runs have a shorter
  minimum. A block is represented by the median over its windows. (On two cores with a load of 13, the standard
  deviation of blocks of ten rounds was .0062, with windows of one round .0111; on a quieter machine .0046 and .0054.)
* Two loadings of the same file differ by some tenths of a percent, persistently, because their weights and activations
  lie at other addresses; more rounds do not remove that (Mytkowicz et al.; Kalibera and Jones). So every block loads
  all networks anew, in random order, in a fresh process, and the interval is computed from the scatter of whole blocks.
  Blocks also outlast most of the noise's autocorrelation.
* The interval is looked at after every block: its critical values are those of a group-sequential design
  (`group_sequential`), so that all intervals of a run hold at once, and with them every verdict, whatever stops it.

Sources:
    Chen and Revels (2016), arXiv:1608.04295: noise of computers is positive, and the minimum robust.
    Mytkowicz, Diwan, Hauswirth and Sweeney (2009), ASPLOS, 265-276: measurement bias by memory layout.
    Kalibera and Jones (2013), ISMM, 63-74: repetitions at each level that varies, executions above all.
    Yuen (1974), Biometrika 61, 165-170: Student's t for trimmed means.
    Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657-680: equivalence as an interval within the zone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median

from scipy import special

from latlab.harness.statistics.estimators import trimmed_mean, winsorised_stderr

__all__ = [
    "MIN_BLOCKS",
    "WINDOW",
    "Interval",
    "Outcome",
    "Round",
    "block_log_ratio",
    "interval_of",
    "is_precise",
    "outcome_of",
]

TRIM = 0.1
"""Share of the blocks that is cut at each end: now and then a whole block is disturbed."""
WINDOW = 6
"""Least number of rounds in a window, if the block has as many."""
MIN_BLOCKS = 4
"""Fewest blocks of an interval: below, Student's t says next to nothing."""
PRECISE_SHARE = 0.1
"""A difference is known well enough if half its interval is at most this share of it (or the indifference zone)."""
LEAST_STDERR = 1e-6
"""Least standard error of a log-ratio that is believed: clocks have a resolution, so that values may be equal."""

Round = Mapping[int, Sequence[int]]
"""One round of passes: the samples in ns of each network's pass, by the network's place in the comparison."""


class Outcome(StrEnum):
    """What is known about a pair of networks."""

    FASTER = "faster"
    """The first one is faster."""
    SLOWER = "slower"
    """The first one is slower."""
    TIE = "tie"
    """They differ by no more than the indifference zone."""
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Interval:
    """The estimated log-ratio of two latencies, log(second / first), with its interval."""

    log_ratio: float
    low: float
    high: float
    blocks: int
    """Number of blocks that it is computed from."""

    @property
    def ratio(self) -> float:
        """Latency of the second network over that of the first."""
        return math.exp(self.log_ratio)

    @property
    def half_width(self) -> float:
        """Half the interval's width, in logarithms."""
        return (self.high - self.low) / 2


def block_log_ratio(rounds: Sequence[Round], first: int, second: int) -> float | None:
    """Return the median over a block's windows of log(second / first); None if no round has both networks.

    Args:
        rounds: the block's rounds, in order.
        first, second: places of the two networks in the comparison.
    """
    shortest = [_shortest(one[first], one[second]) for one in rounds if one.get(first) and one.get(second)]
    if not shortest:
        return None
    windows = max(1, len(shortest) // WINDOW)
    ends = [len(shortest) * number // windows for number in range(windows + 1)]
    parts = [shortest[start:end] for start, end in pairwise(ends)]
    return median(math.log(min(b for _, b in part) / min(a for a, _ in part)) for part in parts)


def _shortest(first: Sequence[int], second: Sequence[int]) -> tuple[int, int]:
    """Return the shortest run of each of two passes, among as many runs of each, in ns and at least 1."""
    runs = min(len(first), len(second))
    return max(1, min(first[:runs])), max(1, min(second[:runs]))


def interval_of(values: Sequence[float], level: float) -> Interval:
    """Return the trimmed mean of the blocks' log-ratios, with an interval that fails with probability `level`.

    It is Yuen's: Student's t with h - 1 degrees of freedom for the h blocks kept. With fewer than `MIN_BLOCKS` blocks
    the interval is endless.

    Args:
        values: one log-ratio per block, at least one.
        level: two-sided significance level of this look (`group_sequential.Boundary.look`).
    """
    centre = trimmed_mean(values, TRIM)
    count = len(values)
    if count < MIN_BLOCKS:
        return Interval(centre, -math.inf, math.inf, count)
    kept = count - 2 * math.floor(TRIM * count)
    half = max(winsorised_stderr(values, TRIM), LEAST_STDERR) * -float(special.stdtrit(kept - 1, level / 2))
    return Interval(centre, centre - half, centre + half, count)


def outcome_of(interval: Interval, zone: float) -> Outcome:
    """Return what an interval of log(second / first) says about the first network.

    Args:
        zone: the indifference zone in logarithms. An interval within it is a tie, even if it excludes 0: a difference
            that does not matter may still be certain.
    """
    if -zone <= interval.low and interval.high <= zone:
        return Outcome.TIE
    if interval.low > 0:
        return Outcome.FASTER
    return Outcome.SLOWER if interval.high < 0 else Outcome.UNDECIDED


def is_precise(interval: Interval, zone: float) -> bool:
    """Return whether further blocks are not worth their time: the pair is decided, and the difference well known."""
    if outcome_of(interval, zone) is Outcome.UNDECIDED:
        return False
    return interval.half_width <= max(zone, PRECISE_SHARE * abs(interval.log_ratio))
