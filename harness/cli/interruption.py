"""Ctrl-C, `kill` and a closed terminal: each ends a command in the same orderly way, and a second one ends it at once.

Python itself does that for SIGINT alone: SIGTERM and SIGHUP would end latlab in the middle of a pass, without a word.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

__all__ = ["Interruption", "ending_orderly", "interruption"]

_WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated, because its terminal is gone",
}
_SHOW_CURSOR = b"\x1b[?25h"
_AGAIN_S = 0.01


class Interruption:
    """The signal that ended the command, if one did."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._again: threading.Timer | None = None

    @property
    def exit_code(self) -> int:
        """The exit code that shells have for the signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + (self.signal or signal.SIGINT)

    @property
    def words(self) -> str:
        """What happened to the command, in words."""
        return _WORDS[self.signal or signal.SIGINT]

    def handle(self, number: int, _: FrameType | None) -> None:
        """Take the first signal: raise `KeyboardInterrupt` in the main thread, and leave a second one to the system."""
        self.signal = signal.Signals(number)
        for each in _WORDS:
            if signal.getsignal(each) != signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        with suppress(OSError):  # a live display has hidden it, and a second signal leaves no time to show it again
            if os.isatty(2):
                os.write(2, _SHOW_CURSOR)
        _keep_out_of_logs()
        raise KeyboardInterrupt

    def raise_dropped(self, unraisable: sys.UnraisableHookArgs) -> bool:
        """Take the signal once more if Python has dropped what `handle` raised, and return whether it has.

        It drops what is raised in a destructor or in the callback of a weak reference: imports have many.
        """
        if self.signal is None or not issubclass(unraisable.exc_type, KeyboardInterrupt):
            return False
        signal.signal(self.signal, self.handle)
        self._again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), self.signal))
        self._again.start()
        return True

    def arrived(self) -> None:
        """Take no signal once more, because the command knows of it.

        What `handle` raised may be dropped in one place and arrive from another: asyncio keeps it in a task, and raises
        it, too.
        """
        if self._again is not None:
            self._again.cancel()
            self._again = None
            if self.signal is not None:
                signal.signal(self.signal, signal.SIG_DFL)


def _keep_out_of_logs() -> None:
    """Print no traceback of an interruption where a library logs what passes through it (SQLAlchemy closes a file so).

    That concerns only logs that nobody configured: Python prints their errors to standard error.
    """
    logging = sys.modules.get("logging")
    if logging is not None and logging.lastResort is not None:
        logging.lastResort.addFilter(_is_no_interruption)


def _is_no_interruption(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt))


interruption = Interruption()
"""The interruption of this process."""


@contextmanager
def ending_orderly() -> Iterator[Interruption]:
    """Have the signals raise `KeyboardInterrupt` within the `with` block, except those that are ignored (`nohup`)."""
    interruption.signal = None
    before = {number: signal.getsignal(number) for number in _WORDS}
    chosen = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in chosen:
        signal.signal(number, interruption.handle)
    usual_hook = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs, /) -> None:
        if not interruption.raise_dropped(unraisable):
            usual_hook(unraisable)

    sys.unraisablehook = hook
    try:
        yield interruption
    finally:
        interruption.arrived()
        sys.unraisablehook = usual_hook
        if interruption.signal is None:
            for number in chosen:
                signal.signal(number, before[number])
