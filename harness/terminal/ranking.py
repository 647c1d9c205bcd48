"""The result of `latlab measure --resolve` on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from latlab.harness.terminal.console import MAX_ROWS, console
from latlab.harness.text import latency_unit

__all__ = ["show_resolved"]

SHORT_OF = {
    "seconds": "the allowed seconds are used up: the same command goes on, --most-seconds allows more",
    "passes": "these networks have as many passes as a network may have",
}
"""Why networks stayed undecided, by what was exhausted."""


def show_resolved(resolved: Mapping[str, Any]) -> None:
    """Print how a question is answered on one target, from `Resolved.to_json`."""
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
    unit = latency_unit(one["latency_ms"] for one in networks)
    for rank, words in lines[:MAX_ROWS]:
        one = networks[rank]
        table.add_row(str(rank + 1), escape(one["arch"]), unit.text(one["latency_ms"]), str(one["passes"]), words)
    screen.print(table if lines else title)
    if len(lines) > MAX_ROWS:
        screen.print(f"... and {len(lines) - MAX_ROWS} more; --json prints all", style="dim")
    screen.print(_counts(resolved))
    if resolved["exhausted"]:
        screen.print(f"[yellow]{resolved['undecided']} undecided[/yellow]: {SHORT_OF[resolved['exhausted']]}")
    spent = (
        f"{resolved['passes']} further passes of {resolved['repeated']} networks, {resolved['timed_s']:.3g} s of timing"
    )
    instead = (
        f"; the same passes for all would have taken {resolved['uniform_s']:.3g} s"
        if resolved["passes"] and resolved["uniform_s"] >= 0.1
        else ""
    )
    screen.print(f"{spent}{instead}.", style="dim")


def _counts(resolved: Mapping[str, Any]) -> str:
    decided = f"decided: {resolved['decided']}"
    if resolved["under_ms"] is not None:
        decided = f"below: {resolved['below']}, above: {resolved['above']}"
    wrong = f"{resolved['expected_wrong']:.1f} of the decided are expected to be wrong"
    return f"{decided}, ties (within {resolved['ties_percent']:g} %): {resolved['ties']}; {wrong}"


def _lines(resolved: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the ranks to print, each with its words: the fastest networks if asked for, else undecided ones."""
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
