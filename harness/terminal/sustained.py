"""A sustained run in a terminal: while it lasts, and its result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from latlab.harness.fleet.jobs import DeviceState
from latlab.harness.store.place import StorePath
from latlab.harness.sustained.run import SustainedResult, SustainedRun
from latlab.harness.sustained.summary import figures, spell
from latlab.harness.sustained.windows import SustainedPass, Window, nice_window_s
from latlab.harness.terminal.braille import curve, sparkline
from latlab.harness.terminal.console import console, error_console
from latlab.harness.terminal.progress import View, beating
from latlab.harness.text import latency_text, latency_unit

__all__ = ["SustainView", "following", "show_result"]

HEIGHT = 8
LEAST_WIDTH, MOST_WIDTH = 20, 72
LABEL = 10
"""Characters of the axis on the left."""
FLAT = 0.02
"""A curve that changes by less than this share is drawn flat."""
SHOWN = 12
"""The number of windows in the table: under sustained load, changes take minutes."""


class SustainView(View):
    """A view of one network's sustained run: the curve so far in a terminal, else a line from time to time."""

    def __init__(self, screen: Console) -> None:
        super().__init__(screen)
        self.run: SustainedRun | None = None

    def follow(self, run: SustainedRun) -> None:
        """Show this run."""
        self.run = run

    def progress(self) -> Iterator[str]:
        run = self.run
        if run is not None and run.passes:
            yield _state(run)
        else:
            yield from super().progress()

    def watch(self, devices: Mapping[str, DeviceState]) -> None:
        self.devices = devices


class _LiveSustainView(SustainView):
    def __rich__(self) -> RenderableType:
        run = self.run
        doing = next((state.waiting or state.doing for state in self.devices.values()), "")
        if run is None or not run.passes:
            return Text("exporting the network" if run is None else doing or "connecting", "dim")
        passes = list(run.passes)
        grid = Table.grid()
        share = min(1.0, run.elapsed_s / run.seconds)
        done = round(share * 28)
        bar = Text().append("━" * done, "green").append("━" * (28 - done), "dim")
        bar.append(f"  {spell(run.elapsed_s)} of {spell(run.seconds)}")
        grid.add_row(bar if doing == "timing" else bar.append(f", {doing}", "yellow"))
        for line in _curve(passes, self._console.width, run.seconds):
            grid.add_row(Text(line))
        grid.add_row(Text(_state(run), "dim"))
        return grid


@contextlib.contextmanager
def following(*, quiet: bool) -> Iterator[SustainView]:
    """Yield a view of the run on stderr."""
    screen = error_console()
    if quiet or not screen.is_terminal:
        with beating(SustainView(screen)) as plain:
            yield plain
        return
    view = _LiveSustainView(screen)
    with Live(view, console=screen, refresh_per_second=4, transient=True):
        yield view


def _state(run: SustainedRun) -> str:
    """Return the state of the run in one line."""
    passes = list(run.passes)
    now, began = passes[-1], passes[0]
    heat = f", {now.temperature_c:.0f} °C" if now.temperature_c is not None else ""
    clock = f", {now.clock_mhz:,.0f} MHz" if now.clock_mhz is not None else ""
    power = f", {now.power_w:.3g} W" if now.power_w is not None else ""
    change = 100 * (now.median_ms / began.median_ms - 1)
    return (
        f"{spell(run.elapsed_s)} of {spell(run.seconds)}: {latency_text(now.median_ms)} "
        f"({change:+.1f} % since the beginning){heat}{clock}{power}"
    )


