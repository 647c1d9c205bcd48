"""Exports on the machine on which networks are timed: held up during passes where they show in latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from scipy import special

from latlab.harness.exporters.service import Exports

__all__ = ["ExportContention", "exports_change_latency"]

PAIRS = 24
"""Comparisons by which it is decided."""


class ExportContention:
    """Pauses exports while a network is timed, until a comparison has shown that they do not change latencies."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._ratios: list[float] = []
        self.changes_latency: bool | None = None
        """Whether exports change latencies; None while that is not known."""

    def without_exports(self) -> AbstractContextManager[object]:
        """Return a context in which exports are paused, unless they are known not to change latencies."""
        return nullcontext() if self.changes_latency is False else self._exports.paused()

    def compare(self, latency: Callable[[], float | None], times: int) -> None:
        """Time a network with exports running and without them, in alternating order, where any are under way.

        Args:
            latency: of a network, timed now, in any unit; None where it cannot be.
            times: how often, at most.
        """
        for _ in range(times if self.changes_latency is None else 0):
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
                self.changes_latency = exports_change_latency(self._ratios)
                return


SHOWS = 0.01
"""Share of a latency that exporting beside a pass may add or take: as much as labels may be off."""


CHANCE = 0.025


def exports_change_latency(ratios: Sequence[float]) -> bool:
    """Return whether exports that run during a pass change its latency, so that they have to be paused.

    By a sign test: whether more of the ratios than chance explains lie above 1 + `SHOWS`, or below its inverse, than
    where the median is just there (binomial, p < `CHANCE` at each end). Bursts, of which ratios are full, do not
    matter to it. Fewer than six ratios prove nothing.

    Args:
        ratios: latency of a network while exports ran / latency of the same network while they were paused, each of
            two passes in a row, in alternating order.
    """
    above = sum(ratio > 1 + SHOWS for ratio in ratios)
    below = sum(ratio < 1 / (1 + SHOWS) for ratio in ratios)
    return bool(special.bdtrc(max(above, below) - 1, len(ratios), 0.5) < CHANCE)
