"""The page of `latlab compare --targets`: every network on both targets, and those that change their rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from latlab.harness.compare.between_targets import TargetComparison
from latlab.harness.report import theme
from latlab.harness.report.chart import Chart, thin_out
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, quiet, scale_axis
from latlab.harness.report.tiles import Tile
from latlab.harness.text import LatencyUnit, clean, correlation, fine_correlation, latency_unit

__all__ = ["render", "write_page"]

WIDTH, HEIGHT = 540, 480
SHOWN = 50
"""The most networks in the table."""


def write_page(found: TargetComparison, path: Path) -> Path:
    """Write the page, and return its absolute path. Raises `BadInputError` if it cannot be written."""
    return write_whole(render(found), path)


def render(found: TargetComparison) -> str:
    """Return the page as text."""
    with theme.style():
        chart = _scatter(found)
    agreement, ratio = found.agreement, found.ratio
    note = f"{correlation(agreement.low)} to {correlation(agreement.high)}, over networks"
    tiles = [
        Tile("Spearman", fine_correlation(agreement.spearman), note=note),
        Tile("Median ratio", f"{ratio.ratio:.3g}", note=f"{ratio.low:.3g} to {ratio.high:.3g}, second / first"),
        Tile(
            "Networks", f"{len(found.networks):,}", note=f"{found.failed} without both labels" if found.failed else ""
        ),
        Tile("Change rank", f"{len(found.changed):,}", note="beyond their error bars"),
    ]
    first, second = latency_unit(found.networks["first_ms"]), latency_unit(found.networks["second_ms"])
    rows = [
        {
            "arch": clean(str(row["arch"])),
            "cells": (
                row["first_rank"],
                row["second_rank"],
                f"{first.number(row['first_ms'])} ± {first.number(row['first_stderr_ms'])}",
                f"{second.number(row['second_ms'])} ± {second.number(row['second_stderr_ms'])}",
                row["reversals"],
            ),
        }
        for _, row in found.changed.head(SHOWN).iterrows()
    ]
    return (
        environment(Path(__file__).parent)
        .get_template("compare.html")
        .render(
            css=stylesheet(),
            first=clean(found.first),
            second=clean(found.second),
            space=clean(found.space),
            simulated=found.simulated,
            tiles=tiles,
            chart=chart,
            rows=rows,
            first_unit=first.symbol,
            second_unit=second.symbol,
            left_out=max(0, len(found.changed) - SHOWN),
        )
    )


def _scatter(found: TargetComparison) -> Chart:
    drawn, left_out = thin_out(found.networks.sort_values("first_ms"))
    figure = theme.figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    figure.subplots_adjust(left=66 / WIDTH, right=1 - 14 / WIDTH, top=1 - 14 / HEIGHT, bottom=46 / HEIGHT)
    first, second = latency_unit(drawn["first_ms"]), latency_unit(drawn["second_ms"])
    scale_axis(axes, "x", drawn["first_ms"].to_numpy(float), label=first.tick)
    scale_axis(axes, "y", drawn["second_ms"].to_numpy(float), label=second.tick)
    quiet(axes, grid="")
    low, high = axes.get_xlim()
    path = np.geomspace(low, high, 100) if low > 0 else np.linspace(low, high, 100)
    bottom, top = axes.get_ylim()
    axes.plot(path, path * found.ratio.ratio, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    axes.set_ylim(bottom, top)
    changed = drawn["arch"].isin(found.changed["arch"])
    for part, colour, gid in ((drawn[~changed], "train", "same"), (drawn[changed], "alarm", "changed")):
        _points(axes, part, COLOURS[colour], gid)
    axes.set_xlabel(f"{clean(found.first, 60)}, {first.symbol}")
    axes.set_ylabel(f"{clean(found.second, 60)}, {second.symbol}")
    titles = {
        gid: [_tooltip(row, first, second) for _, row in part.iterrows()]
        for gid, part in (("same", drawn[~changed]), ("changed", drawn[changed]))
    }
    svg = inline_svg(figure, "targets", "Latency on the second target over latency on the first", titles)
    caption = (
        "Each point is a network, with bars of one standard error; the line is the median ratio. Red: networks that "
        f"change their rank beyond their error bars.{left_out}"
    )
    return Chart(svg, "Every network on both targets", caption)


def _points(axes: Axes, part: pd.DataFrame, colour: str, gid: str) -> None:
    if part.empty:
        return
    axes.errorbar(
        part["first_ms"],
        part["second_ms"],
        xerr=part["first_stderr_ms"].fillna(0),
        yerr=part["second_stderr_ms"].fillna(0),
        fmt="none",
        ecolor=colour,
        elinewidth=0.8,
        alpha=0.5,
        zorder=2,
    )
    axes.scatter(part["first_ms"], part["second_ms"], s=20, color=colour, linewidths=0, zorder=3, gid=gid)


def _tooltip(row: pd.Series, first: LatencyUnit, second: LatencyUnit) -> str:
    return clean(f"{row['arch']}\n{first.text(row['first_ms'])}, {second.text(row['second_ms'])}")
