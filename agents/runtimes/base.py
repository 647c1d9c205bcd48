"""The contract that every runtime fulfils: a `Session` is one network, loaded in one inference runtime."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Protocol

from latlab.agents.protocol.errors import AgentError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Delegation", "DeviceClock", "Session", "TensorSpec", "check_accelerator", "fill_shape"]


@dataclass(frozen=True)
class TensorSpec:
    """The name, the shape (with the batch) and the numpy dtype name of one input."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Delegation:
    """The share of a TFLite graph that runs on the delegate's fast kernels.

    `delegated` of the graph's `operators` run there, in `partitions` connected pieces.
    """

    operators: int
    delegated: int
    partitions: int


class DeviceClock(Protocol):
    """The clock of an accelerator that works through a queue: a call returns when its work is queued, not done.

    `start` and `stop` put marks into the queue, before and after the work. The device stamps a mark when it reaches it.
    """

    def start(self) -> None:
        """Queue the mark before the work."""

    def stop(self) -> None:
        """Queue the mark after the work."""

    def wait(self) -> None:
        """Return when the device has finished all of its work, in every queue."""

    def elapsed_ns(self) -> int:
        """Return the nanoseconds between the two marks. Call it after `wait`."""


class Session(ABC):
    """A loaded network with fixed input shapes. It is not thread-safe. Close it, or use it in a `with` block."""

    runtime: str
    """The runtime's name, one of `runtimes.NAMES`."""
    version: str
    """The version of the runtime's package."""
    provider: str
    """The component that executes the graph, under the runtime's own name, e.g. `CPUExecutionProvider`."""
    inputs: tuple[TensorSpec, ...]
    """The inputs, in the graph's order. Empty for a TorchScript file that was opened without `input_shape`."""
    delegation: Delegation | None = None
    """Which share of the graph a delegate runs. Only TFLite has one."""
    clock: DeviceClock | None = None
    """The device's clock that times a call of `running`. None if a call returns when its work is done: then the host's
    clock times it.
    """
    gpu: str | None = None
    """PCI bus address of the GPU that runs the network, or None."""

    @abstractmethod
    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Set one array for each input, in the order of `inputs`.

        Raises:
            AgentError: "bad_request" if number, shapes or dtypes do not fit.
        """

    @abstractmethod
    def invoke(self) -> None:
        """Run one inference on the inputs that were set, and keep its outputs.

        Raises:
            AgentError: what `explain` makes of the runtime's exception.
        """

    @abstractmethod
    def outputs(self) -> list[Array]:
        """Return copies of the outputs of the last `invoke`, in the graph's order."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Callable[[], object]]:
        """Set what is process-wide (threads, inference mode), and yield the bare callable that runs one inference.

        That callable is what gets timed, so it contains only the runtime's own call. It raises the runtime's own
        exceptions: pass them to `explain`.
        """

    @abstractmethod
    def explain(self, error: BaseException) -> AgentError:
        """Return the `AgentError` that describes an exception of the runtime."""

    @abstractmethod
    def close(self) -> None:
        """Free the network. Closing twice is harmless."""

    def random_inputs(self, seed: int) -> list[Array]:
        """Return seeded random inputs: standard normal for floats, 0 or 1 for the rest (valid as indices and masks)."""
        import numpy as np

        rng = np.random.default_rng(seed)
        arrays: list[Array] = []
        for spec in self.inputs:
            if spec.dtype.startswith("float"):
                arrays.append(rng.standard_normal(spec.shape, dtype=np.float32).astype(spec.dtype))
            else:
                arrays.append(rng.integers(0, 2, spec.shape).astype(spec.dtype))
        return arrays

    def _check(self, arrays: Sequence[Array]) -> None:
        """Raise `AgentError` unless `arrays` fit `inputs`.

        The runtimes' own checks differ, and some read past the end of an array instead.
        """
        if len(arrays) != len(self.inputs):
            raise AgentError("bad_request", f"the network takes {len(self.inputs)} inputs, not {len(arrays)}")
        for spec, array in zip(self.inputs, arrays):
            if tuple(array.shape) != spec.shape or array.dtype.name != spec.dtype:
                raise AgentError(
                    "bad_request",
                    f"input {spec.name!r} is {spec.dtype} of shape {spec.shape}, "
                    f"not {array.dtype.name} of shape {tuple(array.shape)}",
                )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def check_accelerator(runtime: str, accelerator: str, known: Sequence[str]) -> None:
    """Raise `AgentError` ("bad_request") unless `accelerator` is `known`.

    A silent fallback would time another processor than the one that was asked for.
    """
    if accelerator not in known:
        raise AgentError("bad_request", f"{runtime} has no accelerator {accelerator!r} here; it has {', '.join(known)}")


def fill_shape(name: str, declared: Sequence[int | None], given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of input `name`: what the model declares, with its open dimensions (None) taken from `given`.

    Raises:
        AgentError: "bad_request" if a dimension stays open, or if `given` contradicts the model.
    """
    if given is None:
        if any(size is None for size in declared):
            text = "x".join("?" if size is None else str(size) for size in declared)
            raise AgentError(
                "bad_request", f"input {name!r} has the open shape {text}: say which shape to run (--input)"
            )
        return tuple(int(size) for size in declared if size is not None)
    fits = len(given) == len(declared) and all(d is None or d == g for d, g in zip(declared, given))
    if not fits or math.prod(given) < 1:
        text = "x".join("?" if size is None else str(size) for size in declared)
        asked = "x".join(str(size) for size in given)
        raise AgentError("bad_request", f"input {name!r} has shape {text}; it cannot run as {asked}")
    return tuple(given)
