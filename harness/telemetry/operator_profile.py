"""The profile of a network: what the device reports of the time of its operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

__all__ = ["OperatorProfile", "ProfiledOperator"]


@dataclass(frozen=True)
class ProfiledOperator:
    """One operator of a network as a runtime executes it."""

    name: str
    """The runtime's name of it, or the shapes of its inputs."""
    kind: str
    """Its type, under the runtime's name."""
    provider: str
    """What executes it, under the runtime's name, e.g. `XNNPACK`."""
    mean_ms: float
    """Milliseconds per inference, without the profiler's own work as far as that is known. Means add up."""
    typical_ms: float
    """The median over the inferences instead: an interruption that hits an operator now and then does not show."""
    fused: tuple[str, ...] = ()
    """The operators of the model file that it stands for, where the runtime says so."""


@dataclass(frozen=True)
class OperatorProfile:
    """What a runtime's profiler saw in a few inferences of one network."""

    operators: tuple[ProfiledOperator, ...]
    """In the order in which they ran."""
    left_out: int
    """Number of further operators, which are shorter than all of these."""
    left_out_ms: float
    """Milliseconds per inference of those."""
    runs: int
    """Number of inferences that were profiled."""
    inference_ms: float
    """Milliseconds of an inference under the profiler, on the device's clock around the call."""
    overhead_ms: float
    """Milliseconds per inference of the profiler's own work that lay inside operators, and is taken out of their
    times."""
    resolution_ms: float
    """The unit in which the profiler counts."""

    @classmethod
    def from_reply(cls, reply: Mapping[str, Any]) -> Self:
        """Return the profile in a reply to `profile` that was checked (`transports.reply_validation`)."""
        operators = tuple(
            ProfiledOperator(
                one["name"],
                one["kind"],
                one["provider"],
                one["mean_ns"] / 1e6,
                one["median_ns"] / 1e6,
                tuple(one["fused"]),
            )
            for one in reply["operators"]
        )
        samples = reply["samples_ns"]
        return cls(
            operators,
            reply["left_out"]["operators"],
            reply["left_out"]["mean_ns"] / 1e6,
            reply["runs"],
            fmean(samples[number] for number in reply["kept"]) / 1e6,
            reply["overhead_ns"] / 1e6,
            reply["resolution_ns"] / 1e6,
        )

    @property
    def sum_ms(self) -> float:
        """Milliseconds of all operators of an inference together, by their means."""
        return sum(one.mean_ms for one in self.operators) + self.left_out_ms
