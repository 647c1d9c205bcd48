"""The contract of a runtime's profiler: how long each operator of a network took in each inference."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["Operator", "Profiler"]


@dataclass(frozen=True)
class Operator:
    """One operator of a network as the runtime executes it: after its graph optimisations, on a processor."""

    name: str
    """The runtime's name of the operator, or what tells it apart (the shapes of its inputs)."""
    kind: str
    """The type of the operator under the runtime's name, e.g. `Conv` or `Fully Connected (NC, F32) GEMM`."""
    provider: str
    """What executes it: an execution provider, a delegate or a device, under the runtime's own name."""
    run_ns: tuple[int, ...]
    """Nanoseconds in each profiled inference, in their order; 0 where it did not run. Time of operators inside it (the
    body of a loop) is theirs alone, so that the sum over operators counts nothing twice."""
    overhead_ns: int = 0
    """Nanoseconds of an inference's time that are the profiler's own work, where the runtime's module can tell."""
    fused: tuple[str, ...] = ()
    """The operators of the model file that it stands for, where the runtime says so."""


class Profiler(ABC):
    """A network that is open once more, with its runtime's profiler on. `Session.profiler` yields it.

    The caller (`execution.profiling`) first calls `invoke` some times to warm up, then `start`, then for each profiled
    inference `invoke` and `collect`, and at the end `operators`. Only `invoke` is timed. A runtime whose profiler
    reports each inference by itself reads it in `collect`; one that writes all of them to a file reads it in
    `operators`.
    """

    resolution_ns: int
    """The unit in which the profiler counts: a time may be short by this much, for each operator."""

    @abstractmethod
    def start(self) -> None:
        """Count the inferences from here on; those before were to warm up."""

    @abstractmethod
    def invoke(self) -> object:
        """Run one inference, and return when it is done. It raises the runtime's own exceptions."""

    @abstractmethod
    def collect(self) -> None:
        """Count the inference that has just ended, and read what the profiler has recorded of it, if it must be now."""

    @abstractmethod
    def operators(self) -> list[Operator]:
        """Stop recording, and return the operators in the order in which they ran.

        Raises:
            AgentError: "crash" if what the profiler has recorded cannot be read.
        """
