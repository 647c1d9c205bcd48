"""Charts of the device's stability: latency in the order of measuring, and from pass to pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from latlab.harness.report.chart import Chart, by_role, handle, legend_above, points, thin_out
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet, scale_axis
from latlab.harness.store.vocabulary import Role
from latlab.harness.text import latency_unit, percent

__all__ = ["agreement_of_passes", "order_of_measuring"]

SMOOTHING = 9
"""The number of networks in the running median of the drift."""
ENOUGH = 5
"""The fewest networks for which the spread of their passes is shown."""
PARTS = 5
"""A single pass is cut into this many parts, to show whether it drifts within itself."""


def order_of_measuring(ok: pd.DataFrame, failures: pd.DataFrame, compared: pd.DataFrame) -> Chart | None:
    """Return a chart of latency in the order of measuring.

    If at least `SMOOTHING` networks have a prediction, a second panel shows how far each lies above it.

    Args:
        ok: the measurements.
        failures: the attempts without a latency, drawn as crosses.
        compared: predictions with measured latencies.

    Returns:
        None for fewer than two measurements.
    """
    if len(ok) < 2:
        return None
    drawn, left_out = thin_out(ok)
    excess = _above_prediction(ok, compared)
    drift = len(excess) >= SMOOTHING
    height = 400 if drift else 290
    fig = figure(540, height)
    panels = fig.subplots(2 if drift else 1, 1, sharex=True, squeeze=False, height_ratios=(1.6, 1) if drift else (1,))
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 30 / height, bottom=46 / height, hspace=0.16)
    top: Axes = panels[0, 0]
    bottom: Axes = panels[-1, 0]
    unit = latency_unit(drawn["latency_ms"])
    scale_axis(top, "y", drawn["latency_ms"].to_numpy(float), label=unit.tick)
    quiet(top)
    top.set_ylabel(f"measured, {unit.symbol}")
    titles: dict[str, list[str]] = {}
    handles: list[Line2D] = []
    for kind, rows in by_role(drawn):
        points(top, rows["order"], rows["latency_ms"], kind, f"order-{kind}")
        titles[f"order-{kind}"] = [
            f"{row['arch']}\nnumber {row['order']:.0f}\n{unit.text(row['latency_ms'])}" for _, row in rows.iterrows()
        ]
        handles.append(handle(kind, "hold-out" if kind == Role.HOLDOUT else "samples" if drift else "measured"))
    if len(failures):
        lost, _ = thin_out(failures)
        titles["order-failed"] = [f"{row['arch']}\n{row['status']}" for _, row in lost.iterrows()]
        handles.append(_failed(top, lost["order"].to_numpy(float)))
    legend_above(top, handles)
    caption = "Networks in the order in which they were measured."
    if drift:
        _drift(bottom, excess)
        caption += (
            " Below: how far each lies above its prediction, and the running median of "
            f"{SMOOTHING} in a row. A slope or a step in it means that the device changed."
        )
    bottom.set_xlabel("order of measuring")
    bottom.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    fig.align_ylabels([top, bottom])
    label = "Measured latency in the order of measuring"
    return Chart(inline_svg(fig, "order", label, titles), "Did the device change on the way?", caption + left_out)


def _failed(axes: Axes, order: NDArray[np.float64]) -> Line2D:
    """Draw crosses along the lower edge, and return their legend entry."""
    axes.scatter(
        order,
        np.full(len(order), 0.025),
        transform=axes.get_xaxis_transform(),
        marker="x",
        s=26,
        linewidths=1.6,
        color=COLOURS["alarm"],
        zorder=6,
        gid="order-failed",
        clip_on=False,
    )
    return Line2D(
        [],
        [],
        linestyle="",
        marker="x",
        markersize=5.5,
        color=COLOURS["alarm"],
        markeredgewidth=1.6,
        label="failed",
    )


def _above_prediction(ok: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Return `order` and `percent`: how far each measured latency lies above its prediction."""
    predicted = compared.drop_duplicates("arch").set_index("arch")["predicted_ms"]
    rows = ok[ok["arch"].isin(predicted.index)]
    percents = (rows["latency_ms"] / rows["arch"].map(predicted).astype(float) - 1) * 100
    return pd.DataFrame({"order": rows["order"], "percent": percents})


