"""What people see of a question of order (`latlab measure --resolve`)."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from latlab.harness.replication import Resolved
from latlab.harness.resolve import Comparison
from latlab.harness.terminal import console
from latlab.harness.terminal_live import MAX_ROWS, milliseconds

__all__ = ["show_resolved"]

SHORT_OF = {
    "seconds": "the seconds to spend are used up: the same command goes on, --most-seconds gives it more",
    "passes": "these networks have all the passes that one may have",
}


def show_resolved(resolved: Resolved) -> None:
    screen = console()
    title = f"{escape(resolved.target)}: {resolved.resolve.question}, of {resolved.networks} networks"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    for name, justify in (("", "right"), ("architecture", "left"), ("latency", "right"), ("passes", "right")):
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name != "architecture")  # type: ignore[arg-type]
    table.add_column("then")
    shown, left = _shown(resolved)
    for rank, one in shown:
        label = resolved.labels[rank]
        table.add_row(str(rank + 1), escape(label.name), milliseconds(label.latency_ms), str(label.passes), one)
    if shown:
        screen.print(table)
    else:
        screen.print(title)
    if left:
        screen.print(f"... and {left} more; --json prints all", style="dim")
    screen.print(_counts(resolved))
    if resolved.exhausted:
        screen.print(f"[yellow]{resolved.count('open')} undecided[/yellow]: {SHORT_OF[resolved.exhausted]}")
    spent = f"{resolved.passes} further passes of {resolved.repeated} networks, {resolved.timed_s:.3g} s of timing"
    instead = f"; the same passes for all would have taken {resolved.uniform_s:.3g} s" if resolved.passes else ""
    screen.print(f"{spent}{instead}.", style="dim")


def _counts(resolved: Resolved) -> str:
    ties = f"ties (within {resolved.resolve.ties_percent:g} %): {resolved.count('tie')}"
    wrong = f"{resolved.expected_wrong:.1f} of the decided are expected to be wrong"
    if resolved.resolve.under_ms is None:
        return f"{resolved.count('decided')} of {len(resolved.comparisons)} comparisons decided, {ties}; {wrong}"
    decided = [one for one in resolved.comparisons if one.state == "decided"]
    below = sum(one.slower is None for one in decided)
    return f"{below} below, {len(decided) - below} above, {ties}; {wrong}"


def _shown(resolved: Resolved) -> tuple[list[tuple[int, str]], int]:
    """Ranks worth a line, with what follows; and how many more there are.

    The fastest, where these were asked for; else what is neither decided nor far from being so.
    """
    rank = {label.name: place for place, label in enumerate(resolved.labels)}
    top = resolved.resolve.top
    lines = []
    for one in resolved.comparisons:
        first, second = rank[one.faster or one.slower or ""], rank[one.slower or one.faster or ""]
        if (second <= top and first < top) if top is not None else one.state != "decided":
            lines.append((first, _words(one)))
    return lines[:MAX_ROWS], max(0, len(lines) - MAX_ROWS)


def _words(one: Comparison) -> str:
    gap = f"{one.gap_percent:.1f} %"
    sure = f"{100 * one.probability:.0f} % sure"
    if one.state == "tie":
        return f"[dim]tie: {gap}, {sure}[/dim]"
    words = "the next is slower by" if None not in (one.faster, one.slower) else "from the limit:"
    return f"{words} {gap}, {sure}" if one.state == "decided" else f"[yellow]open: {gap}, {sure}[/yellow]"
