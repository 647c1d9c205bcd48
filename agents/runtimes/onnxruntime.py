"""ONNX Runtime on the CPU, with every graph optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from ..errors import AgentError
from .base import Session, TensorSpec, check_accelerator, fill_shape

if TYPE_CHECKING:
    from .base import Array

__all__ = ["ONNXRuntimeSession", "load", "open_session"]

_PROVIDERS = {"cpu": "CPUExecutionProvider"}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_ERRORS_ONLY = 3


def load() -> None:
    import onnxruntime  # noqa: F401


def open_session(
    path: str, version: str, threads: int, accelerator: str, input_shape: Sequence[int] | None
) -> ONNXRuntimeSession:
    check_accelerator("onnxruntime", accelerator, tuple(_PROVIDERS))
    return ONNXRuntimeSession(path, version, threads, _PROVIDERS[accelerator], input_shape)


class ONNXRuntimeSession(Session):
    """`onnxruntime.InferenceSession`. One timed inference is one `run`, numpy arrays in and out."""

    runtime = "onnxruntime"

    def __init__(self, path: str, version: str, threads: int, provider: str, input_shape: Sequence[int] | None) -> None:
        import onnxruntime as ort

        if provider not in ort.get_available_providers():
            raise AgentError("runtime_missing", f"onnxruntime {version} was built without {provider}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = ort.InferenceSession(path, sess_options=options, providers=[provider])
        except Exception as error:
            raise self.explain(error) from error
        used = session.get_providers()
        if used[0] != provider:  # ORT falls back with no more than a warning
            raise AgentError("runtime_missing", f"asked onnxruntime for {provider}, got {', '.join(used)}")
        nodes = session.get_inputs()
        if input_shape is not None and len(nodes) != 1:
            raise AgentError("bad_request", f"the network has {len(nodes)} inputs: one shape does not say enough")
        self.version = version
        self.provider = provider
        self.inputs = tuple(
            TensorSpec(node.name, fill_shape(node.name, _declared(node.shape), input_shape), _dtype(node))
            for node in nodes
        )
        self._session: Any = session
        self._feed: dict[str, Array] = {}
        self._outputs: list[Array] = []

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        self._check(arrays)
        self._feed = {spec.name: array for spec, array in zip(self.inputs, arrays)}

    def invoke(self) -> None:
        try:
            self._outputs = self._session.run(None, self._feed)
        except Exception as error:
            raise self.explain(error) from error

    def outputs(self) -> list[Array]:
        return [output.copy() for output in self._outputs]

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield partial(self._session.run, None, self._feed)

    def explain(self, error: BaseException) -> AgentError:
        return AgentError(_kind(type(error).__name__, str(error)), " ".join(str(error).split())[:500])

    def close(self) -> None:
        self._session = None
        self._feed = {}
        self._outputs = []


def _declared(shape: Sequence[object]) -> list[int | None]:
    """Symbolic dimensions come as strings or None."""
    return [size if isinstance(size, int) else None for size in shape]


def _dtype(node: Any) -> str:
    if node.type not in _DTYPES:
        raise AgentError("bad_request", f"input {node.name!r} has type {node.type}, which latlab cannot make up")
    return _DTYPES[node.type]


def _kind(status: str, message: str) -> str:
    """Failure kind from the class name of ORT's exception (its status code) and its text."""
    if (
        "bad_alloc" in message
        or "Failed to allocate memory" in message
        or "bad allocation" in message
        or status == "MemoryError"
    ):
        return "out_of_memory"
    if status == "NotImplemented" or "is not a registered function/op" in message or "No Op registered for" in message:
        return "unsupported_op"
    unreadable = status == "InvalidArgument" and "Load model from" in message
    if unreadable or status in ("InvalidProtobuf", "NoModel", "NoSuchFile", "InvalidGraph"):
        return "corrupt_artifact"
    return "crash"
