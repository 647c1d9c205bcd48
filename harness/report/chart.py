"""A chart of the report, and the elements that several charts draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from latlab.harness.report.theme import COLOURS
from latlab.harness.store.vocabulary import Role

__all__ = ["MAX_POINTS", "Chart", "by_role", "handle", "is_holdout", "legend_above", "points", "thin_out"]

MAX_POINTS = 800
"""The most points that one chart draws: more are not legible, and make the file large."""
LEGEND_PX = 11
"""Pixels between a plot and the legend above it."""


@dataclass(frozen=True)
class Chart:
    """An inlined SVG with its heading and its caption, both plain text."""

    svg: Markup
    title: str
    caption: str


def is_holdout(frame: pd.DataFrame) -> pd.Series:
    """Return a mask of the hold-out's rows."""
    return frame["role"] == Role.HOLDOUT


def by_role(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return ("holdout", its rows) and ("train", all other rows) in the order of drawing. Empty groups are left out."""
    held = is_holdout(frame)
    return [(kind, rows) for kind, rows in (("holdout", frame[held]), ("train", frame[~held])) if len(rows)]


def thin_out(frame: pd.DataFrame, limit: int = MAX_POINTS) -> tuple[pd.DataFrame, str]:
    """Return at most `limit` rows, evenly spaced, and a sentence for the caption if any were left out."""
    if len(frame) <= limit:
        return frame, ""
    keep = np.unique(np.linspace(0, len(frame) - 1, limit).round().astype(int))
    return frame.iloc[keep], f" {len(keep):,} of {len(frame):,} networks are drawn."


def points(axes: Axes, x: Sequence[float] | pd.Series, y: Sequence[float] | pd.Series, kind: str, gid: str) -> None:
    """Draw one kind of mark: samples of the predictor are filled diamonds, the hold-out is open circles.

    Shape and filling distinguish them as well as colour, for grey print and for colour-blind readers.
    """
    hollow = kind == Role.HOLDOUT
    colour = COLOURS["holdout" if hollow else "train"]
    axes.scatter(
        x,
        y,
        marker="o" if hollow else "D",
        s=22 if hollow else 24,
        facecolors=COLOURS["paper"] if hollow else colour,
        edgecolors=colour if hollow else COLOURS["paper"],
        linewidths=1.2 if hollow else 0.6,
        zorder=4 if hollow else 5,
        clip_on=False,
        gid=gid,
    )


def handle(kind: str, name: str, *, line: bool = False) -> Line2D:
    """Return the legend's entry for the marks of `points`, with or without a line through them."""
    return Line2D(
        [],
        [],
        linestyle="-" if line else "",
        linewidth=1.4,
        color=COLOURS[kind],
        marker="o" if kind == Role.HOLDOUT else "D",
        markersize=5,
        markerfacecolor=COLOURS["paper" if kind == Role.HOLDOUT else kind],
        markeredgecolor=COLOURS[kind],
        markeredgewidth=1.2,
        label=name,
    )


def legend_above(axes: Axes, handles: Sequence[Line2D | Patch]) -> None:
    """Draw the legend in one line above the plot, so that it never covers data."""
    if handles:
        up = 1 + LEGEND_PX / axes.get_window_extent().height
        names = [str(each.get_label()) for each in handles]
        axes.legend(handles, names, loc="lower left", bbox_to_anchor=(0.0, up), ncols=len(names))
