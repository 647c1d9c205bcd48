"""The evidence of a comparison: the blocks' ratios of each pair, and the intervals after the last look."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations

from latlab.harness.compare.result import Pair, Question
from latlab.harness.statistics.group_sequential import Boundary
from latlab.harness.statistics.paired import (
    MIN_BLOCKS,
    Interval,
    Round,
    block_log_ratio,
    interval_of,
    is_precise,
    outcome_of,
)

__all__ = ["Evidence"]


class Evidence:
    """The ratios and intervals of all pairs of some networks.

    Args:
        question: what is asked.
        networks: number of networks, at least two.
    """

    def __init__(self, question: Question, networks: int) -> None:
        self._question = question
        pairs = list(combinations(range(networks), 2))
        # Bonferroni: the intervals of all pairs hold together.
        self._boundary = Boundary((1 - question.confidence) / len(pairs))
        self._values: dict[tuple[int, int], list[float]] = {pair: [] for pair in pairs}
        self._intervals: dict[tuple[int, int], Interval] = {}
        self.blocks = 0
        """Number of blocks so far."""

    def add_block(self, rounds: Sequence[Round], share: float, failed: Container[int]) -> None:
        """Add a block, and look at the intervals.

        Args:
            rounds: the block's rounds.
            share: share of the budget that is spent; 1 if no further block will come.
            failed: places of networks that do not run any more.
        """
        self.blocks += 1
        pairs = self._pairs(failed)
        for pair in pairs:
            value = block_log_ratio(rounds, *pair)
            if value is not None:
                self._values[pair].append(value)
        if self.blocks >= MIN_BLOCKS or share >= 1:
            level = self._boundary.look(self.blocks, share)
            self._intervals = {pair: interval_of(self._values[pair], level) for pair in pairs if self._values[pair]}

    def is_settled(self, failed: Container[int]) -> bool:
        """Return whether further blocks are not worth their time: every pair that is asked about is known."""
        return all(map(self._is_settled, self._pairs(failed)))

    def pairs(self, failed: Container[int]) -> tuple[Pair, ...]:
        """Return what is known of the pairs that still run; none before the first look."""
        zone = self._question.zone
        known = ((pair, self._intervals.get(pair)) for pair in self._pairs(failed))
        return tuple(Pair(*pair, one, outcome_of(one, zone)) for pair, one in known if one is not None)

    def _pairs(self, failed: Container[int]) -> list[tuple[int, int]]:
        return [pair for pair in self._values if not any(place in failed for place in pair)]

    def _is_settled(self, pair: tuple[int, int]) -> bool:
        interval = self._intervals.get(pair)
        if interval is None:
            return False
        limit = self._question.limit
        if limit is not None:  # a gate compares with the first network only
            return pair[0] > 0 or interval.low > limit or interval.high <= limit
        return is_precise(interval, self._question.zone)
