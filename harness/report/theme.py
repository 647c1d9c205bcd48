"""The look of the charts: sizes in pixels, and colours that the style sheet decides.

Charts are drawn in stand-in colours, which `svg.py` replaces with the CSS variables of the same name, so that one
SVG fits the light scheme, the dark scheme and the printer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

__all__ = ["COLOURS", "figure", "quiet", "scale_axis", "style"]

_NAMES = (
    *("ink", "muted", "grid", "paper", "train", "holdout", "cloud", "band", "alarm"),
    *("build", "export", "parity", "push", "load", "warm", "measure"),
)
COLOURS = {name: f"#c0de{index:02x}" for index, name in enumerate(_NAMES, start=1)}
"""The stand-in colour of each CSS variable `--name`."""

FONT_PX = 12.0
LOG_FROM_RATIO = 3.0
"""An axis is logarithmic if its largest value is at least this many times the smallest."""
_DECADES = 307
_LARGEST = 10.0**_DECADES
"""What is beyond is drawn at the edge: matplotlib itself computes with somewhat larger numbers."""

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "latlab",
    "path.simplify": False,
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same layout everywhere
    "font.size": FONT_PX,
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.labelsize": FONT_PX,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.labelsize": FONT_PX - 1,
    "ytick.labelsize": FONT_PX - 1,
    "xtick.major.size": 4.0,
    "ytick.major.size": 4.0,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": FONT_PX - 0.5,
    "legend.handletextpad": 0.35,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.0,
    "lines.solid_capstyle": "round",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the report's settings on top of matplotlib's defaults, within the `with` block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def figure(width_px: float, height_px: float) -> Figure:
    """Return an empty figure in which one SVG unit is one CSS pixel, and so is one point of a font."""
    return Figure(figsize=(width_px / 72, height_px / 72), dpi=72)


def quiet(axes: Axes, *, grid: str = "y") -> None:
    """Draw faint grid lines for one axis ("x", "y", "both"), and no tick marks on a y axis that has grid lines."""
    if grid:
        axes.grid(True, axis="both" if grid == "both" else "x" if grid == "x" else "y")
    if grid in ("y", "both"):
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)


def scale_axis(
    axes: Axes,
    which: str,
    values: Sequence[float] | np.ndarray,
    *,
    label: Callable[[float], str],
    room: float = 0.06,
) -> bool:
    """Set limits, scale and plain ticks of axis "x" or "y" so that `values` fit.

    Args:
        axes: the plot.
        which: the axis.
        values: finite numbers.
        label: formats a tick.
        room: the share of the axis that stays free at each end.

    Returns:
        Whether the axis is logarithmic.
    """
    low, high = (min(max(float(one), -_LARGEST), _LARGEST) for one in (np.min(values), np.max(values)))
    log = low > 0 and (high / low >= LOG_FROM_RATIO or not 1 / _LARGEST**0.5 < low <= high < _LARGEST**0.5)
    axis = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        # In decades: the numbers themselves may be as small and as large as numbers can be.
        first, last = (max(math.log10(one), -_DECADES) for one in (low, high))
        margin = (last - first) * room / (1 - 2 * room) or room
        low, high = 10.0 ** max(first - margin, -_DECADES), 10.0 ** min(last + margin, _DECADES)
        axis.set_major_locator(FixedLocator(log_ticks(low, high)))
        axis.set_minor_locator(NullLocator())
    else:
        # A single value, or values all alike, still get an axis with some width.
        margin = (high - low) * room / (1 - 2 * room) or abs(high) * 0.1 or 1.0
        low, high = max(low - margin, 0.0) if low >= 0 else low - margin, high + margin
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    set_limits(low, high)
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(float(value))))
    return log


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between `low` and `high` (> 0), four to seven of them if possible."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for step in (
        (1,),
        (1, 3),
        (1, 2, 5),
        (1, 1.5, 2, 3, 5, 7),
        (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
    ):
        best = [tick for d in decades for m in step if low <= (tick := float(f"{m}e{d}")) <= high]
        if len(best) >= 4:
            break
    every = max(1, math.ceil(len(best) / 7))
    return best[::every]
