"""What a search leaves in the store, so that others can see it move: fronts and the best network, round by round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.search.limits import Constraints, Measured, unit_symbol
from latlab.harness.store.store import Campaign, Store

__all__ = ["SEARCH", "Look", "SearchNotes"]

SEARCH = "search"
"""The fact of a session that holds the rounds of a search."""
MOST_ROUNDS = 40
MOST_POINTS = 60
"""Networks of a front, and measured ones, in a round."""


@dataclass(frozen=True)
class Look:
    """What a search knows after a look at its candidates."""

    round: int
    spent: int
    """Networks that were measured for it so far."""
    ratio: NDArray[np.float64]
    """Greatest of predicted latency / limit of the networks of the predicted front, which are sorted by it."""
    accuracy: NDArray[np.float64]
    """Of these."""
    archs: Sequence[str]
    """Measured networks."""
    labels: Sequence[Sequence[Measured]]
    """Of these, one for each limit."""
    accuracies: NDArray[np.float64]
    """Of these."""
    leader: int | None
    """The best of these that keeps the limits."""


class SearchNotes:
    """Notes of one search as a fact of the session in which it measures.

    Args:
        store: the store.
        campaign: that measures the networks on the first target.
        constraints: of the search.
        accuracy: the source of accuracies, in words.
        budget: most networks to measure.
    """

    def __init__(self, store: Store, campaign: Campaign, constraints: Constraints, accuracy: str, budget: int) -> None:
        self._store, self._campaign, self._constraints = store, campaign, constraints
        self._facts: dict[str, Any] = {
            "targets": sorted({one.target for one in constraints.limits}),
            "limits": [f"{one.max_ms:g} {unit_symbol(one.metric)} on {one.target}" for one in constraints.limits],
            "accuracy": accuracy,
            "budget": budget,
        }
        self._rounds: list[Mapping[str, Any]] = self._earlier()

    def add(self, look: Look) -> None:
        """Note what is known after a look."""
        ratios = np.array(
            [
                max(one.latency_ms / limit.max_ms for one, limit in zip(row, self._constraints.limits, strict=True))
                for row in look.labels
            ]
        )
        leader = look.leader
        noted = {
            "round": look.round,
            "spent": look.spent,
            "front": _points(look.ratio, look.accuracy),
            "measured": _points(ratios, look.accuracies),
            "best": None
            if leader is None
            else {
                "arch": look.archs[leader],
                "ratio": round(float(ratios[leader]), 5),
                "accuracy": round(float(look.accuracies[leader]), 6),
            },
        }
        self._rounds = [*(one for one in self._rounds if one.get("round") != look.round), noted][-MOST_ROUNDS:]
        self._write("")

    def end(self, found: str) -> None:
        """Note why the search has ended."""
        self._write(found)

    def _write(self, found: str) -> None:
        spent = self._rounds[-1]["spent"] if self._rounds else 0
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        facts = {**self._facts, "spent": spent, "at": at, "found": found, "rounds": self._rounds}
        self._store.note_session(self._campaign.id, self._session(), **{SEARCH: facts})

    def _session(self) -> int:
        return 1  # all rounds stay together, also if a network is measured again in a later one

    def _earlier(self) -> list[Mapping[str, Any]]:
        """Return the rounds that an earlier run of the same search has noted."""
        noted = self._store.session_facts(self._campaign.id, self._session()).get(SEARCH)
        same = isinstance(noted, dict) and all(noted.get(name) == value for name, value in self._facts.items())
        rounds = noted.get("rounds") if isinstance(noted, dict) and same else None
        return [one for one in rounds if isinstance(one, dict)] if isinstance(rounds, list) else []


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    if not len(x):
        return []
    keep = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return [[round(float(x[at]), 5), round(float(y[at]), 6)] for at in keep]
