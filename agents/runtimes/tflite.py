"""TensorFlow Lite on the CPU with its default delegate (XNNPACK): `ai_edge_litert`, or the older `tflite_runtime`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Callable

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes import litert_profiler
from latlab.agents.runtimes.base import Delegation, Session, TensorSpec, check_accelerator, specify_inputs

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array
    from latlab.agents.runtimes.profiler import Profiler

__all__ = ["TFLiteSession", "load", "open_session"]

_UNREADABLE = ("Flatbuffer", "Could not open", "model allocation is null")


def load() -> None:
    """Import the interpreter."""
    _interpreter_class()


def _interpreter_class() -> Any:
    from latlab.agents.runtimes import find

    return import_module(f"{find('tflite').module}.interpreter").Interpreter


def open_session(
    path: str, version: str, threads: int, accelerator: str, inputs: Sequence[InputRequest]
) -> TFLiteSession:
    """Load a TFLite file; the arguments are those of `runtimes.open`, and `version` is the package's."""
    check_accelerator("tflite", accelerator, ("cpu",))
    return TFLiteSession(path, version, threads, inputs)


class TFLiteSession(Session):
    """A session of an allocated TFLite `Interpreter`. One timed inference is one `invoke`, as in `benchmark_model`."""

    runtime = "tflite"

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        interpreter_class = _interpreter_class()
        self.version = version
        self._path, self._threads = path, threads
        try:
            interpreter: Any = interpreter_class(model_path=path, num_threads=threads)
            details = interpreter.get_input_details()
            self.inputs = specify_inputs([(d["name"], _declared(d), _dtype_name(d["dtype"])) for d in details], inputs)
            for detail, spec in zip(details, self.inputs):
                if tuple(int(size) for size in detail["shape"]) != spec.shape:
                    interpreter.resize_tensor_input(detail["index"], spec.shape)
            interpreter.allocate_tensors()
        except AgentError:
            raise
        except Exception as error:
            raise self.explain(error) from error
        self.delegation = _delegation(interpreter)
        self.provider = "XNNPACK" if self.delegation and self.delegation.delegated else "TFLite reference kernels"
        self._interpreter: Any = interpreter
        self._input_indices = [d["index"] for d in details]
        self._output_indices = [d["index"] for d in interpreter.get_output_details()]

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        self._check(arrays)
        for index, array in zip(self._input_indices, arrays):
            self._interpreter.set_tensor(index, array)

    def invoke(self) -> None:
        try:
            self._interpreter.invoke()
        except Exception as error:
            raise self.explain(error) from error

    def outputs(self) -> list[Array]:
        return [self._interpreter.get_tensor(index) for index in self._output_indices]  # copies already

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield self._interpreter.invoke

    def explain(self, error: BaseException) -> AgentError:
        if isinstance(error.__cause__, ImportError):
            # tflite-runtime was built for numpy 1: under numpy 2 it imports, but its first Interpreter fails.
            wheel = f"{error.__cause__}: the TFLite package {self.version} needs an older numpy (pip install 'numpy<2')"
            return AgentError("runtime_missing", wheel)
        return AgentError(_kind(error), " ".join(str(error).split())[:500])

    def close(self) -> None:
        self._interpreter = None

    def profiler(self) -> AbstractContextManager[Profiler]:
        """Open the network once more in LiteRT's `CompiledModel`, since the interpreter has no profiler."""
        values = [self._interpreter.get_tensor(index) for index in self._input_indices]
        outputs = [
            TensorSpec(d["name"], tuple(int(size) for size in d["shape"]), _dtype_name(d["dtype"]))
            for d in self._interpreter.get_output_details()
        ]
        return litert_profiler.opened(
            self._path, self.version, self._threads, list(zip(self.inputs, values)), outputs, self.provider
        )


def _declared(detail: Any) -> list[int | None]:
    """Return the declared sizes. Open dimensions are None here, -1 in `shape_signature`, and 1 in `shape`."""
    signature = detail.get("shape_signature")
    if signature is None or not len(signature):
        signature = detail["shape"]
    return [None if size < 0 else int(size) for size in signature]


def _dtype_name(dtype: Any) -> str:
    import numpy as np

    return str(np.dtype(dtype).name)


def _delegation(interpreter: Any) -> Delegation | None:
    """Return how much of the graph XNNPACK runs, or None if the interpreter does not list its operators.

    After `allocate_tensors` the interpreter lists the file's own operators, then one DELEGATE node for each
    partition. An operator belongs to a partition if it lies on the way back from the partition's outputs to
    its inputs.
    """
    try:
        nodes = interpreter._get_ops_details()
    except (AttributeError, ValueError):
        return None
    partitions = [node for node in nodes if "DELEGATE" in node["op_name"].upper()]
    operators = [node for node in nodes if "DELEGATE" not in node["op_name"].upper()]
    producer = {int(tensor): number for number, node in enumerate(operators) for tensor in node["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        border = {int(tensor) for tensor in partition["inputs"]}
        open_tensors = [int(tensor) for tensor in partition["outputs"]]
        while open_tensors:
            tensor = open_tensors.pop()
            number = producer.get(tensor)
            if tensor in border or number is None or number in taken:
                continue
            taken.add(number)
            open_tensors.extend(int(t) for t in operators[number]["inputs"])
    return Delegation(len(operators), len(taken), len(partitions))


def _kind(error: BaseException) -> str:
    message = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in message or "Failed to allocate" in message:
        return "out_of_memory"
    if "unresolved custom op" in message or "Didn't find op for builtin opcode" in message:
        return "unsupported_op"
    if isinstance(error, ValueError) and any(sign in message for sign in _UNREADABLE):
        return "corrupt_artifact"
    return "crash"
