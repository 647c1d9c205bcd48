"""Charts of a profile: kinds of operators, the longest operators, and where in the network the time goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from latlab.harness.profiling.summary import NetworkProfile
from latlab.harness.report.chart import Chart
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet
from latlab.harness.text import clean, count, latency_text, latency_unit

__all__ = ["along_the_network", "kind_bars", "operator_bars"]

WIDTH = 540
LEFT, RIGHT = 190, 96
"""Pixels for the names of bars, and for the figures behind them."""
ROW = 25
LABEL = 30
"""Most characters of a bar's name; the tooltip has all of it."""
MAX_KINDS = 12
"""Most kinds that have a bar of their own."""
MAX_BARS = 400
"""Most operators that are drawn along the network; beyond that, each bar is the sum of several in a row."""


def kind_bars(profile: NetworkProfile) -> Chart:
    """Return a chart of the time of each kind of operator; kinds beyond `MAX_KINDS` are one bar."""
    kinds = profile.kinds
    shown = kinds if len(kinds) <= MAX_KINDS else kinds[: MAX_KINDS - 1]
    bars = [
        (one.kind, one.typical_ms, f"{one.kind} on {one.provider}: {count(one.operators, 'operator')}") for one in shown
    ]
    rest = kinds[len(shown) :]
    if rest:
        bars.append(
            (f"{len(rest)} further kinds", sum(one.typical_ms for one in rest), ", ".join(o.kind for o in rest))
        )
    caption = "Time per inference of all operators of a kind, and their share of the sum."
    return Chart(_bars(profile, bars, "kinds", "Time of each kind of operator"), "Kinds of operators", caption)


def operator_bars(profile: NetworkProfile, top: int) -> Chart:
    """Return a chart of the longest operators."""
    longest = profile.longest(top)
    number = {id(one): place for place, one in enumerate(profile.operators, 1)}
    bars = [
        (f"{number[id(one)]}  {one.kind}", one.typical_ms, f"{one.kind}\n{one.name}" + _stands_for(one.fused))
        for one in longest
    ]
    together = sum(one.typical_ms for one in longest)
    caption = (
        f"The number before a kind is the operator's place in the network. These {len(longest)} take "
        f"{100 * profile.share(together):.0f} % of the sum over all {len(profile.operators)}."
    )
    return Chart(_bars(profile, bars, "longest", "Time of the longest operators"), "Longest operators", caption)


def along_the_network(profile: NetworkProfile) -> Chart:
    """Return a chart of the operators in the order in which they ran, and of their cumulative share."""
    times = np.array([one.typical_ms for one in profile.operators])
    step = -(-len(times) // MAX_BARS)
    starts = np.arange(0, len(times), step)
    sums = np.add.reduceat(times, starts)
    unit = latency_unit([float(sums.max())])
    height = 300
    wide = 2 * WIDTH + 48
    fig = figure(wide, height)
    axes = fig.subplots()
    fig.subplots_adjust(left=62 / wide, right=1 - 56 / wide, top=1 - 12 / height, bottom=46 / height)
    container = axes.bar(
        starts + step / 2 + 0.5, sums, width=0.86 * step, color=COLOURS["measure"], linewidth=0, zorder=3
    )
    titles = {}
    for place, (bar, start) in enumerate(zip(container, starts, strict=True)):
        bar.set_gid(f"along-{place}")
        one = profile.operators[start]
        further = f" and {count(step - 1, 'more operator')}" if step > 1 else ""
        titles[f"along-{place}"] = [f"{start + 1}  {one.kind}{further}\n{one.name}\n{latency_text(float(sums[place]))}"]
    axes.set_xlim(0.5, len(times) + 0.5)
    axes.set_ylim(0, float(sums.max()) * 1.06 or 1.0)
    quiet(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: unit.tick(float(value))))
    axes.set_ylabel(unit.name)
    axes.set_xlabel("operators, in the order in which they run")
    share = axes.twinx()
    total = float(times.sum()) or 1.0
    edges = np.append(starts, len(times)) + 0.5
    share.plot(edges, np.append(0, 100 * np.cumsum(sums) / total), color=COLOURS["train"], linewidth=1.6)
    share.set_ylim(0, 104)
    share.set_yticks([0, 25, 50, 75, 100], ["0", "25 %", "50 %", "75 %", "100 %"])
    share.spines["right"].set_visible(False)
    share.tick_params(axis="y", length=0, labelcolor=COLOURS["train"])
    caption = "Bars: the time of each operator. Line: the share of the sum up to there (scale on the right)."
    svg = inline_svg(fig, "along", "Time of the operators in the order in which they run", titles)
    return Chart(svg, "Along the network", caption)


def _bars(profile: NetworkProfile, bars: Sequence[tuple[str, float, str]], name: str, label: str) -> Markup:
    """Return horizontal bars with their times and their share of the sum over all operators.

    Args:
        bars: name, milliseconds, and the begin of the tooltip of each.
        name: the prefix of ids in the SVG.
        label: the text for screen readers.
    """
    height = 52 + ROW * len(bars)
    fig = figure(WIDTH, height)
    axes = fig.subplots()
    fig.subplots_adjust(left=LEFT / WIDTH, right=1 - RIGHT / WIDTH, top=1 - 4 / height, bottom=44 / height)
    unit = latency_unit([max(value for _, value, _ in bars)])
    titles = {}
    for row, (_, value, tip) in enumerate(bars):
        (bar,) = axes.barh(row, value, height=0.66, color=COLOURS["measure"])
        bar.set_gid(f"{name}-{row}")
        share = 100 * profile.share(value)
        titles[f"{name}-{row}"] = [f"{tip}\n{latency_text(value)}, {share:.1f} %"]
        axes.annotate(
            f"{unit.number(value)}  ({'<1' if 0 < share < 1 else f'{share:.0f}'} %)",
            (value, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=11,
        )
    names = [clean(text, LABEL) for text, _, _ in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, max(value for _, value, _ in bars) * 1.001 or 1.0)
    quiet(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: unit.tick(float(value))))
    axes.set_xlabel(f"{unit.name} per inference")
    return inline_svg(fig, name, label, titles)


def _stands_for(fused: Sequence[str]) -> str:
    return f"\nstands for {', '.join(fused)}" if fused else ""
