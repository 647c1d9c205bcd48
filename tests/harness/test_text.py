"""Latencies are spelled in the unit that fits: never as nothing, never with digits that nobody reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latlab.harness.text import latency_text, latency_unit, plain


@pytest.mark.parametrize(
    ("value_ms", "words"),
    [
        (0.000123, "0.123 µs"),
        (0.0456, "45.6 µs"),
        (0.09996, "0.100 ms"),
        (0.1, "0.100 ms"),
        (1.234, "1.23 ms"),
        (1234.5, "1,234 ms"),
        (9_989.0, "9,989 ms"),
        (9_999.6, "10.0 s"),
        (123_456.0, "123 s"),
    ],
)
def test_one_latency_has_the_unit_that_fits_it(value_ms: float, words: str) -> None:
    assert latency_text(value_ms) == words


@given(st.floats(1e-6, 1e9))
def test_what_is_shown_is_the_latency_to_three_digits(value_ms: float) -> None:
    number, symbol = latency_text(value_ms).split(" ")
    back = float(number.replace(",", "")) / {"µs": 1e3, "ms": 1.0, "s": 1e-3}[symbol]
    assert back == pytest.approx(value_ms, rel=0.0051)
    assert len(number.lstrip("0.").replace(".", "").replace(",", "")) >= 3


@pytest.mark.parametrize(
    ("values_ms", "symbol"),
    [
        ([0.02, 0.05], "µs"),
        ([0.05, 5.0], "ms"),
        ([0.001, 0.5], "µs"),
        ([9_000.0, 30_000.0], "s"),
        ([], "ms"),
        ([0.0, -1.0, math.nan, math.inf], "ms"),
        ([0.0, math.nan, 0.03], "µs"),
    ],
)
def test_latencies_that_are_compared_share_a_unit(values_ms: list[float], symbol: str) -> None:
    unit = latency_unit(values_ms)
    assert unit.symbol == symbol
    assert {unit.text(value).split(" ")[1] for value in values_ms} <= {symbol}


def test_numbers_and_ticks_are_in_the_unit() -> None:
    unit = latency_unit([0.02, 0.07])
    assert (unit.name, unit.number(0.0321), unit.tick(0.07), unit.tick(0.0002)) == ("microseconds", "32.1", "70", "0.2")
    assert latency_unit([12_000.0]).tick(15_000.0) == "15"
    assert latency_text(math.nan) == "– ms"


def test_a_string_without_an_end_takes_nothing_with_it() -> None:
    assert plain("(it has: \x9d0;a, \x1b]b) of\nthe table") == "(it has: 0;a, b) of\nthe table"
    assert plain("a \x9d0;title\x9c b \x1b]title\x07 c") == "a  b  c"
