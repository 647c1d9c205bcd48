"""One loaded network in one inference runtime: the contract that every runtime fulfils."""

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
    """Name, shape (with the batch) and numpy dtype name of one input."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Delegation:
    """How much of a graph runs on the fast kernels: `delegated` of `operators`, in `partitions` pieces."""

    operators: int
    delegated: int
    partitions: int


class DeviceClock(Protocol):
    """The clock of an accelerator that works through a queue: a call returns when its work is in line, not done.

    `start` and `stop` put marks into the queue, before and behind the work; the device notes when it comes to them.
    """

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def wait(self) -> None:
        """Returns when the device has nothing left to do, whatever queue it was in."""

    def elapsed_ns(self) -> int:
        """From the one mark to the other, after `wait`."""


class Session(ABC):
    """A network, loaded, for fixed shapes. Not thread-safe. Close it, or use it in a `with` block."""

    runtime: str
    """Name of the runtime, as `open_session` takes it."""
    version: str
    """Version of the runtime's package."""
    provider: str
    """What executes the graph, in the runtime's own words, e.g. `CPUExecutionProvider`."""
    inputs: tuple[TensorSpec, ...]
    delegation: Delegation | None = None
    """Known for TFLite only."""
    clock: DeviceClock | None = None
    """What times a call of `running`; None where a call is done when it returns, and the host's clock does."""
    gpu: str | None = None
    """Address on the PCI bus of the GPU that the network runs on, where it runs on one."""

    @abstractmethod
    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Takes one array an input, in the order of `inputs`. Raises `AgentError` ("bad_request")."""

    @abstractmethod
    def invoke(self) -> None:
        """Runs one inference on the inputs that were set, and keeps its outputs. Raises `AgentError`."""

    @abstractmethod
    def outputs(self) -> list[Array]:
        """Copies of the outputs of the last `invoke`, in the graph's order."""

    @abstractmethod
    def running(self) -> AbstractContextManager[Callable[[], object]]:
        """Sets what is process-wide (threads, inference mode); yields the bare callable of one inference.

        This is what gets timed, so nothing but the runtime's own call is in it. Its errors are the runtime's
        own: pass them through `explain`.
        """

    @abstractmethod
    def explain(self, error: BaseException) -> AgentError:
        """The `AgentError` that an exception of the runtime stands for."""

    @abstractmethod
    def close(self) -> None:
        """Frees the network. More than once is fine."""

    def random_inputs(self, seed: int) -> list[Array]:
        """Seeded inputs: standard normal for floats, 0 or 1 for the rest (valid as indices and masks)."""
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
        """That `arrays` fit `inputs`; the runtimes' own checks differ, and some read past the end instead."""
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
    """Raises `AgentError` when `runtime` cannot use `accelerator`: falling back silently would be a lie."""
    if accelerator not in known:
        raise AgentError("bad_request", f"{runtime} has no accelerator {accelerator!r} here; it has {', '.join(known)}")


def fill_shape(name: str, declared: Sequence[int | None], given: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of input `name`: what the model declares, with `given` for its open dimensions (None).

    Raises `AgentError` when a dimension stays open, or when `given` contradicts the model.
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
