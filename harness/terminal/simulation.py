"""Replays of an onboarding on the screen: how good the predictor was after each number of samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from latlab.harness.bench.simulation import CLOSE, summary
from latlab.harness.terminal.console import console, error_console
from latlab.harness.text import correlation, count, percent

if TYPE_CHECKING:
    from latlab.harness.bench.replay import Replay

__all__ = ["progress", "show_replays"]

SHOWN = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000)
"""Numbers of samples that have a line, beside the last one of each run."""


def show_replays(replays: Sequence[Replay], title: str) -> None:
    """Print means over the replays, and why they ended."""
    frame = summary(replays)
    last = {len(one.points) for one in replays}
    near = bool(frame["near_mape_percent"].notna().any())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title=escape(title), title_justify="left")
    headings = ["n", "runs", "device s", "Spearman", "expected", f"within {CLOSE:g}", "MAPE %", "within 10 %"]
    for name in headings + ["near, MAPE %"] * near:
        table.add_column(name, justify="right")
    for row in frame.to_dict("records"):
        if row["n"] not in {*SHOWN, *last}:
            continue
        close = "-" if pd.isna(row["close_percent"]) else f"{row['close_percent']:.0f} %"
        cells = [
            str(row["n"]),
            str(row["runs"]),
            percent(row["device_s"]),
            f"{correlation(row['spearman'])} ±{row['spearman_std']:.3f}",
            correlation(row["expected_spearman"]).replace("–", "-"),
            close,
            percent(row["mape_percent"]),
            f"{row['within_10_percent']:.0f}",
        ]
        table.add_row(*cells, *[percent(row["near_mape_percent"])] * near)
    screen = console()
    screen.print(table)
    reasons: dict[str, list[int]] = {}
    for one in replays:
        reasons.setdefault(one.reached or "the budget", []).append(len(one.points))
    for reason, samples in reasons.items():
        spread = f"{min(samples)} to {max(samples)}" if min(samples) < max(samples) else f"{samples[0]}"
        screen.print(f"{count(len(samples), 'run')} ended by {reason}, after {spread} samples", highlight=False)


@contextlib.contextmanager
def progress(seeds: int, *, quiet: bool) -> Iterator[Callable[[Replay], None]]:
    """Show the progress of replays on stderr: a bar; nothing without a terminal."""
    screen = error_console()
    if quiet or not screen.is_terminal:
        yield lambda one: None
        return
    columns = (TextColumn("replays"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("", total=seeds)
        yield lambda one: bar.update(task, advance=1)
