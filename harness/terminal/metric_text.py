"""Values of metrics in words, each with the unit at the end of its metric's name."""

from __future__ import annotations

from latlab.harness.text import latency_text, ms

__all__ = ["text_of", "value_name"]

_UNITS = {"mj": "mJ", "mb": "MB"}


def text_of(value: float, metric: str) -> str:
    """Return a value with its unit; three digits are enough for a prediction."""
    unit = metric.rpartition("_")[2]
    return latency_text(value) if unit == "ms" else f"{ms(value)} {_UNITS.get(unit, unit)}"


def value_name(metric: str) -> str:
    """Return a metric's name without its unit, in words: `peak memory`."""
    return metric.rpartition("_")[0].replace("_", " ")
