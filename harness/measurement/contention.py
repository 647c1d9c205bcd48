"""Contention between exports and timing on one machine: exports pause during passes if they change latencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from scipy import special

from latlab.harness.exporters.service import Exports

__all__ = ["ExportContention", "exports_change_latency"]

PAIRS = 24
"""Number of comparisons after which it is decided whether exports change latencies."""


class ExportContention:
    """The arbiter between exports and timing: exports pause during passes until they prove not to change latencies."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._ratios: list[float] = []
        self.changes_latency: bool | None = None
        """Whether exports change latencies; None as long as that is not known."""

    def without_exports(self) -> AbstractContextManager[object]:
        """Return a context in which exports are paused, unless they are known not to change latencies."""
        return nullcontext() if self.changes_latency is False else self._exports.paused()

    def compare(self, latency: Callable[[], float | None], times: int) -> None:
        """Time a network while exports run and while they are paused, in alternating order, if any are under way.

        Args:
            latency: times a network and returns its latency in any unit, or None if it cannot run.
            times: most comparisons to make.
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
"""Share by which exports may lengthen or shorten a latency: as much as a label may be wrong."""


CHANCE = 0.025
"""Probability at each end below which the sign test decides that exports change latencies."""


def exports_change_latency(ratios: Sequence[float]) -> bool:
    """Return whether exports that run during a pass change its latency, so that they have to be paused.

    This is a sign test. If the median ratio were 1 + `SHOWS`, half of the ratios would lie above it: exports change
    latencies if more lie above it than this would explain by chance (binomial, p < `CHANCE`), or below its inverse.
    Bursts of disturbance, which are frequent in the ratios, do not affect it. Fewer than six ratios prove nothing.

    Args:
        ratios: latency of a network while exports ran / latency of the same network while they were paused, from two
            passes in a row, in alternating order.
    """
    above = sum(ratio > 1 + SHOWS for ratio in ratios)
    below = sum(ratio < 1 / (1 + SHOWS) for ratio in ratios)
    return bool(special.bdtrc(max(above, below) - 1, len(ratios), 0.5) < CHANCE)
