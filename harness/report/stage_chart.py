"""A chart of where the time went: on the device, and in export workers at the same time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, MaxNLocator

from latlab.harness.quality.stage_times import Stage
from latlab.harness.report.chart import Chart
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet
from latlab.harness.text import duration

__all__ = ["where_time_went"]


def where_time_went(found: Sequence[Stage], name: str = "stages") -> Chart | None:
    """Return a bar of stages for the device and one for the export workers, or None without stages.

    Args:
        found: the stages with their seconds.
        name: the prefix of ids in the SVG, for pages with several of these charts.
    """
    if not found:
        return None
    lanes = [lane for lane in ("device", "export workers") if any(stage.lane == lane for stage in found)]
    height = 62 + 62 * len(lanes)
    fig = figure(540, height)
    axes = fig.subplots()
    fig.subplots_adjust(left=62 / 540, right=1 - 14 / 540, top=1 - 4 / height, bottom=46 / height)
    ends = []
    for lane in lanes:
        parts = [stage for stage in found if stage.lane == lane]
        ends.append(sum(stage.seconds for stage in parts))
    longest = max(ends)
    titles: list[str] = []
    for row, lane in enumerate(lanes):
        start = 0.0
        for stage in (stage for stage in found if stage.lane == lane):
            gid = f"bar-{len(titles)}"
            bars = axes.barh(
                row,
                stage.seconds,
                left=start,
                height=0.42,
                color=COLOURS[stage.colour],
                edgecolor=COLOURS["paper"],
                linewidth=1,
            )
            bars[0].set_gid(gid)
            titles.append(f"{stage.name}: {duration(stage.seconds)}, {stage.share * 100:.0f} % of all stages")
            # A label is drawn only if it fits; the table next to the chart has all of them.
            if stage.seconds / longest * 464 > 7.5 * len(stage.name) + 4:
                axes.annotate(
                    stage.name,
                    (start, row - 0.21),
                    xytext=(1, 4),
                    textcoords="offset points",
                    va="bottom",
                    fontsize=11,
                )
            start += stage.seconds
    axes.set_ylim(len(lanes) - 0.5, -0.62)
    axes.set_xlim(0, longest * 1.01)
    axes.set_yticks(range(len(lanes)), [lane.replace(" ", "\n") for lane in lanes])
    quiet(axes, grid="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    minutes = longest >= 300
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 3, 5, 6, 10] if not minutes else [1, 1.2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 60:g}" if minutes else f"{value:g}"))
    axes.set_xlabel("minutes" if minutes else "seconds")
    caption = "The total of all runs that these measurements are from."
    if len(lanes) == 2:
        caption += (
            " Export workers prepare the next networks while the device times this one, so their time (the sum "
            "over all workers) overlaps with the device's."
        )
    svg = inline_svg(
        fig,
        name,
        "Seconds spent in each stage",
        {f"bar-{index}": [text] for index, text in enumerate(titles)},
    )
    return Chart(svg, "Where the time went", caption)
