"""The class of fuzzers, and the function that runs one: a number of cases, each with a time limit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["Fuzzer", "HangError", "check_printable", "run"]

CASE_S = 20.0
"""Seconds that a case may take. Most take milliseconds; the rest is for a busy machine."""


class HangError(BaseException):
    """A case that does not end. It is no `Exception`, so that nothing under test catches it."""


@dataclass(frozen=True)
class Fuzzer:
    """A check of code that reads what others wrote, with the strategy that makes its cases.

    Args:
        strategy: makes cases.
        check: tries one; raises where something is wrong.
        share: of all cases.
        examples: cases that are always tried, such as those that once went wrong.
        finish: called at the end of a run; checks what all cases left behind.
    """

    name: str
    strategy: SearchStrategy[Any]
    check: Callable[[Any], None]
    share: float
    examples: tuple[Any, ...] = field(default=())
    finish: Callable[[], None] = lambda: None


def run(fuzzer: Fuzzer, cases: int, number: int | None = None) -> None:
    """Try `cases` cases; raise what the smallest failing one raises.

    Args:
        number: of the random generator; None: always the same cases.
    """

    def try_one(case: Any) -> None:
        with _limited(CASE_S):
            fuzzer.check(case)

    test = given(fuzzer.strategy)(try_one)
    for one in fuzzer.examples:
        test = example(one)(test)
    if number is not None:
        test = seed(number)(test)
    test = settings(
        max_examples=cases,
        derandomize=number is None,
        print_blob=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(test)
    test()
    fuzzer.finish()


def check_printable(value: Any) -> None:
    """Assert that all text in a tree of JSON is printable and that its whole numbers fit into 64 bits."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, list):
            left += one
        else:
            assert not isinstance(one, str) or one.isprintable(), one
            assert type(one) is not int or -(1 << 63) <= one < 1 << 63


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise HangError(f"it did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
