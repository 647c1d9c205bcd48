"""ONNX Runtime (ORT) on the CPU and on CUDA, with all of its graph optimisations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import Session, check_accelerator, specify_inputs
from latlab.agents.runtimes.onnxruntime_profiler import traced

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array
    from latlab.agents.runtimes.profiler import Profiler

__all__ = ["ONNXRuntimeSession", "load", "open_session"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {"float": "float32", "double": "float64"}
"""The numpy names of ORT's types that have other names there."""
DEVICE = "cuda"
"""The place of the CUDA provider's inputs and outputs, as ORT's I/O binding names it."""
_ERRORS_ONLY = 3
# Keys of ORT's session configuration, from onnxruntime_session_options_config_keys.h.
_NO_CPU = "session.disable_cpu_ep_fallback"
"""A setting that makes opening fail if any node is placed on the CPU. The CPU provider must then not be requested."""
_RECORD = "session.record_ep_graph_assignment_info"
"""A setting that makes ORT record which nodes it places on which provider."""


def load() -> None:
    """Import onnxruntime and switch its telemetry off."""
    import onnxruntime

    # Microsoft's builds may report usage: a device sends nothing, and nothing extra runs while a network is timed.
    onnxruntime.disable_telemetry_events()


def open_session(
    path: str, version: str, threads: int, accelerator: str, inputs: Sequence[InputRequest]
) -> ONNXRuntimeSession:
    """Load an ONNX file; the arguments are those of `runtimes.open`, and `version` is the package's."""
    check_accelerator("onnxruntime", accelerator, tuple(_PROVIDERS))
    kind = CUDASession if accelerator == "cuda" else ONNXRuntimeSession
    return kind(path, version, threads, inputs)


