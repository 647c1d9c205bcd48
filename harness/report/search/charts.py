"""Charts of a search: accuracy over latency, predicted and measured, and the layers of the answer."""

from __future__ import annotations

import numpy as np
from matplotlib.lines import Line2D

from latlab.harness.report.chart import Chart, legend_above
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet, scale_axis
from latlab.harness.search.result import Finalist, SearchResult
from latlab.harness.search.wording import accuracy_text, amount_unit, metric_name
from latlab.harness.text import LatencyUnit, clean, count, millions
from latlab.search_spaces import UnknownSpaceError, get

__all__ = ["layer_chart", "pareto_chart"]

WIDTH, HEIGHT = 540, 430
LAYERS_WIDTH, LAYERS_HEIGHT = 1120, 190
MOST_LAYERS = 400


def pareto_chart(result: SearchResult, place: int) -> Chart:
    """Return a chart of accuracy over latency on one target: the predicted front, what was measured, and the answer.

    Args:
        result: of the search.
        place: number of the limit.
    """
    limit = result.constraints.limits[place]
    front = result.front
    latency = np.array([one.latencies[place].predicted_ms for one in front])
    accuracy = np.array([one.accuracy for one in front])
    measured = [one for one in result.measured if one.latencies[place].measured_ms is not None]
    shown_ms = [*latency, limit.max_ms, *(one.latencies[place].measured_ms or 0 for one in measured)]
    fig = figure(WIDTH, HEIGHT)
    axes = fig.subplots()
    fig.subplots_adjust(left=66 / WIDTH, right=1 - 14 / WIDTH, top=1 - 34 / HEIGHT, bottom=46 / HEIGHT)
    unit = amount_unit(shown_ms, limit.metric)
    scale_axis(axes, "x", np.array(shown_ms), label=unit.tick)
    # Networks that were measured to know the device may be far less accurate than any that is asked for.
    wanted = np.array([*accuracy, *(one.accuracy for one in result.finalists)] or [one.accuracy for one in measured])
    scale_axis(axes, "y", wanted, label=accuracy_text)
    lowest = axes.get_ylim()[0]
    quiet(axes)
    axes.axvline(limit.max_ms, color=COLOURS["alarm"], linewidth=1.2, zorder=1)
    low = [one.latencies[place].lower_ms for one in front]
    high = [one.latencies[place].upper_ms for one in front]
    axes.hlines(accuracy, low, high, color=COLOURS["cloud"], linewidth=1.0, alpha=0.35, zorder=1)
    axes.scatter(latency, accuracy, s=12, color=COLOURS["cloud"], linewidths=0, zorder=2, gid="front")
    handles = [
        _handle("o", "cloud", "predicted front, with 90 % intervals"),
        Line2D([], [], color=COLOURS["alarm"], label="limit"),
    ]
    titles = {"front": [_title(one, place, unit) for one in front]}
    answer = [one for one in measured if result.winner is not None and one.arch == result.winner.arch]
    others = [one for one in measured if one not in answer]
    for gid, some, colour, size in (("measured", others, "train", 24), ("answer", answer, "holdout", 70)):
        if some:
            _measured(axes, some, place, COLOURS[colour], size, gid)
            titles[gid] = [_title(one, place, unit) for one in some]
            handles.append(_handle("D", colour, gid))
    axes.set_xlabel(f"{metric_name(limit.metric)} on {clean(limit.target, 60)}, {unit.symbol}")
    axes.set_ylabel("accuracy")
    legend_above(axes, handles)
    label = f"Accuracy over {metric_name(limit.metric)}, predicted and measured"
    svg = inline_svg(fig, f"pareto{place}", label, titles)
    caption = (
        "Diamonds were measured; their bars are 90 % intervals of one more session. Points are predictions: the most "
        "accurate network at each latency, of those that were looked at."
    )
    below = sum(one.accuracy < lowest for one in measured)
    if below:
        caption += f" {count(below, 'measured network')} of lower accuracy {'lies' if below == 1 else 'lie'} below it."
    return Chart(svg, f"Limit {unit.text(limit.max_ms)}", caption)


def _measured(axes, some: list[Finalist], place: int, colour: str, size: int, gid: str) -> None:  # type: ignore[no-untyped-def]
    latencies = [one.latencies[place] for one in some]
    centre = np.array([one.measured_ms for one in latencies], dtype=float)
    low = np.array([one.measured_lower_ms for one in latencies], dtype=float)
    high = np.array([one.measured_upper_ms for one in latencies], dtype=float)
    accuracy = [one.accuracy for one in some]
    axes.errorbar(
        centre, accuracy, xerr=[centre - low, high - centre], fmt="none", ecolor=colour, elinewidth=1.2, zorder=3
    )
    axes.scatter(centre, accuracy, marker="D", s=size, color=colour, linewidths=0, zorder=4, gid=gid)


def _handle(marker: str, colour: str, name: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, markersize=5, color=COLOURS[colour], label=name)


def _title(one: Finalist, place: int, unit: LatencyUnit) -> str:
    latency = one.latencies[place]
    found = f"predicted {unit.text(latency.predicted_ms)}"
    if latency.measured_ms is not None:
        found = f"measured {unit.text(latency.measured_ms)}, {found}"
    return clean(f"{one.arch}\naccuracy {accuracy_text(one.accuracy)}, {found}")


def layer_chart(space_name: str, winner: Finalist) -> Chart | None:
    """Return a chart of the answer's layers with their multiply-accumulates, in order; None if the space is unknown."""
    try:
        space = get(space_name)
    except UnknownSpaceError:
        return None
    layers = [one for one in space.layers(space.parse(winner.arch), live=True) if one.macs > 0]
    if not layers or len(layers) > MOST_LAYERS:
        return None
    macs = np.array([one.macs for one in layers], dtype=float)
    fig = figure(LAYERS_WIDTH, LAYERS_HEIGHT)
    axes = fig.subplots()
    fig.subplots_adjust(
        left=66 / LAYERS_WIDTH, right=1 - 14 / LAYERS_WIDTH, top=1 - 10 / LAYERS_HEIGHT, bottom=30 / LAYERS_HEIGHT
    )
    scale_axis(axes, "y", np.append(macs, 0.0), label=lambda value: millions(value) if value else "0", room=0.02)
    quiet(axes)
    axes.bar(np.arange(len(macs)), macs, width=0.8, color=COLOURS["train"], linewidth=0)
    axes.set_xlim(-0.8, len(macs) - 0.2)
    axes.set_xticks([])
    axes.set_xlabel("layers with multiply-accumulates, from the input to the output")
    svg = inline_svg(fig, "layers", "Multiply-accumulates of the answer's layers")
    largest = layers[int(macs.argmax())]
    predicted = [amount_unit([one.predicted_ms], one.metric).text(one.predicted_ms) for one in winner.latencies]
    caption = (
        f"{len(layers)} layers, {millions(float(macs.sum()))} multiply-accumulates, predicted "
        f"{' and '.join(predicted)}. The largest is {largest.name}."
    )
    return Chart(svg, "The answer, layer by layer", clean(caption))
