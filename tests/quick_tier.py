"""Which tests are quick: those that a developer runs after each change (`python -m pytest -m quick`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

__all__ = ["CASES", "TOO_LONG", "choose"]

CASES = 4
"""Cases of a parametrized test that are quick, the first ones; the full run has the others."""
_SLOW_MARKS = ("slow", "peers", "gpu", "data")
TOO_LONG: tuple[str, ...] = ()
"""Folders, modules and tests that would take more than their share of two minutes, by the beginning of their ids."""


def choose(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests of a collection that are quick."""
    cases: Counter[str] = Counter()
    chosen = []
    for item in items:
        if any(item.get_closest_marker(mark) for mark in _SLOW_MARKS):
            continue
        function, _, _ = item.nodeid.partition("[")
        cases[function] += 1
        if cases[function] <= CASES and not _is_too_long(item.nodeid):
            chosen.append(item)
    return chosen


def _is_too_long(node: str) -> bool:
    return node.removeprefix("tests/").startswith(TOO_LONG)
