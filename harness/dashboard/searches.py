"""The page of searches: the Pareto front of each as it moves from round to round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latlab.harness.dashboard.state import CURRENT_S
from latlab.harness.dashboard.watch import StoreWatch, seconds_of
from latlab.harness.search.notes import SEARCH
from latlab.harness.text import clean

__all__ = ["search_view"]

MOST_SEARCHES = 20
MOST_ROUNDS, MOST_POINTS = 40, 400


def search_view(watch: StoreWatch, params: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return the searches that the store knows of, the newest first, each with its rounds."""
    found: list[dict[str, Any]] = []
    for session in watch.sessions.values():
        noted = session.facts.get(SEARCH)
        if isinstance(noted, dict):
            at = seconds_of(noted.get("at"))
            found.append(
                {
                    "targets": [_text(one) for one in _listed(noted.get("targets"))[:20]],
                    "space": session.campaign.space,
                    "limits": [_text(one) for one in _listed(noted.get("limits"))[:20]],
                    "accuracy": _text(noted.get("accuracy")),
                    "budget": _number(noted.get("budget")),
                    "spent": _number(noted.get("spent")),
                    "found": _text(noted.get("found")),
                    "at": at,
                    "state": "running" if not noted.get("found") and now - at < 60 * CURRENT_S else "ended",
                    "simulated": session.simulated,
                    "rounds": [_round(one) for one in _listed(noted.get("rounds"))[-MOST_ROUNDS:]],
                }
            )
    found.sort(key=lambda one: -float(one["at"]))
    return {"searches": found[:MOST_SEARCHES], "left_out": max(0, len(found) - MOST_SEARCHES)}


def _round(noted: object) -> dict[str, Any]:
    noted = noted if isinstance(noted, dict) else {}
    best = noted.get("best")
    return {
        "round": _number(noted.get("round")),
        "spent": _number(noted.get("spent")),
        "front": _points(noted.get("front")),
        "measured": _points(noted.get("measured")),
        "best": None
        if not isinstance(best, dict)
        else {
            "arch": _text(best.get("arch")),
            "ratio": _number(best.get("ratio")),
            "accuracy": _number(best.get("accuracy")),
        },
    }


def _points(noted: object) -> list[list[float]]:
    pairs = [[_number(value) for value in one[:2]] for one in _listed(noted)[:MOST_POINTS] if isinstance(one, list)]
    return [[x, y] for x, y in (one for one in pairs if len(one) == 2) if x is not None and y is not None]


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _text(value: object) -> str:
    return clean(value, 300) if isinstance(value, str) else ""
