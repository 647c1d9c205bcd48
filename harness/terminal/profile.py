"""A profile in a terminal: what it does while it runs, and its result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from latlab.harness.fleet.jobs import RunListener
from latlab.harness.profiling.summary import NetworkProfile
from latlab.harness.terminal.console import console, error_console
from latlab.harness.terminal.progress import View, beating
from latlab.harness.text import latency_text, latency_unit

__all__ = ["profiling", "show_profile"]

BAR = 16
"""Characters of the longest bar."""
FIGURES = 42
"""Characters of a row beside the kind and the bar."""
NAME = 100
"""Characters of an operator's name that are shown."""


@contextlib.contextmanager
def profiling(*, quiet: bool) -> Iterator[RunListener]:
    """Yield the listener of a run whose device is shown on stderr while it works."""
    screen = error_console()
    view = View(screen)
    if quiet or not screen.is_terminal:
        with beating(view):
            yield view.listener(quiet=quiet)
        return
    with Live(view, console=screen, refresh_per_second=4, transient=True):
        yield view.listener()


def show_profile(profile: NetworkProfile, top: int, out: Path | None) -> None:
    """Print the kinds of operators, the longest operators, and how their sum compares with an inference."""
    screen = console()
    simulated = " [yellow](simulated)[/yellow]" if profile.simulated else ""
    screen.print(f"[bold]{escape(profile.target)}[/bold]{simulated} {escape(profile.network)}", highlight=False)
    screen.print(_kinds(profile, screen.width))
    longest = profile.longest(top)
    screen.print(f"\nThe {len(longest)} longest of {len(profile.operators)} operators", highlight=False)
    screen.print(_longest(profile, top))
    lines = [("sum", profile.explanation())]
    if profile.best.overhead_ms > 0:
        lines.append(("overhead", f"{latency_text(profile.best.overhead_ms)} of the profiler's own work is taken out"))
    if profile.fusion():
        lines.append(("graph", profile.fusion()))
    screen.print()
    for name, text in lines:
        screen.print(f"[dim]{name:<9}[/dim] {escape(text)}", highlight=False, soft_wrap=True)
    if out is not None:
        screen.print(f"Charts: {escape(str(out))}.", style="dim", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        wide = name in ("kind", "name", "")
        table.add_column(name, justify="left" if wide else "right", overflow="fold" if wide else "ellipsis")
    return table


def _kinds(profile: NetworkProfile, width: int) -> Table:
    """Return a table of the kinds of operators, with a bar for the share of each."""
    providers = len({one.provider for one in profile.kinds}) > 1
    table = _table("kind", "operators", "time", "share", "")
    unit = latency_unit(one.typical_ms for one in profile.kinds)
    most = max((one.share for one in profile.kinds), default=0) or 1
    words = [f"{one.kind} ({one.provider})" if providers else one.kind for one in profile.kinds]
    bar = max(0, min(BAR, width - max(map(len, words), default=0) - FIGURES))  # a bar that is folded shows nothing
    for one in profile.kinds:
        table.add_row(
            escape(f"{one.kind} ({one.provider})" if providers else one.kind),
            f"{one.operators:,}",
            unit.text(one.typical_ms),
            f"{100 * one.share:.1f} %",
            "█" * round(bar * one.share / most),
        )
    return table


def _longest(profile: NetworkProfile, top: int) -> Table:
    table = _table("time", "share", "kind", "name")
    longest = profile.longest(top)
    unit = latency_unit(one.typical_ms for one in longest)
    for one in longest:
        name = one.name if len(one.name) <= NAME else f"…{one.name[-NAME:]}"
        table.add_row(
            unit.text(one.typical_ms), f"{100 * profile.share(one.typical_ms):.1f} %", escape(one.kind), escape(name)
        )
    return table