class ONNXRuntimeSession(Session):
    """A session of `onnxruntime.InferenceSession`.

    One timed inference is one `run`, which takes and returns numpy arrays.
    """

    runtime = "onnxruntime"
    provider = _PROVIDERS["cpu"]
    remedy = ""
    """A hint for users if the provider does not start. ORT's exception does not give the reason; only its log does."""

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        self.version = version
        self._path = path
        self._threads = threads
        self._session = self._open(path)
        nodes = self._session.get_inputs()
        self.inputs = specify_inputs([(node.name, _declared(node.shape), _dtype(node)) for node in nodes], inputs)
        self._feed: dict[str, Array] = {}
        self._outputs: list[Array] = []

    def _options(self, settings: Mapping[str, str]) -> Any:
        """Return ORT's options of a session, with `settings` added to its configuration."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = _ERRORS_ONLY
        for key, value in settings.items():
            options.add_session_config_entry(key, value)
        return options

    def _open(self, path: str, settings: Mapping[str, str] = {}, **provider_options: str) -> Any:
        """Return an ORT session with `provider` as its only provider, and `settings` added to its configuration."""
        return self._start(path, self._options(settings), provider_options)

    def _start(self, model: str | bytes, options: Any, provider_options: Mapping[str, str] = {}) -> Any:
        """Return the ORT session of a model (its file, or the content of one) that these options describe."""
        import onnxruntime as ort

        if self.provider not in ort.get_available_providers():
            raise AgentError("runtime_missing", f"onnxruntime {self.version} was built without {self.provider}")
        try:
            session = ort.InferenceSession(
                model, options, providers=[(self.provider, dict(provider_options))], enable_fallback=False
            )
        except Exception as error:
            raise self.explain(error) from error
        used = session.get_providers()
        if used[0] != self.provider:  # ORT falls back with no more than a warning
            raise AgentError("runtime_missing", f"asked onnxruntime for {self.provider}, got {used[0]}{self.remedy}")
        return session

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
        message = " ".join(str(error).split())
        # Before "CUDA failure" stands a long C++ function name.
        return AgentError(_kind(type(error).__name__, message), message[max(message.find("CUDA failure"), 0) :][:500])

    def close(self) -> None:
        self._session = None
        self._feed = {}
        self._outputs = []

    def profiler(self) -> AbstractContextManager[Profiler]:
        return traced(self._start, partial(self._options, {}), self._path, self._session, self._feed)


class CUDASession(ONNXRuntimeSession):
    """An ONNX Runtime session on a GPU. Inputs and outputs stay on the GPU, so that no copy is timed.

    ORT runs on latlab's own stream and does not wait for it, as it would by default at the end of every run (ORT's
    issues 7225 and 28539). Events on that stream time the network, and the host's time to launch it is measured apart.
    float32 stays float32 (no TF32), as in `torchscript`.

    Every node must run on the GPU. ORT deliberately places nodes that only compute shapes on the CPU; they disappear
    if the shapes in the file are fixed, which is how latlab exports. Any other node on the CPU is an error, because its
    results would travel between the processors within the timed inference.
    """

    provider = _PROVIDERS["cuda"]
    remedy = (
        ": its libraries are missing, which pip install 'onnxruntime-gpu[cuda,cudnn]' brings, "
        "or the driver is too old for them (CUDA 13 takes driver 580)"
    )

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        super().__init__(path, version, threads, inputs)
        import onnxruntime as ort

        self._values: list[Any] = []
        self._to_value = partial(ort.OrtValue.ortvalue_from_numpy, device_type=DEVICE, device_id=0)
        self._binding = self._session.io_binding()
        for node in self._session.get_outputs():
            self._binding.bind_output(node.name, DEVICE, 0)
        self._queue_only = ort.RunOptions()
        self._queue_only.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def profiler(self) -> AbstractContextManager[Profiler]:
        raise AgentError(
            "bad_request",
            "onnxruntime's profiler tells of a GPU's operators only how long it took to launch them: "
            "profile the network in torchscript, or with NVIDIA's nsys",
        )

    def _open(self, path: str, settings: Mapping[str, str] = {}, **provider_options: str) -> Any:
        import onnxruntime as ort

        from latlab.agents.runtimes.cuda import event_clock, pci_bus_id

        if hasattr(ort, "preload_dlls"):  # since 1.21; finds the CUDA libraries that pip installed next to ORT
            ort.preload_dlls()
        if self.provider not in ort.get_available_providers():
            raise AgentError(
                "runtime_missing",
                f"onnxruntime {self.version} was built without CUDA: "
                "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'",
            )
        clock = event_clock()
        self.clock, self.gpu = clock, pci_bus_id()
        on_gpu = {"user_compute_stream": str(clock.stream), "use_tf32": "0"}
        try:
            return super()._open(path, {_NO_CPU: "1"}, **on_gpu)
        except AgentError as error:
            if "CPU EP" not in error.message:
                raise
            # Either the whole provider is missing, which the next call reports, or it cannot run some nodes.
            session = super()._open(path, {_RECORD: "1"}, **on_gpu)
            raise AgentError("unsupported_op", _why_not_all_on(self.provider, session)) from error

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        self._check(arrays)
        try:
            self._values = [self._to_value(array) for array in arrays]
            for spec, value in zip(self.inputs, self._values):
                self._binding.bind_ortvalue_input(spec.name, value)
            self._binding.synchronize_inputs()
        except Exception as error:
            raise self.explain(error) from error

    def invoke(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            raise self.explain(error) from error

    def outputs(self) -> list[Array]:
        return list(self._binding.copy_outputs_to_cpu())

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield partial(self._session.run_with_iobinding, self._binding, self._queue_only)

    def close(self) -> None:
        self._binding = None
        self._values = []
        super().close()


def _why_not_all_on(provider: str, session: Any) -> str:
    """Return a message that names the operators ORT put on the CPU.

    The session must have been opened with `_RECORD`.
    """
    message = f"{provider} does not run all of the network"
    if hasattr(session, "get_provider_graph_assignment_info"):  # since 1.24
        parts = session.get_provider_graph_assignment_info()
        nodes = [node.op_type for part in parts if part.ep_name == "CPUExecutionProvider" for node in part.get_nodes()]
        counts = (f"{nodes.count(name)} x {name}" for name in sorted(set(nodes)))
        message += f": onnxruntime puts on the CPU {', '.join(counts)}"
    return f"{message}. Shape computations go when the file is exported with fixed shapes"


def _declared(shape: Sequence[object]) -> list[int | None]:
    """Return the declared sizes, with None for open dimensions, which ORT gives as strings, None, 0 or -1."""
    return [size if isinstance(size, int) and size > 0 else None for size in shape]


def _dtype(node: Any) -> str:
    found = str(node.type).partition("(")[2].rstrip(")")
    if not node.type.startswith("tensor("):
        raise AgentError("bad_request", f"input {node.name!r} is a {node.type}, which latlab cannot make up")
    return _DTYPES.get(found, found)


def _kind(status: str, message: str) -> str:
    """Return the failure kind, from the class name of ORT's exception (its status code) and from its text."""
    if (
        "bad_alloc" in message
        or "Failed to allocate memory" in message
        or "bad allocation" in message
        or "out of memory" in message
        or "STATUS_ALLOC_FAILED" in message
        or status == "MemoryError"
    ):
        return "out_of_memory"
    if "driver version is insufficient" in message or "no CUDA-capable device" in message:
        return "runtime_missing"
    if status == "NotImplemented" or "is not a registered function/op" in message or "No Op registered for" in message:
        return "unsupported_op"
    # An empty file: ONNX Runtime 1.31 calls it an invalid argument, older ones a failure.
    unreadable = (status == "InvalidArgument" and "Load model from" in message) or "does not have a graph" in message
    if unreadable or status in ("InvalidProtobuf", "NoModel", "NoSuchFile", "InvalidGraph"):
        return "corrupt_artifact"
    return "crash"
