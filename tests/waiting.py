"""Waiting for what is about to happen, with a deadline: never for a time in which it should have happened."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]

FIRST_S, LONGEST_S = 0.005, 0.1
"""Seconds between two looks: few at first, more later, since a look at a store or at /proc costs time itself."""


def wait_until(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Return as soon as a condition is true.

    Args:
        true: the condition; an assertion that fails in it ends the wait.
        what: what has not happened, for the error.
        seconds: the longest wait.

    Raises:
        TimeoutError: it was not true in time.
    """
    until, interval = time.monotonic() + seconds, FIRST_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} (after {seconds:g} s)")
        time.sleep(interval)
        interval = min(1.2 * interval, LONGEST_S)
