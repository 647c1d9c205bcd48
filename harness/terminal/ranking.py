"""What people see of a question of order (`latlab measure --resolve`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from latlab.harness.terminal.console import console
from latlab.harness.terminal.progress import MAX_ROWS
from latlab.harness.text import milliseconds

__all__ = ["show_resolved"]

SHORT_OF = {
    "seconds": "the seconds to spend are used up: the same command goes on, --most-seconds gives it more",
    "passes": "these networks have all the passes that one may have",
}


def show_resolved(resolved: Mapping[str, Any]) -> None:
    """How a question stands on one target: what `Resolved.to_json` gives."""
    screen = console()
    networks = resolved["networks"]
    title = f"{escape(resolved['target'])}: {resolved['question']}, of {len(networks)} networks"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=title, title_justify="left")
    table.add_column("", justify="right")
    table.add_column("architecture", overflow="fold")
    table.add_column("latency", justify="right", no_wrap=True)
    table.add_column("passes", justify="right")
    table.add_column("")
    lines = _lines(resolved)
    for rank, words in lines[:MAX_ROWS]:
        one = networks[rank]
        table.add_row(str(rank + 1), escape(one["arch"]), milliseconds(one["latency_ms"]), str(one["passes"]), words)
    screen.print(table if lines else title)
    if len(lines) > MAX_ROWS:
        screen.print(f"... and {len(lines) - MAX_ROWS} more; --json prints all", style="dim")
    screen.print(_counts(resolved))
    if resolved["exhausted"]:
        screen.print(f"[yellow]{resolved['undecided']} undecided[/yellow]: {SHORT_OF[resolved['exhausted']]}")
    spent = (
        f"{resolved['passes']} further passes of {resolved['repeated']} networks, {resolved['timed_s']:.3g} s of timing"
    )
    instead = f"; the same passes for all would have taken {resolved['uniform_s']:.3g} s" if resolved["passes"] else ""
    screen.print(f"{spent}{instead}.", style="dim")


def _counts(resolved: Mapping[str, Any]) -> str:
    decided = f"decided: {resolved['decided']}"
    if resolved["under_ms"] is not None:
        decided = f"below: {resolved['below']}, above: {resolved['above']}"
    wrong = f"{resolved['expected_wrong']:.1f} of the decided are expected to be wrong"
    return f"{decided}, ties (within {resolved['ties_percent']:g} %): {resolved['ties']}; {wrong}"


def _lines(resolved: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Ranks worth a line, and what is said of them: the fastest where they were asked for, else what is undecided."""
    rank = {one["arch"]: place for place, one in enumerate(resolved["networks"])}
    top = resolved["top"]
    lines = []
    for one in resolved["comparisons"]:
        first, second = rank[one["faster"] or one["slower"]], rank[one["slower"] or one["faster"]]
        if (second <= top and first < top) if top is not None else one["state"] != "decided":
            lines.append((first, _words(one)))
    return lines


def _words(one: Mapping[str, Any]) -> str:
    gap, sure = f"{one['gap_percent']:.1f} %", f"{100 * one['probability']:.0f} % sure"
    if one["state"] == "tie":
        return f"[dim]tie: {gap}, {sure}[/dim]"
    limit = one["faster"] is None or one["slower"] is None
    words = f"{gap} from the limit" if limit else f"the next is {gap} slower"
    return f"{words}, {sure}" if one["state"] == "decided" else f"[yellow]undecided: {words}, {sure}[/yellow]"
