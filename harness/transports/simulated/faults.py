"""The plan of faults: which requests fail, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlab.harness.transports.simulated.config import Faults, ScheduledFault

__all__ = ["FaultPlan"]

WORK = ("load", "time")
"""The verbs that are counted: how often the others come depends on the controller's clock."""


@dataclass(slots=True)
class _Pending:
    """A scheduled fault and the number of requests that still succeed before it."""

    fault: ScheduledFault
    left: int


class FaultPlan:
    """The faults of a device: scheduled ones, each of which happens once, and random ones.

    Args:
        faults: the inventory's settings.
        seed: the seed of the random faults and of the choice of networks with an unknown operator.
    """

    def __init__(self, faults: Faults, seed: Sequence[int]) -> None:
        self._faults = faults
        self._seed = seed
        self._pending: list[_Pending] = []
        probabilities = {"hang": faults.hangs, "crash": faults.crashes, "disconnect": faults.disconnects}
        self._random = [(ScheduledFault.model_validate({"kind": k}), p) for k, p in probabilities.items() if p]
        self._rng = np.random.default_rng(seed) if self._random else None
        for fault in faults.schedule:
            self.add(fault)

    def add(self, fault: ScheduledFault) -> None:
        """Schedule a fault, counted from now."""
        self._pending.append(_Pending(fault, fault.after_requests))

    def clear(self) -> None:
        """Cancel all scheduled faults."""
        self._pending.clear()

    def next(self, verb: str) -> ScheduledFault | None:
        """Count a request and return the fault that hits it, or None.

        Args:
            verb: the request's verb, or "transfer" for a file, which a full disk alone can hit.
        """
        hit = None
        for one in list(self._pending):
            if not _concerns(one.fault, verb):
                continue
            if one.left:
                one.left -= 1
            elif hit is None:
                hit = one.fault
                self._pending.remove(one)
        if hit is None and self._rng is not None and verb in WORK:
            chance = self._rng.random()
            for fault, probability in self._random:
                if chance < probability:
                    return fault
                chance -= probability
        return hit

    def lacks_operator(self, sha256: str) -> bool:
        """Return whether a network has an operator that the runtime lacks; the same networks have it every time."""
        if not self._faults.unsupported:
            return False
        digest = hashlib.sha256(f"{list(self._seed)} {sha256}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self._faults.unsupported * 2**64


def _concerns(fault: ScheduledFault, verb: str) -> bool:
    if fault.kind == "no_space":
        return verb == "transfer"
    return verb == fault.verb if fault.verb else verb in WORK
