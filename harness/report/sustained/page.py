"""A chart of a sustained run: latency, temperature, clock and power over time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from latlab.harness.paths import whole_file, writable_folder
from latlab.harness.report import theme
from latlab.harness.report.chart import legend_above
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, quiet
from latlab.harness.report.tiles import Tile
from latlab.harness.sustained.run import SustainedResult
from latlab.harness.sustained.summary import figures, headline, spell
from latlab.harness.sustained.windows import Sustained, Window
from latlab.harness.text import clean, latency_unit, ms, percent, tick

__all__ = ["write_chart"]

WIDTH, TALL, LOW = 820, 250, 120
BINS = 240
"""The number of windows that are drawn. More would be narrower than a line."""
DPI = 144


def write_chart(result: SustainedResult, path: Path) -> Path:
    """Write an HTML page, an SVG or a PNG, depending on the name's suffix, and return the path.

    Raises:
        BadInputError: the file cannot be written.
    """
    assert result.summary is not None
    suffix = path.suffix.lower()
    if suffix == ".html":
        return write_whole(_page(result, result.summary), path)
    with theme.style(), _plain_colours() as colours:
        figure = _figure(result, result.summary, colours)
        buffer = BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=DPI, metadata={"Date": None} if suffix == ".svg" else None)
    writable_folder(path.parent)
    with whole_file(path) as part:
        part.write_bytes(buffer.getvalue())
    return path


def _page(result: SustainedResult, found: Sustained) -> str:
    with theme.style():
        svg = inline_svg(_figure(result, found, COLOURS), "sustained", "Latency over time under sustained load")
    return (
        environment(Path(__file__).parent)
        .get_template("sustained.html")
        .render(
            css=stylesheet(),
            network=clean(result.network),
            simulated=result.simulated,
            target=clean(result.target),
            headline=headline(found),
            tiles=_tiles(found),
            chart=svg,
            figures=[(name, clean(text)) for name, text in figures(result, found)],
        )
    )


def _tiles(found: Sustained) -> list[Tile]:
    unit = latency_unit([found.time_weighted_ms, found.slowest.mean_ms])
    tiles = [
        Tile(
            "Mean over time", unit.number(found.time_weighted_ms), unit.symbol, f"of {spell(found.seconds)} under load"
        ),
        Tile(
            "Worst",
            unit.number(found.slowest.mean_ms),
            unit.symbol,
            f"{found.worst_percent:+.0f} %, from {spell(found.slowest.start_s)} on".replace("-", "−"),
            warn=found.worst_percent > 5,
        ),
        Tile(
            "Throttled",
            percent(found.throttled_percent),
            "%",
            "of the time under load",
            warn=found.throttled_s > 0,
        ),
    ]
    if found.hottest_c is not None:
        tiles.append(Tile("Hottest", f"{found.hottest_c:.0f}", "°C"))
    if found.energy_mj is not None:
        tiles.append(Tile("Energy", ms(found.energy_mj), "mJ", "per inference"))
    return tiles


@contextmanager
def _plain_colours() -> Iterator[Mapping[str, str]]:
    """Use the light scheme's colours instead of the stand-ins, for files without a style sheet."""
    light = dict(reversed(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", stylesheet())))
    by_code = {code: light[name] for name, code in COLOURS.items()}
    rc = {key: by_code[value] for key, value in mpl.rcParams.items() if isinstance(value, str) and value in by_code}
    with mpl.rc_context({**rc, "figure.facecolor": light["paper"], "svg.fonttype": "path"}):
        yield light


def _figure(result: SustainedResult, found: Sustained, colours: Mapping[str, str]) -> Figure:
    bins = result.windows(found.seconds / BINS)
    panels: list[tuple[str, str, Callable[[Window], float | None]]] = [
        ("°C", "alarm", lambda one: one.temperature_c),
        ("MHz", "train", lambda one: one.clock_mhz),
        ("W", "build", lambda one: one.power_w),
    ]
    shown = [panel for panel in panels if any(panel[2](one) is not None for one in bins)]
    height = 30 + TALL + LOW * len(shown) + 46
    figure = theme.figure(WIDTH, height)
    grid = figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False, height_ratios=(TALL, *[LOW] * len(shown)))
    figure.subplots_adjust(
        left=66 / WIDTH, right=1 - 14 / WIDTH, top=1 - 34 / height, bottom=46 / height, hspace=0.22 if shown else 0
    )
    rows: list[Axes] = [row[0] for row in grid]
    unit_s, unit = (60.0, "minutes") if found.seconds >= 120 else (1.0, "seconds")
    _latency(rows[0], bins, unit_s, colours)
    for axes, (label, colour, value) in zip(rows[1:], shown, strict=True):
        known = [(one.start_s / unit_s, found_) for one in bins if (found_ := value(one)) is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], color=colours[colour], linewidth=1.6)
        axes.set_ylabel(label)
        low, high = min(y for _, y in known), max(y for _, y in known)
        room = max(0.08 * (high - low), 0.01 * abs(high), 0.05)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: tick(float(y))))
    for axes in rows:
        quiet(axes)
        for start, end in _spans(bins):
            axes.axvspan(start / unit_s, end / unit_s, color=colours["band"], linewidth=0, zorder=0)
    rows[-1].set_xlabel(unit)
    rows[-1].set_xlim(0, found.seconds / unit_s)
    rows[-1].xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    figure.align_ylabels(rows)
    return figure


def _latency(axes: Axes, bins: Sequence[Window], unit_s: float, colours: Mapping[str, str]) -> None:
    x = [one.start_s / unit_s for one in bins]
    axes.fill_between(
        x, [one.p10_ms for one in bins], [one.p90_ms for one in bins], color=colours["measure"], alpha=0.22, linewidth=0
    )
    axes.plot(x, [one.median_ms for one in bins], color=colours["measure"], linewidth=2)
    low, high = min(one.p10_ms for one in bins), max(one.p90_ms for one in bins)
    unit = latency_unit([high])
    room = max(0.06 * (high - low), 0.01 * high)
    axes.set_ylim(max(0.0, low - room), high + room)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: unit.tick(float(y))))
    axes.set_ylabel(f"latency, {unit.symbol}")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colours["measure"], linewidth=2, label="median"),
        Patch(color=colours["measure"], alpha=0.22, linewidth=0, label="80 % of the runs"),
    ]
    if any(one.throttled_s for one in bins):
        handles.append(Patch(color=colours["band"], linewidth=0, label="throttled"))
    legend_above(axes, handles)


def _spans(bins: Sequence[Window]) -> list[tuple[float, float]]:
    """Return the intervals in which the clock was throttled for most of the time; adjacent windows are joined."""
    spans: list[tuple[float, float]] = []
    for one in bins:
        if one.throttled_s <= 0.5 * (one.end_s - one.start_s):
            continue
        if spans and abs(spans[-1][1] - one.start_s) < 1e-6:
            spans[-1] = (spans[-1][0], one.end_s)
        else:
            spans.append((one.start_s, one.end_s))
    return spans
