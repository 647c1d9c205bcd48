"""The progress of encodings on the screen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from latlab.harness.terminal.console import error_console
from latlab.harness.terminal.progress import HEARTBEAT_S
from latlab.harness.terminal.results import working
from latlab.harness.text import spoken_duration

__all__ = ["progress"]


@contextlib.contextmanager
def progress(*, quiet: bool, trains: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many networks were run, at what rate and for how long still; a line now and then elsewhere.

    Args:
        quiet: show nothing.
        trains: whether a model is trained instead of running networks, of which only a spinner can tell.
    """
    screen = error_console()
    if quiet:
        yield lambda done, total: None
        return
    if trains:
        with working("encoding; the first time for a space and a seed, a model is trained", quiet=False):
            yield lambda done, total: None
        return
    started = last = time.monotonic()

    def rate(done: int) -> float:
        return done / max(time.monotonic() - started, 1e-3)

    if not screen.is_terminal:

        def tell(done: int, total: int) -> None:
            nonlocal last
            if done and time.monotonic() - last >= HEARTBEAT_S:
                last = time.monotonic()
                left = spoken_duration((total - done) / rate(done))
                text = f"{done:,} of {total:,} networks, {60 * rate(done):.0f} a minute, {left} left"
                screen.print(text, highlight=False, markup=False)

        yield tell
        return
    columns = (TextColumn("networks"), BarColumn(bar_width=28), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=screen, transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            what = f"{60 * rate(done):.0f} a minute" if done else ""
            bar.update(task, total=total, completed=done, description=what)

        yield advance
