"""Which requests go wrong, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlab.harness.transports.simulated.config import Faults, ScheduledFault

__all__ = ["FaultPlan"]

WORK = ("load", "time")
"""Verbs that count: how often the others come depends on the controller's clock."""


@dataclass(slots=True)
class _Pending:
    fault: ScheduledFault
    left: int


class FaultPlan:
    """Scheduled faults, each of which happens once, and random ones.

    Args:
        seed: of the random ones, and of which networks have an unknown operator.
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
        """To come, counting from now."""
        self._pending.append(_Pending(fault, fault.after_requests))

    def clear(self) -> None:
        """Nothing that was scheduled comes any more."""
        self._pending.clear()

    def next(self, verb: str) -> ScheduledFault | None:
        """The fault that hits this request. A full disk hits transfers (`verb` "transfer") and nothing else."""
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
        """Whether a network is one of those that have an operator which the runtime lacks: always the same ones."""
        if not self._faults.unsupported:
            return False
        digest = hashlib.sha256(f"{list(self._seed)} {sha256}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self._faults.unsupported * 2**64


def _concerns(fault: ScheduledFault, verb: str) -> bool:
    if fault.kind == "no_space":
        return verb == "transfer"
    return verb == fault.verb if fault.verb else verb in WORK