def _drift(axes: Axes, excess: pd.DataFrame) -> None:
    shown, _ = thin_out(excess)
    # The axis fits 95 % of the networks: one outlier must not flatten the drift of all others.
    reach = max(5.0, float(excess["percent"].abs().quantile(0.95)) * 1.4)
    axes.axhline(0, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    axes.scatter(
        shown["order"],
        shown["percent"].clip(-reach, reach),
        s=10,
        color=COLOURS["muted"],
        linewidths=0,
        alpha=0.7,
    )
    middle = excess["percent"].rolling(SMOOTHING, center=True).median()
    axes.plot(excess["order"], middle, color=COLOURS["measure"], linewidth=2)
    axes.set_ylim(-reach * 1.05, reach * 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_signed_percent))
    quiet(axes)
    axes.set_ylabel("above prediction")


def _signed_percent(value: float, _: object = None) -> str:
    return "0" if abs(value) < 1e-9 else f"{'+' if value > 0 else '−'}{abs(value):g} %"


def agreement_of_passes(ok: pd.DataFrame) -> Chart | None:
    """Return a chart of each pass's deviation from its network's median over all passes, or None for too few networks.

    If the networks have a single pass, its fifths are compared instead.
    """
    rows = [_cut(passes) for passes in ok["passes"] if len(passes)]
    parts = max((len(row) for row in rows), default=0)
    if parts < 2 or len(rows) < ENOUGH:
        return None
    single = bool(ok["passes"].map(len).max() == 1)
    deviations: list[list[float]] = [[] for _ in range(parts)]
    for row in rows:
        medians = [float(np.median(one)) for one in row]
        for at, median in enumerate(medians):
            deviations[at].append((median / float(np.median(medians)) - 1) * 100)

    fig = figure(540, 400)
    axes = fig.subplots()
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 30 / 400, bottom=46 / 400)
    axes.axhline(0, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    middles, titles, ends = [], [], []
    for at, values in enumerate(deviations, start=1):
        low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes.plot([at, at], [low, high], color=COLOURS["measure"], linewidth=1.2, solid_capstyle="butt")
        axes.plot([at, at], [first, third], color=COLOURS["measure"], linewidth=7, alpha=0.45, solid_capstyle="butt")
        middles.append(middle)
        ends += [low, high]
        titles.append(
            f"{'part' if single else 'pass'} {at}, {len(values)} networks\nmedian {_sign(middle)} %"
            f"\nhalf of them {_sign(first)} to {_sign(third)} %\n90 %: {_sign(low)} to {_sign(high)} %"
        )
    axes.scatter(
        range(1, parts + 1),
        middles,
        s=34,
        facecolors=COLOURS["paper"],
        edgecolors=COLOURS["measure"],
        linewidths=1.6,
        zorder=5,
        gid="passes",
    )
    reach = max(1.0, float(np.max(np.abs(ends)))) * 1.1
    axes.set_ylim(-reach, reach)
    axes.set_xlim(0.4, parts + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_signed_percent))
    quiet(axes)
    axes.set_ylabel("deviation")
    unit = "fifth of the pass" if single else "pass"
    axes.set_xlabel(unit)
    legend_above(axes, _keys())
    caption = (
        f"Each {unit} against the same network's median over all of them. A median away from zero means a "
        "device that warms up or was disturbed."
    )
    svg = inline_svg(fig, "passes", "Deviation of each pass from the network's median", {"passes": titles})
    return Chart(svg, "Do the passes agree?", caption)


def _keys() -> list[Line2D]:
    colour = COLOURS["measure"]
    dot = Line2D([], [], linestyle="", marker="o", markersize=5.5, markeredgewidth=1.6)
    dot.set(markerfacecolor=COLOURS["paper"], markeredgecolor=colour, label="median network")
    return [
        dot,
        Line2D([], [], color=colour, linewidth=7, alpha=0.45, solid_capstyle="butt", label="half of them"),
        Line2D([], [], color=colour, linewidth=1.2, label="90 % of them"),
    ]


def _cut(passes: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    if len(passes) > 1:
        return passes
    return [part for part in np.array_split(passes[0], PARTS) if len(part)] if len(passes[0]) >= 2 * PARTS else []


def _sign(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{percent(abs(value))}"
