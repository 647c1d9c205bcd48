"""Curves in a terminal from Braille dots, two across and four down in each character."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["curve", "sparkline"]

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BARS = "▁▂▃▄▅▆▇█"


def curve(xs: Sequence[float], ys: Sequence[float], width: int, height: int, low: float, high: float) -> list[str]:
    """Return `height` lines of `width` characters, from the highest value down.

    Args:
        xs: positions from 0 to 1, ascending.
        ys: values, drawn between `low` and `high` and joined.
        width: characters per line.
        height: number of lines.
        low: the value at the bottom.
        high: the value at the top.
    """
    columns, rows = 2 * width, 4 * height
    cells = [[_BLANK] * width for _ in range(height)]
    points = [
        (min(columns - 1, int(x * columns)), rows - 1 - _level(y, low, high, rows)) for x, y in zip(xs, ys, strict=True)
    ]
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points, strict=False):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x, y = round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return ["".join(map(chr, row)) for row in cells]


def sparkline(values: Sequence[float | None], low: float, high: float) -> str:
    """Return one bar character for each value, and a space for an unknown one."""
    return "".join(" " if one is None else _BARS[_level(one, low, high, len(_BARS))] for one in values)


def _level(value: float, low: float, high: float, levels: int) -> int:
    share = (value - low) / (high - low) if high > low else 0.0
    return min(levels - 1, max(0, math.floor(share * levels)))
