"""Labels that targets which are onboarded side by side share, so that each learns from the others as they come."""

from __future__ import annotations

import threading
from collections.abc import Collection

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.predictors import SourceDevice

__all__ = ["FEWEST_SHARED", "SharedLabels"]

FEWEST_SHARED = 5
"""Fewest labels of a target that others learn from. In published tables (7 columns of FBNet, each with n labels and the
six others as its sources; ROOST) they raise the rank correlation from .899 to .907 with 5 labels of each, from .927 to
.936 with 10, from .955 to .963 with 20; in NAS-Bench-201 (9 columns) from .922 to .929 with 5, and not with more."""
GROWN = 1.5
"""Factor by which the others' labels must have grown since a target learnt from them, to be learnt from again."""


class SharedLabels:
    """The labels of several targets in one search space, by target. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: dict[str, SourceDevice] = {}

    def put(self, target: str, loop: ClosedLoop) -> None:
        """Publish the labels that a target's loop has now, if they are enough to learn from."""
        if loop.measured >= FEWEST_SHARED:
            genes = loop.space.genes(loop.support())
            with self._lock:
                self._labels[target] = SourceDevice(target, genes, loop.support_ms(), loop.support_stderr_ms())

    def of(self, targets: Collection[str]) -> tuple[SourceDevice, ...]:
        """Return what these targets have published, sorted by target."""
        with self._lock:
            return tuple(self._labels[one] for one in sorted(targets) if one in self._labels)

    @staticmethod
    def are_news(found: Collection[SourceDevice], known: int) -> bool:
        """Return whether labels are worth another pre-training.

        Args:
            found: labels as `of` gives them.
            known: their number when they were last learnt from, 0 if never.
        """
        return sum(len(one.genes) for one in found) >= max(1.0, GROWN * known)
