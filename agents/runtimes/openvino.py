"""OpenVINO on Intel's, AMD's and ARM's CPUs, and on Intel's GPUs. It takes the same ONNX files as ONNX Runtime."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import Session, check_accelerator, specify_inputs

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array

__all__ = ["OpenVINOSession", "load", "open_session"]

_DEVICES = {"cpu": "CPU", "gpu": "GPU"}
_DTYPES = {
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "boolean": "bool",
}
"""The numpy names of OpenVINO's types."""
_TELEMETRY = "openvino_telemetry"
_PLACES = re.compile(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:")
"""What OpenVINO says of its own source files in messages."""


def load() -> None:
    """Import openvino without its telemetry, which reports each import to Intel where that package is installed."""
    absent: Any = None
    sys.modules.setdefault(_TELEMETRY, absent)  # importing it now raises ImportError, for which openvino has a stub
    import openvino  # noqa: F401


def open_session(
    path: str, version: str, threads: int, accelerator: str, inputs: Sequence[InputRequest]
) -> OpenVINOSession:
    """Load an ONNX file; the arguments are those of `runtimes.open`, and `version` is the package's."""
    check_accelerator("openvino", accelerator, tuple(_DEVICES))
    return OpenVINOSession(path, version, threads, _DEVICES[accelerator], inputs)


class OpenVINOSession(Session):
    """A session of an `InferRequest`, compiled for the lowest latency of one inference.

    One timed inference is one `infer`. Inputs are numpy arrays that OpenVINO reads in place; outputs stay in its own
    memory. On a GPU, both travel within the timed inference.
    """

    runtime = "openvino"

    def __init__(self, path: str, version: str, threads: int, device: str, inputs: Sequence[InputRequest]) -> None:
        import openvino

        self.version = version
        self._ov: Any = openvino
        core: Any = openvino.Core()
        found = core.available_devices  # e.g. CPU, GPU.0, GPU.1
        if not any(name.partition(".")[0] == device for name in found):
            raise AgentError(
                "runtime_missing",
                f"openvino {version} finds no {device} here, only {', '.join(found)}; its {device} is one of Intel's, "
                "whose driver has to be installed",
            )
        model = _read(path)
        self.inputs = specify_inputs([(_name(port), _sides(port), _dtype(port)) for port in model.inputs], inputs)
        try:
            model.reshape({port: spec.shape for port, spec in zip(model.inputs, self.inputs)})
            precision = _precision(model, core.get_property(device, "OPTIMIZATION_CAPABILITIES"))
            compiled = core.compile_model(model, device, _settings(device, threads, precision))
            if device == "CPU":
                _check_threads(compiled, threads)
            self._request: Any = compiled.create_infer_request()
        except AgentError:
            raise
        except Exception as error:
            raise _explain(error) from error
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.provider = f"{', '.join(compiled.get_property('EXECUTION_DEVICES'))} {used}"
        self._outputs = len(compiled.outputs)
        self._arrays: list[Array] = []

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        import numpy as np

        self._check(arrays)
        self._arrays = [np.asarray(array, order="C") for array in arrays]  # a Tensor does not keep its array alive
        for index, array in enumerate(self._arrays):
            self._request.set_input_tensor(index, self._ov.Tensor(array, shared_memory=True))

    def invoke(self) -> None:
        try:
            self._request.infer(share_outputs=True)
        except Exception as error:
            raise self.explain(error) from error

    def outputs(self) -> list[Array]:
        return [self._request.get_output_tensor(index).data.copy() for index in range(self._outputs)]

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        yield partial(self._request.infer, share_outputs=True)

    def explain(self, error: BaseException) -> AgentError:
        return _explain(error)

    def close(self) -> None:
        self._request = None
        self._arrays = []


def _read(path: str) -> Any:
    """Return the model of an ONNX file.

    `Core.read_model` would offer the bytes to the readers of seven formats, one after another.
    """
    from openvino.frontend import FrontEndManager

    try:
        reader: Any = FrontEndManager().load_by_framework("onnx")
        model = reader.convert(reader.load(path))
        if not model.outputs:
            raise ValueError("no graph with outputs is in it")  # as in an empty file, which it takes
        return model
    except Exception as error:
        explained = _explain(error)
        if explained.kind in ("unsupported_op", "out_of_memory"):
            raise explained from error
        raise AgentError("corrupt_artifact", f"openvino cannot read the file: {explained.message}"[:500]) from error


def _settings(device: str, threads: int, precision: str) -> dict[str, object]:
    """Return the configuration of a compiled model.

    By default OpenVINO computes float32 networks in bfloat16 where the CPU has instructions for it, and in float16 on
    GPUs; it uses no second thread of a core; and it moves its threads, the caller's too, to CPUs of its own choice,
    which may be others than those that the worker was told to use.
    """
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }
    if device == "CPU":
        settings.update(INFERENCE_NUM_THREADS=threads, ENABLE_CPU_PINNING=False, ENABLE_HYPER_THREADING=True)
    return settings


def _precision(model: Any, capabilities: Sequence[str]) -> str:
    """Return the type to compute in: that of the network's constants if the device can, else float32.

    Asked for a type that a CPU lacks, OpenVINO takes another: bfloat16 for float16.
    """
    types = {node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"}
    able = {"f16": "FP16", "bf16": "BF16"}
    return next((name for name, ability in able.items() if name in types and ability in capabilities), "f32")


def _check_threads(compiled: Any, threads: int) -> None:
    """Raise `AgentError` unless the model runs on `threads` threads: OpenVINO uses no more of them than CPUs."""
    used = compiled.get_property("INFERENCE_NUM_THREADS")
    if used != threads:
        raise AgentError(
            "bad_request",
            f"openvino runs on {used} threads here, not on {threads}: it uses one for each CPU that the worker could "
            "use when it loaded its first network, and no more",
        )


def _name(port: Any) -> str:
    return str(port.any_name)


def _sides(port: Any) -> list[int | None]:
    """Return the declared sizes, with None for open dimensions."""
    if port.partial_shape.rank.is_dynamic:
        raise AgentError("bad_request", f"input {_name(port)!r} has an open number of dimensions")
    return [None if side.is_dynamic else side.get_length() for side in port.partial_shape]


def _dtype(port: Any) -> str:
    name = str(port.element_type.get_type_name())
    return _DTYPES.get(name, name)


def _explain(error: BaseException) -> AgentError:
    text = " ".join(_PLACES.sub(" ", " ".join(str(error).split())).split())
    return AgentError(_kind(error, text), (text or type(error).__name__)[:500])


def _kind(error: BaseException, message: str) -> str:
    if isinstance(error, MemoryError) or "bad_alloc" in message or "OUT_OF_" in message or "out of memory" in message:
        return "out_of_memory"
    if "No conversion rule found" in message or "unsupported operations" in message.lower():
        return "unsupported_op"
    if "Cannot load library" in message:
        return "runtime_missing"
    return "crash"
