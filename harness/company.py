"""Exports on the machine on which networks are timed: held up during passes where they show in latencies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from latlab.harness.exports import Exports, exports_show

__all__ = ["Company"]

PAIRS = 24
"""Comparisons by which it is decided."""


class Company:
    """Exports are paused while a network is timed, until comparing has told that they do not show."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._ratios: list[float] = []
        self.shows: bool | None = None
        """Whether exports show in latencies; None while that is not known."""

    def quiet(self) -> AbstractContextManager[object]:
        """For a pass."""
        return nullcontext() if self.shows is False else self._exports.paused()

    def compare(self, latency: Callable[[], float | None], times: int) -> None:
        """Time a network beside exports and without them, in alternating order, where any are under way.

        Args:
            latency: of a network, timed now, in any unit; None where it cannot be.
            times: how often, at most.
        """
        for _ in range(times if self.shows is None else 0):
            if not self._exports.busy:
                return
            found: dict[bool, float] = {}
            for alone in (True, False) if len(self._ratios) % 2 else (False, True):
                with self._exports.paused() if alone else nullcontext():
                    value = latency()
                if not value:
                    return
                found[alone] = value
            if self._exports.busy:
                self._ratios.append(found[False] / found[True])
            if len(self._ratios) >= PAIRS:
                self.shows = exports_show(self._ratios)
                return