def _curve(passes: Sequence[SustainedPass], screen_width: int, seconds: float) -> list[str]:
    """Return lines with latency over time, and temperature below.

    It uses the medians of passes, because it must be quick: it is drawn while the run lasts.
    """
    width = max(LEAST_WIDTH, min(MOST_WIDTH, screen_width - LABEL - 2))
    dots: dict[int, list[float]] = {}
    heats: dict[int, list[float]] = {}
    for one in passes:
        share = min(one.began_s / seconds, 1 - 1e-9)
        dots.setdefault(int(share * 2 * width), []).append(one.median_ms)
        if one.temperature_c is not None:
            for place in range(int(share * width), min(width, 1 + int(one.ended_s / seconds * width))):
                heats.setdefault(place, []).append(one.temperature_c)
    values = [median(dots[place]) for place in sorted(dots)]
    low, high = _range(values)
    lines = curve([place / 2 / width for place in sorted(dots)], values, width, HEIGHT, low, high)
    unit = latency_unit([high])
    labels = {0: unit.text(high), HEIGHT - 1: unit.text(low)}
    drawn = [
        f"{labels.get(number, ''):>{LABEL}} {'┤' if number in labels else '│'}{line}"
        for number, line in enumerate(lines)
    ]
    drawn.append(f"{'':>{LABEL}} └{'─' * width}")
    drawn.append(f"{'':>{LABEL}}  0{spell(seconds):>{width - 1}}")
    if heats:
        heat = [fmean(heats[place]) if place in heats else None for place in range(width)]
        known = [one for one in heat if one is not None]
        bars = sparkline(heat, min(known), max(max(known), min(known) + 5)).rstrip()
        drawn.append(f"{'heat':>{LABEL}}  {bars} {min(known):.0f}–{max(known):.0f} °C")
    return drawn


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the axis's limits. A nearly flat curve is not magnified."""
    low, high = min(values), max(values)
    room = max(0.0, FLAT * high - (high - low)) / 2
    return low - room, high + room


def show_result(result: SustainedResult, store: StorePath, out: Path | None) -> None:
    """Print the curve, a table of windows, and the figures."""
    screen = console()
    found = result.summary
    if found is None:
        return
    simulated = " [yellow](simulated)[/yellow]" if result.simulated else ""
    screen.print(f"[bold]{escape(result.target)}[/bold]{simulated} {escape(result.network)}", highlight=False)
    for line in _curve(result.passes, screen.width, max(found.seconds, 1e-3)):
        screen.print(Text(line))
    screen.print(_table(result.windows(nice_window_s(found.seconds, SHOWN))))
    for name, text in figures(result, found):
        screen.print(f"[dim]{name:<11}[/dim] {escape(text)}", highlight=False, soft_wrap=True)
    end = f" Plot: {escape(str(out))}." if out else ""
    screen.print(
        f"Every run is in {escape(str(store))}; it makes no label.{end} The same command starts over.",
        style="dim",
        soft_wrap=True,
    )


def _table(shown: Sequence[Window]) -> Table:
    """Return a table with a row per window, and columns for what the device reports."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("from", justify="right", no_wrap=True)
    unit = latency_unit(one.median_ms for one in shown)
    columns: list[tuple[str, Callable[[Window], str]]] = [
        ("median", lambda one: unit.text(one.median_ms)),
        ("mean", lambda one: unit.text(one.mean_ms)),
        ("p90", lambda one: unit.text(one.p90_ms)),
    ]
    if any(one.temperature_c is not None for one in shown):
        columns.append(("temp.", lambda one: "-" if one.temperature_c is None else f"{one.temperature_c:.0f} °C"))
    if any(one.clock_mhz is not None for one in shown):
        columns.append(("clock", lambda one: "-" if one.clock_mhz is None else f"{one.clock_mhz:,.0f} MHz"))
    if any(one.power_w is not None for one in shown):
        columns.append(("power", lambda one: "-" if one.power_w is None else f"{one.power_w:.3g} W"))
    if any(one.throttled_s for one in shown):
        columns.append(("throttled", lambda one: f"{100 * one.throttled_s / (one.end_s - one.start_s):.0f} %"))
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in shown:
        table.add_row(spell(one.start_s) if one.start_s else "0", *(cell(one) for _, cell in columns))
    return table
