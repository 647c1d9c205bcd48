"""A map of the space: cost against latency, with the measured networks, and the distribution of both."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from numpy.typing import NDArray

from latlab.harness.report.chart import Chart, by_role, handle, is_holdout, legend_above, points, thin_out
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, scale_axis
from latlab.harness.store.vocabulary import Role
from latlab.harness.text import latency_text, latency_unit, millions, tick

__all__ = ["space_map"]

ENOUGH = 3
"""The fewest measured networks for a chart of their own."""
CELL_PX = 9.0
"""The width of a hexagon in pixels."""
SHADES = (0.16, 0.32, 0.52, 0.76)
"""The opacity of the hexagons, from few networks to many."""


def space_map(sample: pd.DataFrame, ok: pd.DataFrame) -> Chart | None:
    """Return a chart of MACs against latency: the space as predicted, and the measured networks as measured.

    `sample` may be large: it is drawn as hexagons in a few shades. If it is empty, the measured networks
    are drawn alone, if there are enough of them; else the result is None.
    """
    measured = ok[ok["macs"] > 0]
    if sample.empty:
        return _measured_alone(measured) if len(measured) >= ENOUGH else None
    # The hold-out is left out: it is a random draw, and would only hide the samples that the predictor chose.
    measured, left_out = thin_out(measured[~is_holdout(measured)])
    macs, predicted = sample["macs"].to_numpy(float), sample["predicted_ms"].to_numpy(float)

    fig = figure(540, 520)
    grid = fig.subplots(2, 2, sharex="col", sharey="row", height_ratios=(1, 5.4), width_ratios=(5.4, 1))
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 28 / 520, bottom=46 / 520, hspace=0.05, wspace=0.05)
    above, corner, main, beside = grid.ravel()
    for side in (above, corner, beside):
        side.set_axis_off()
    _scale(main, np.append(macs, measured["macs"]), np.append(predicted, measured["latency_ms"]))
    _cloud(main, macs, predicted)
    _margin(above, macs, horizontal=True)
    _margin(beside, predicted, horizontal=False)
    size = f"predicted: {len(sample):,} distinct networks, drawn at random"
    handles: list[Line2D | Patch] = [Patch(facecolor=COLOURS["cloud"], alpha=SHADES[2], label=size)]
    titles: dict[str, list[str]] = {}
    if len(measured):
        x, y, colour = measured["macs"], measured["latency_ms"], COLOURS["train"]
        points(main, x, y, "train", "space-train")
        above.plot(x, np.zeros(len(x)), "|", color=colour, markersize=9, clip_on=False)
        beside.plot(np.zeros(len(y)), y, "_", color=colour, markersize=9, clip_on=False)
        titles["space-train"] = _titles(measured)
        handles.insert(0, handle("train", "measured"))
    legend_above(above, handles)
    caption = (
        "The stronger the shade of a cell, the more networks of the space the predictor expects there. "
        "Along the sides: their distribution, and a tick for each measured sample." + left_out
    )
    label = "Multiply-accumulates against latency: the space and the measured networks"
    return Chart(inline_svg(fig, "space", label, titles), "Where the samples lie in the space", caption)


def _measured_alone(measured: pd.DataFrame) -> Chart:
    measured, left_out = thin_out(measured)
    fig = figure(540, 400)
    axes = fig.subplots()
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 30 / 400, bottom=46 / 400)
    _scale(axes, measured["macs"].to_numpy(float), measured["latency_ms"].to_numpy(float))
    titles: dict[str, list[str]] = {}
    handles = []
    for kind, rows in by_role(measured):
        points(axes, rows["macs"], rows["latency_ms"], kind, f"space-{kind}")
        titles[f"space-{kind}"] = _titles(rows)
        handles.append(handle(kind, "hold-out" if kind == Role.HOLDOUT else "measured"))
    legend_above(axes, handles)
    svg = inline_svg(fig, "space", "Multiply-accumulates against measured latency", titles)
    return Chart(svg, "Cost and latency", left_out.strip())


def _scale(axes: Axes, macs: NDArray[np.float64], latency: NDArray[np.float64]) -> None:
    scale_axis(axes, "x", macs, label=tick)
    unit = latency_unit(latency)
    scale_axis(axes, "y", latency, label=unit.tick)
    axes.set_xlabel("multiply-accumulates")
    axes.set_ylabel(f"latency, {unit.symbol}")


def _titles(rows: pd.DataFrame) -> list[str]:
    return [
        f"{row['arch']}\nmeasured {latency_text(row['latency_ms'])}\n{millions(row['macs'])} MACs"
        for _, row in rows.iterrows()
    ]


def _cloud(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Draw hexagons in pixels, which are regular on any scale, as one path per shade for any number of networks."""
    places = axes.transData.transform(np.column_stack([x, y]))
    centres, counts = hexagons(places, CELL_PX)
    share = np.log(counts) / np.log(max(counts.max(), 2))
    shade = np.minimum((share * len(SHADES)).astype(int), len(SHADES) - 1)
    angles = np.pi / 6 + np.arange(7) * np.pi / 3
    outline = CELL_PX / np.sqrt(3) * 0.96 * np.column_stack([np.cos(angles), np.sin(angles)])
    codes = [Path.MOVETO, *[Path.LINETO] * 5, Path.CLOSEPOLY]
    for level, opacity in enumerate(SHADES):
        here = centres[shade == level]
        if len(here):
            corners = (here[:, None, :] + outline[None]).reshape(-1, 2)
            path = Path(corners, np.tile(codes, len(here)))
            # The identity transform keeps the patch from changing the limits of the axes.
            axes.add_patch(
                PathPatch(
                    path,
                    transform=IdentityTransform(),
                    facecolor=COLOURS["cloud"],
                    alpha=opacity,
                    linewidth=0,
                    zorder=1,
                )
            )


def hexagons(places: NDArray[np.float64], width: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the centres (n x 2) of the occupied cells of a hexagonal grid, and how many of `places` are in each.

    The grid consists of two rectangular grids, one of them shifted by half a cell. Each place belongs to the nearer
    point of the two (Carr et al. 1987, Scatterplot matrix techniques for large N).
    """
    size = np.array([width, width * np.sqrt(3)])
    first = np.round(places / size) * size
    second = (np.floor(places / size) + 0.5) * size
    nearer = ((places - first) ** 2).sum(axis=1) <= ((places - second) ** 2).sum(axis=1)
    # Half-cell units are whole numbers, so that equal centres compare equal.
    units = np.round(np.where(nearer[:, None], first, second) / size * 2).astype(np.int64)
    cells, counts = np.unique(units, axis=0, return_counts=True)
    return cells * size / 2, counts.astype(np.int64)


def _margin(axes: Axes, values: NDArray[np.float64], *, horizontal: bool) -> None:
    scale, limits = (axes.get_xscale(), axes.get_xlim()) if horizontal else (axes.get_yscale(), axes.get_ylim())
    edges = np.geomspace(*limits, 61) if scale == "log" else np.linspace(*limits, 61)
    heights, _ = np.histogram(values, bins=edges)
    axes.stairs(
        heights,
        edges,
        orientation="vertical" if horizontal else "horizontal",
        fill=True,
        color=COLOURS["cloud"],
        alpha=SHADES[2],
        linewidth=0,
    )
    top = float(heights.max()) or 1.0
    if horizontal:
        axes.set_ylim(-0.22 * top, top)
    else:
        axes.set_xlim(-0.22 * top, top)
