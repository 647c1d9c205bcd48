"""Pre-training on the screen: a bar while it lasts, and its card."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from latlab.harness.active_learning.pretrained import Pretrained
from latlab.harness.active_learning.training_cache import Report
from latlab.harness.terminal.console import console, error_console
from latlab.harness.text import spoken_duration

__all__ = ["show_pretrained", "training"]

LINE_EVERY_S = 30.0
"""Seconds between two lines of progress where there is no terminal."""


@contextlib.contextmanager
def training(name: str, *, quiet: bool) -> Iterator[Report | None]:
    """Show the progress on stderr within the `with` block; yields what is to be called with it."""
    screen = error_console()
    if quiet:
        yield None
        return
    if not screen.is_terminal:
        printed_at = time.monotonic()

        def line(done: int, total: int, figures: Mapping[str, float]) -> None:
            nonlocal printed_at
            if time.monotonic() - printed_at >= LINE_EVERY_S:
                printed_at = time.monotonic()
                screen.print(f"{escape(name)}: step {done:,} of {total:,} {_figures(figures)}".rstrip())

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=screen, transient=True) as bar:
        task = bar.add_task(f"training {escape(name)}", total=None)

        def move(done: int, total: int, figures: Mapping[str, float]) -> None:
            bar.update(task, completed=done, total=total, description=f"training {escape(name)} {_figures(figures)}")

        yield move


def show_pretrained(found: Pretrained) -> None:
    """Print what a pre-trained predictor is."""
    card = found.card
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("predictor", escape(card.predictor))
    table.add_row("search space", escape(card.space))
    table.add_row("trained on", f"{escape(', '.join(found.source_names))} ({escape(card.protocol)})")
    for name, value in card.figures.items():
        shown = spoken_duration(value) if name == "train_s" else f"{value:.4g}"
        table.add_row("training took" if name == "train_s" else escape(name.replace("_", " ")), shown)
    table.add_row("folder", escape(str(found.folder)))
    console().print(table)


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items())
