"""Axes of the report's charts: any finite numbers have a place on them."""

from __future__ import annotations

import io
import math

import pytest

from latlab.harness.report.theme import figure, log_ticks, scale_axis, style


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0], [2.0, 2.0], [0.0, 0.0], [1e-7, 1e9], [1e-320, 1e308], [5e-324] * 2, [1.7e308] * 2, [0.0, 1.7e308],
        [-1.7e308, 1.7e308], [-3.0, 1e-300],
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["x", "y"])
def test_any_finite_numbers(values: list[float], which: str) -> None:
    with style():
        page = figure(300, 200)
        axes = page.add_subplot()
        axes.plot(values, [1.0] * len(values)) if which == "x" else axes.plot([1.0] * len(values), values)
        scale_axis(axes, which, values, label=lambda value: f"{value:.3g}")
        page.savefig(io.BytesIO(), format="svg")
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    assert math.isfinite(low)
    assert low < high < math.inf


def test_ticks_of_small_numbers_are_not_rounded_away() -> None:
    assert log_ticks(1e-18, 1e-14) == [1e-18, 1e-17, 1e-16, 1e-15, 1e-14]
