"""The quality of labels on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latlab.harness.quality.assessment import Quality
from latlab.harness.quality.comparison import compared
from latlab.harness.quality.summary import figures
from latlab.harness.statistics.reliability import Correlation
from latlab.harness.store.vocabulary import Selection
from latlab.harness.terminal.console import console
from latlab.harness.text import percent

__all__ = ["show_quality"]

COLOURS = {"fit": "green", "usable": "yellow", "unfit": "red", "unknown": "yellow"}
COLUMNS = (
    "drift: how much slower a session was at its slowest time; removed: how far anchors have corrected labels for it; "
    "order, temperature: rank correlation with what a label differs by from its expectation (p: of chance); with time: "
    "what labels near each other in time have in common (chance: no more than chance gives); timing: the share of the "
    "session that was spent timing."
)
"""What the columns of the table of sessions mean."""


def show_quality(found: Sequence[Quality]) -> None:
    """Print a block for each target and space, what the columns mean, and which target is noisiest, and why."""
    screen = console()
    for place, one in enumerate(found):
        if place:
            screen.print()
        _show(screen, one)
    screen.print(f"\n{COLUMNS}", style="dim", highlight=False)
    comparison = compared(found)
    if comparison:
        screen.print(f"\n{escape(comparison)}", highlight=False)


def _show(screen: Console, one: Quality) -> None:
    simulated = " [yellow](simulated)[/yellow]" if one.simulated else ""
    screen.print(f"[bold]{escape(one.target)}[/bold] {escape(one.space)}{simulated}", highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in figures(one):
        table.add_row(name, escape(text))
    screen.print(table, highlight=False)
    screen.print(_sessions(one), highlight=False)
    colour = COLOURS[one.fitness.grade]
    screen.print(f"[{colour}]{escape(one.fitness.why)}[/{colour}] {escape(one.fitness.advice)}", highlight=False)


def _sessions(one: Quality) -> Table:
    """Return a table with a row per session: its drift, and whether labels depend on order or temperature."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    names = ("session", "networks", "drift", "removed", "order", "with time", "temperature", "timing")
    for name in names:
        table.add_column(name, justify="left" if name == "session" else "right", no_wrap=True)
    for session in one.sessions:
        share = session.timing_share
        imported = session.selection == Selection.IMPORTED
        table.add_row(
            f"{session.number}, {session.started:%Y-%m-%d %H:%M} {escape(session.selection)}",
            f"{session.networks:,}",
            f"{percent(session.drift_percent)} %" if session.drift_percent else "-" if imported else "none",
            "-" if session.removed_percent is None else f"{percent(session.removed_percent)} %",
            _correlation(session.order),
            f"[yellow]{percent(session.slow_percent)} %[/yellow]"
            if session.slow_percent
            else "-"
            if imported
            else "chance",
            _correlation(session.temperature),
            "-" if share is None or one.simulated else f"{100 * share:.0f} %",
        )
    return table


def _correlation(found: Correlation) -> str:
    if math.isnan(found.rho):
        return "-"
    text = f"{found.rho:+.2f} (p {_p(found.p)})"
    return f"[yellow]{text}[/yellow]" if found.p < 0.001 else text


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.2f}"[1:] if value >= 0.01 and value < 1 else f"{value:.3f}"
