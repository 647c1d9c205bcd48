"""The contract that every runtime fulfils: a `Session` is one network, loaded in one inference runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Protocol

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest

if TYPE_CHECKING:
    import numpy as np

    from latlab.agents.runtimes.profiler import Profiler

    Array = np.ndarray[Any, Any]

__all__ = [
    "DTYPES",
    "Delegation",
    "DeviceClock",
    "Session",
    "TensorSpec",
    "check_accelerator",
    "random_arrays",
    "specify_inputs",
]

DTYPES = (
    *("float16", "bfloat16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
"""The numpy names of the types of inputs that latlab can make up."""


@dataclass(frozen=True)
class TensorSpec:
    """The name, the shape (with the batch) and the numpy dtype name of one input, and the range of its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: int | None = None
    """Least random value of an integer input; None where nothing is known."""
    high: int | None = None
    """Greatest random value of an integer input."""


@dataclass(frozen=True)
class Delegation:
    """The share of a TFLite or ExecuTorch graph that runs on the delegate's fast kernels.

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
    """The inputs, in the graph's order. Empty for a TorchScript file that was opened without `inputs`."""
    delegation: Delegation | None = None
    """Which share of the graph a delegate runs. TFLite and ExecuTorch have one."""
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

    def profiler(self) -> AbstractContextManager[Profiler]:
        """Open the network once more with the runtime's profiler on, and the inputs that were set here.

        This session is not touched, so what is timed with it does not bear the profiler's cost.

        Raises:
            AgentError: "bad_request" if the runtime has no profiler, which is so unless a runtime overrides this.
        """
        raise AgentError("bad_request", f"{self.runtime} {self.version} has no profiler that latlab can read")

    def random_inputs(self, seed: int) -> list[Array]:
        """Return seeded random inputs (`random_arrays`)."""
        return random_arrays(self.inputs, seed)

    def _check(self, arrays: Sequence[Array]) -> None:
        """Raise `AgentError` unless `arrays` fit `inputs`.

        The runtimes' own checks differ, and some read past the end of an array instead.
        """
        if len(arrays) != len(self.inputs):
            raise AgentError("bad_request", f"the network takes {len(self.inputs)} inputs, not {len(arrays)}")
        for spec, array in zip(self.inputs, arrays):
            # numpy has no bfloat16: such an input is given in float32, and the runtime converts it.
            dtype = "float32" if spec.dtype == "bfloat16" else spec.dtype
            if tuple(array.shape) != spec.shape or array.dtype.name != dtype:
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


def random_arrays(specs: Sequence[TensorSpec], seed: int) -> list[Array]:
    """Return seeded random arrays, one for each input.

    Floats are standard normal; a single one lies between 0 and 1. Integers are spread evenly over the range that was
    asked for. Without one, 8-bit integers, which stand for pixels or quantised values, are spread over their type's
    whole range, and wider ones are 0 or 1: valid as indices of any table, as tokens and as masks.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    arrays: list[Array] = []
    for spec in specs:
        if "float" in spec.dtype:
            # A single number is most often a share, a threshold or a probability.
            values = rng.standard_normal(spec.shape, dtype=np.float32) if spec.shape else rng.random(dtype=np.float32)
            arrays.append(np.asarray(values).astype("float32" if spec.dtype == "bfloat16" else spec.dtype))
            continue
        low, high = spec.low, spec.high
        if low is None or high is None:
            byte = spec.dtype in ("int8", "uint8")
            low, high = (int(np.iinfo(spec.dtype).min), int(np.iinfo(spec.dtype).max)) if byte else (0, 1)
        kind = np.uint64 if spec.dtype == "uint64" else np.int64
        whole = rng.integers(low, high, spec.shape, dtype=kind, endpoint=True)
        arrays.append(np.asarray(whole).astype(spec.dtype))
    return arrays


def check_accelerator(runtime: str, accelerator: str, known: Sequence[str]) -> None:
    """Raise `AgentError` ("bad_request") unless `accelerator` is `known`.

    A silent fallback would time another processor than the one that was asked for.
    """
    if accelerator not in known:
        raise AgentError("bad_request", f"{runtime} has no accelerator {accelerator!r} here; it has {', '.join(known)}")


def specify_inputs(
    declared: Sequence[tuple[str, Sequence[int | None], str | None]], wanted: Sequence[InputRequest]
) -> tuple[TensorSpec, ...]:
    """Return the inputs as they are to be run: what the model declares, filled up with what is wanted.

    Args:
        declared: name, shape (None for an open dimension) and numpy type name (None if unknown) of each input.
        wanted: by name, or by place where an input has no name. It must name a dimension that is open, and must agree
            with those that are fixed.

    Raises:
        AgentError: "bad_request" if a dimension stays open, or if `wanted` contradicts the model.
    """
    names = [name for name, _, _ in declared]
    asked: dict[str, InputRequest] = {}
    for place, one in enumerate(wanted):
        if one.name is None and place >= len(names):
            raise AgentError("bad_request", f"the network has {len(names)} inputs, not {len(wanted)}")
        name = names[place] if one.name is None else one.name
        if name not in names:
            raise AgentError("bad_request", f"the network has no input {name!r}; it has {', '.join(names)}")
        asked[name] = one
    return tuple(_specify(name, sides, dtype, asked.get(name, InputRequest())) for name, sides, dtype in declared)


def _specify(name: str, declared: Sequence[int | None], dtype: str | None, asked: InputRequest) -> TensorSpec:
    text = "x".join("?" if side is None else str(side) for side in declared)
    if asked.shape is None:
        if any(side is None for side in declared):
            raise AgentError("bad_request", f"input {name!r} has the open shape {text}: say which shape to run")
        shape = tuple(int(side) for side in declared if side is not None)
    else:
        shape = tuple(asked.shape)
        if len(shape) != len(declared) or any(d not in (None, a) for d, a in zip(declared, shape)):
            given = "x".join(map(str, shape))
            raise AgentError("bad_request", f"input {name!r} has shape {text}; it cannot run as {given}")
    found = dtype or asked.dtype or "float32"
    if asked.dtype not in (None, found):
        raise AgentError("bad_request", f"input {name!r} is {found}, not {asked.dtype}")
    if found not in DTYPES:
        raise AgentError("bad_request", f"input {name!r} has type {found}, which latlab cannot make up")
    return TensorSpec(name, shape, found, asked.low, asked.high)
