"""A search in a terminal: how far it has come, and what it has found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from latlab.harness.fleet.jobs import RunListener
from latlab.harness.search.looking import Looked
from latlab.harness.search.result import Finalist, SearchResult
from latlab.harness.search.wording import (
    accuracy_text,
    amount_unit,
    costs_in_words,
    headline,
    latency_in_words,
    limits_in_words,
    probability_text,
    short_names,
)
from latlab.harness.terminal.console import console, error_console, warn
from latlab.harness.terminal.progress import HEARTBEAT_S, View, watching
from latlab.harness.text import millions, percent

__all__ = ["LookView", "searching", "show_search"]


class LookView:
    """Shows how far a look at the candidates has come, on stderr: a bar, or a line from time to time."""

    def __init__(self, devices: View, screen: Console, *, quiet: bool) -> None:
        self._devices, self._screen, self._quiet = devices, screen, quiet
        self._bar: Progress | None = None
        self._said_at = time.monotonic()

    def listener(self) -> RunListener:
        """Return what a run on devices is to report: their display takes the place of the bar."""
        listener = self._devices.listener(quiet=self._quiet)
        watch = listener.watch
        assert watch is not None

        def watch_devices(*given: object) -> None:
            self.stop()
            watch(*given)  # type: ignore[arg-type]

        return RunListener(listener.observe, watch_devices, listener.announce)

    def follow(self, looked: Looked) -> None:
        """Show how far a look has come."""
        best = "" if looked.best is None else f"best so far {accuracy_text(looked.best)}"
        if self._quiet:
            return
        if not self._screen.is_terminal:
            if time.monotonic() - self._said_at >= HEARTBEAT_S:
                self._said_at = time.monotonic()
                self._devices.say(
                    f"{looked.done:,}/{looked.total:,} {looked.unit}, {best or 'none keeps the limit yet'}"
                )
            return
        if self._bar is None:
            self._devices.stop()
            columns = (
                SpinnerColumn(),
                TextColumn("looking at {task.description}"),
                BarColumn(bar_width=12 if self._screen.width < 80 else 28),
                MofNCompleteColumn(),
                TextColumn("[dim]{task.fields[best]}[/dim]"),
            )
            self._bar = Progress(*columns, console=self._screen, transient=True)
            self._task = self._bar.add_task(looked.unit, total=looked.total, best=best)
            self._bar.start()
        self._bar.update(self._task, completed=looked.done, total=looked.total, best=best)
        if looked.done >= looked.total:
            self.stop()

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextlib.contextmanager
def searching(title: str, *, quiet: bool) -> Iterator[LookView]:
    """Yield what shows a search on stderr."""
    with watching(title, quiet=quiet) as devices:
        view = LookView(devices, error_console(), quiet=quiet)
        try:
            yield view
        finally:
            view.stop()


def show_search(result: SearchResult) -> None:
    """Print the answer of a search, the finalists, and what it has cost."""
    screen = console()
    simulated = " [yellow](simulated)[/yellow]" if result.simulated else ""
    screen.print(f"[bold]{escape(result.space)}[/bold]{simulated}: {escape(limits_in_words(result))}", highlight=False)
    screen.print(f"[dim]{escape(result.candidates)}; accuracy: {escape(result.accuracy)}[/dim]", highlight=False)
    screen.print()
    winner = result.winner
    if winner is not None:
        screen.print(f"[bold]{escape(winner.arch)}[/bold]", highlight=False)
        kept = f"keeps the limit with a probability of {probability_text(winner)}"
        screen.print(f"accuracy {accuracy_text(winner.accuracy)}, {kept}", highlight=False)
        for one in winner.latencies:
            screen.print(f"{escape(one.target)}: {latency_in_words(one)}", highlight=False)
        screen.print()
    screen.print(headline(result), highlight=False)
    if result.finalists:
        screen.print()
        screen.print(_finalists(result.finalists), highlight=False)
    screen.print()
    screen.print(f"[dim]{escape(costs_in_words(result))}[/dim]", highlight=False)
    for remark in result.remarks:
        warn(remark)
    for path in result.exported:
        screen.print(f"Model: {escape(str(path))}", style="dim", soft_wrap=True)
    if result.report is not None:
        screen.print(f"Report: {escape(str(result.report))}", style="dim", soft_wrap=True)


def _finalists(finalists: tuple[Finalist, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    names = short_names(one.target for one in finalists[0].latencies)
    table.add_column("accuracy", justify="right", no_wrap=True)
    units = []
    for place, first in enumerate(finalists[0].latencies):
        units.append(amount_unit([one.latencies[place].predicted_ms for one in finalists], first.metric))
        device = f" on {escape(names[first.target])}" if names[first.target] else ""
        table.add_column(f"measured, {units[place].symbol}{device}", justify="right", no_wrap=True)
        table.add_column(f"predicted{device}", justify="right", no_wrap=True)
    table.add_column("keeps limit", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    table.add_column("network", overflow="fold")
    for one in finalists:
        cells = [accuracy_text(one.accuracy)]
        for each, unit in zip(one.latencies, units, strict=True):
            error = "" if not each.stderr_ms else f" ± {percent(100 * each.stderr_ms / (each.measured_ms or 1))} %"
            cells.append("-" if each.measured_ms is None else f"{unit.number(each.measured_ms)}{error}")
            cells.append(unit.number(each.predicted_ms))
        table.add_row(*cells, probability_text(one), millions(one.macs), escape(one.arch))
    return table
