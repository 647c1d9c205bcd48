"""Charts of a target's labels: do they repeat, how noisy are they, do they depend on when they were measured.

Each function takes the `name` that prefixes the ids in its SVG, because several targets share a page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from latlab.harness.quality.session_data import SessionData
from latlab.harness.report import theme
from latlab.harness.report.chart import Chart, legend_above, thin_out
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet, scale_axis
from latlab.harness.statistics.verdicts import KINDS
from latlab.harness.text import count, latency_unit, percent

__all__ = ["measured_again", "noise_by_latency", "residual_by_order", "verdict_bars"]

WIDTH = 540
SMOOTHING = 9
"""The number of networks in the running median over the order of measuring."""
BULK = 0.97
"""An axis of deviations fits this share of the points: one outlier must not flatten all others."""
KEYS = {True: "good", False: "flagged"}


def _marks(axes: Axes, x: pd.Series, y: pd.Series, good: bool, gid: str) -> None:
    """Draw filled circles, or crosses for flagged labels, which differ in grey print, too."""
    if good:
        axes.scatter(x, y, s=16, color=COLOURS["measure"], linewidths=0, alpha=0.75, zorder=4, gid=gid)
    else:
        axes.scatter(x, y, s=26, marker="x", color=COLOURS["alarm"], linewidths=1.4, zorder=5, gid=gid)


def _key(good: bool, number: int) -> Line2D:
    look = {"marker": "o", "color": COLOURS["measure"]} if good else {"marker": "x", "color": COLOURS["alarm"]}
    return Line2D([], [], linestyle="", markersize=4.5, label=f"{number:,} {KEYS[good]}", **look)  # type: ignore[arg-type]


def measured_again(first: SessionData, second: SessionData, name: str) -> Chart | None:
    """Return a chart of labels of the same networks in two measurement sessions, and their difference in per cent.

    The result is None for fewer than three networks in common.
    """
    both = first.labels.merge(second.labels, left_index=True, right_index=True, suffixes=("_a", "_b"))
    if len(both) < 3:
        return None
    drawn, left_out = thin_out(both)
    ratio = 100 * (drawn["latency_ms_b"] / drawn["latency_ms_a"] - 1)
    fig = figure(WIDTH, 480)
    top, below = fig.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    fig.subplots_adjust(left=62 / WIDTH, right=1 - 12 / WIDTH, top=1 - 30 / 480, bottom=46 / 480, hspace=0.09)
    values = drawn[["latency_ms_a", "latency_ms_b"]].to_numpy(float)
    unit = latency_unit(values.ravel())
    scale_axis(top, "y", values, label=unit.tick, room=0.05)
    scale_axis(top, "x", values, label=unit.tick, room=0.05)
    top.plot(top.get_xlim(), top.get_xlim(), color=COLOURS["muted"], linewidth=0.9, zorder=1)
    reach = _deviations(below, ratio)
    good = (drawn["verdict_a"] == "") & (drawn["verdict_b"] == "")
    titles: dict[str, list[str]] = {}
    for kind in (True, False):
        rows = drawn[good == kind]
        if len(rows):
            _marks(top, rows["latency_ms_a"], rows["latency_ms_b"], kind, f"again-{kind}")
            _marks(below, rows["latency_ms_a"], ratio[good == kind].clip(-reach, reach), kind, f"ratio-{kind}")
            titles[f"again-{kind}"] = titles[f"ratio-{kind}"] = [
                f"{row['arch_a']}\n{unit.text(row['latency_ms_a'])}, then {unit.text(row['latency_ms_b'])}"
                for _, row in rows.iterrows()
            ]
    legend_above(top, [_key(kind, int((good == kind).sum())) for kind in (True, False) if (good == kind).any()])
    top.set_ylabel(f"again, {unit.symbol}")
    top.tick_params(axis="x", labelbottom=False)
    below.set_ylabel("difference")
    below.set_xlabel(f"first, {unit.symbol}")
    fig.align_ylabels([top, below])
    caption = f"{count(len(both), 'network')} measured in two sessions; on the line both agree." + left_out
    return Chart(
        inline_svg(fig, f"{name}-again", "Two measurements of the same networks", titles), "Measured again", caption
    )


def noise_by_latency(labels: pd.DataFrame, name: str) -> Chart | None:
    """Return a chart of each label's standard error, in per cent of its latency, against the latency.

    Args:
        labels: the labels of all measurement sessions (`SessionData.labels`).
        name: the prefix of ids in the SVG.

    Returns:
        None for fewer than three labels with an error.
    """
    known = labels[labels["stderr_ms"] > 0]
    if len(known) < 3:
        return None
    drawn, left_out = thin_out(known)
    noise = 100 * drawn["stderr_ms"] / drawn["latency_ms"]
    fig = figure(WIDTH, 480)
    axes = fig.subplots()
    fig.subplots_adjust(left=62 / WIDTH, right=1 - 12 / WIDTH, top=1 - 30 / 480, bottom=46 / 480)
    unit = latency_unit(drawn["latency_ms"])
    scale_axis(axes, "x", drawn["latency_ms"].to_numpy(float), label=unit.tick)
    scale_axis(axes, "y", noise.to_numpy(float), label=lambda value: f"{value:g} %")
    quiet(axes)
    good = drawn["verdict"] == ""
    titles = {}
    for kind in (True, False):
        rows = drawn[good == kind]
        if len(rows):
            _marks(axes, rows["latency_ms"], noise[good == kind], kind, f"noise-{kind}")
            titles[f"noise-{kind}"] = [
                f"{row['arch']}\n{unit.text(row['latency_ms'])}"
                f" ± {percent(100 * row['stderr_ms'] / row['latency_ms'])} %"
                + (f"\n{row['verdict']}" if row["verdict"] else "")
                for _, row in rows.iterrows()
            ]
    middle = float(np.median(100 * known["stderr_ms"] / known["latency_ms"]))
    axes.axhline(middle, color=COLOURS["ink"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=3)
    dashes = Line2D([], [], color=COLOURS["ink"], linewidth=1.0, linestyle=(0, (4, 3)))
    dashes.set_label(f"median {percent(middle)} %")
    keys = [_key(kind, int((good == kind).sum())) for kind in (True, False) if (good == kind).any()]
    legend_above(axes, [*keys, dashes])
    axes.set_ylabel("standard error")
    axes.set_xlabel(f"latency, {unit.symbol}")
    caption = "How far a label may be from the mean of a very long measurement in the same session." + left_out
    return Chart(
        inline_svg(fig, f"{name}-noise", "Standard error against latency", titles), "How noisy labels are", caption
    )


def residual_by_order(sessions: Sequence[tuple[SessionData, pd.Series]], against: str, name: str) -> Chart | None:
    """Return a chart of the labels' residuals in the order of measuring, one measurement session below the other.

    Args:
        sessions: at most three sessions, each with the residuals of its networks (logarithms, by network).
        against: what a label is compared with, in words.
        name: the prefix of ids in the SVG.

    Returns:
        None if no session has enough networks.
    """
    shown = [(one, rest.dropna()) for one, rest in sessions]
    shown = [(one, rest) for one, rest in shown if len(rest) >= SMOOTHING]
    if not shown:
        return None
    height = 66 + (150 if len(shown) > 1 else 330) * len(shown)
    fig = figure(WIDTH, height)
    panels = fig.subplots(len(shown), 1, squeeze=False)
    fig.subplots_adjust(left=62 / WIDTH, right=1 - 12 / WIDTH, top=1 - 20 / height, bottom=46 / height, hspace=0.42)
    everything = 100 * np.expm1(pd.concat([rest for _, rest in shown]))
    titles: dict[str, list[str]] = {}
    for place, (axes, (one, rest)) in enumerate(zip(panels[:, 0], shown, strict=True)):
        frame = one.labels.loc[rest.index].assign(percent=100 * np.expm1(rest)).sort_values("order", kind="stable")
        reach = _deviations(axes, everything)
        drawn, _ = thin_out(frame)
        axes.scatter(
            drawn["order"],
            drawn["percent"].clip(-reach, reach),
            s=10,
            color=COLOURS["muted"],
            linewidths=0,
            alpha=0.7,
            gid=f"order-{place}",
        )
        titles[f"order-{place}"] = [f"{row['arch']}\n{row['percent']:+.1f} %" for _, row in drawn.iterrows()]
        middle = frame["percent"].rolling(SMOOTHING, center=True).median()
        axes.plot(frame["order"], middle.clip(-reach, reach), color=COLOURS["measure"], linewidth=2)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if len(shown) > 1:
            axes.set_title(f"session {one.number}, {one.started:%Y-%m-%d %H:%M}", loc="left", fontsize=11)
    panels[-1, 0].set_xlabel("order of measuring")
    fig.supylabel("above expectation", x=4 / WIDTH, ha="left", fontsize=theme.FONT_PX)
    caption = (
        f"By how much each label lies above {against}, and the running median of {SMOOTHING} in a row. "
        "A slope or a step means that labels depend on when they were measured."
    )
    label = "Residuals in the order of measuring"
    return Chart(inline_svg(fig, f"{name}-residual", label, titles), "Do labels depend on their order?", caption)


def _deviations(axes: Axes, percents: pd.Series) -> float:
    """Set up an axis of signed percentages around zero, and return its limit."""
    reach = max(1.0, 1.4 * float(percents.abs().quantile(BULK)))
    axes.axhline(0, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    axes.set_ylim(-reach * 1.05, reach * 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(_signed))
    quiet(axes)
    return reach


def _signed(value: float, _: object = None) -> str:
    return "0" if abs(value) < 1e-9 else f"{'+' if value > 0 else '−'}{abs(value):g} %"


def verdict_bars(verdicts: Mapping[str, int], name: str) -> Chart | None:
    """Return a chart of the number of labels with each verdict, or None without labels."""
    total = sum(verdicts.values())
    if not total:
        return None
    names = list(KINDS)
    height = 60 + 34 * len(names)
    fig = figure(WIDTH, height)
    axes = fig.subplots()
    fig.subplots_adjust(left=82 / WIDTH, right=1 - 66 / WIDTH, top=1 - 4 / height, bottom=46 / height)
    titles = {}
    for row, kind in enumerate(names):
        number = verdicts.get(kind, 0)
        bars = axes.barh(row, number, height=0.62, color=COLOURS["alarm" if kind else "measure"])
        bars[0].set_gid(f"verdict-{row}")
        titles[f"verdict-{row}"] = [f"{number:,} labels {kind or 'good'}"]
        share = 100 * number / total
        text = f"{number:,}" + (f"  ({'<1' if share < 1 else f'{share:.0f}'} %)" if number else "")
        axes.annotate(text, (number, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=11)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(verdicts.values()) * 1.001)
    axes.set_yticks(range(len(names)), [kind or "good" for kind in names])
    quiet(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.set_xlabel("labels")
    caption = (
        "The most serious doubt about each label: the clock was throttled, the latency drifted, another program used "
        "the processor, the runs form two groups, or the interval stayed wide."
    )
    return Chart(inline_svg(fig, f"{name}-verdicts", "Verdicts on labels", titles), "Verdicts", caption)
