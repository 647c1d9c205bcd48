"""Tests of all fuzzers on 2,000 cases, always the same: no traceback, no hang, no row from a broken reply."""

from __future__ import annotations

import pytest

from fuzz.cases import FUZZERS, cases_of
from fuzz.core import Fuzzer, run

CASES = 2000


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda fuzzer: fuzzer.name)
def test_nothing_that_is_read_can_hurt(fuzzer: Fuzzer) -> None:
    run(fuzzer, cases_of(fuzzer, CASES))


def test_all_cases_are_given_to_somebody() -> None:
    assert sum(cases_of(fuzzer, CASES) for fuzzer in FUZZERS) == CASES
