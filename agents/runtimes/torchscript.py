"""TorchScript on the CPU and on CUDA."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Callable

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import Session, TensorSpec, check_accelerator, specify_inputs
from latlab.agents.runtimes.profiler import Profiler
from latlab.agents.runtimes.torchscript_profiler import TorchProfiler

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array

__all__ = ["TorchScriptSession", "load", "open_session"]


def load() -> None:
    """Import torch, and let it run operators one after another."""
    import torch

    with suppress(RuntimeError):  # only possible before the first parallel region of the process
        torch.set_num_interop_threads(1)


def open_session(
    path: str, version: str, threads: int, accelerator: str, inputs: Sequence[InputRequest]
) -> TorchScriptSession:
    """Load a TorchScript file; the arguments are those of `runtimes.open`, and `version` is the package's."""
    check_accelerator("torchscript", accelerator, ("cpu", "cuda"))
    if accelerator == "cuda":
        return CUDASession(path, version, threads, inputs)
    return TorchScriptSession(path, version, threads, inputs)


class TorchScriptSession(Session):
    """A session of a frozen `ScriptModule` in inference mode. One timed inference is one call of the module.

    The number of threads is process-wide in torch, so it is set again whenever this network is about to run.
    """

    runtime = "torchscript"
    provider = "cpu"

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        import torch

        self.version = version
        self._torch: Any = torch
        self._threads = threads
        try:
            torch.set_num_threads(threads)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit as a whole is deprecated
                module: Any = self._torch.jit.load(path, map_location=self.provider)
                if hasattr(module, "training"):  # a frozen module has no such attribute any more
                    module = torch.jit.freeze(module.eval())
        except Exception as error:
            raise self.explain(error) from error
        parameters = [_Parameter(one) for one in module.forward.schema.arguments[1:]]  # the first is the module itself
        self._parameters, self.inputs = _asked_for(parameters, inputs)
        self._module = module
        self._arguments: tuple[Any, ...] = ()
        self._outputs: list[Any] = []

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        tensors = [self._torch.from_numpy(array).to(self.provider) for array in arrays]
        if not self.inputs:
            self._arguments = tuple(tensors)
            return
        self._check(arrays)
        tensors = [
            tensor.to(self._torch.bfloat16) if spec.dtype == "bfloat16" else tensor
            for spec, tensor in zip(self.inputs, tensors)
        ]
        given = dict(zip([spec.name for spec in self.inputs], tensors))
        self._arguments = tuple(one.argument(given.get(one.name)) for one in self._parameters)

    def random_inputs(self, seed: int) -> list[Array]:
        """Return seeded random inputs.

        Raises:
            AgentError: "bad_request" without `inputs`, because the file stores no shape.
        """
        if not self.inputs:
            raise AgentError("bad_request", "a TorchScript file does not keep its input's shape: say it (--input)")
        return super().random_inputs(seed)

    def invoke(self) -> None:
        try:
            with self.running() as call:
                result = call()
        except Exception as error:
            raise self.explain(error) from error
        self._outputs = list(result) if isinstance(result, (tuple, list)) else [result]

    def outputs(self) -> list[Array]:
        return [output.cpu().numpy().copy() for output in self._outputs]

    @contextmanager
    def running(self) -> Iterator[Callable[[], object]]:
        self._torch.set_num_threads(self._threads)
        with self._torch.inference_mode():
            yield partial(self._module, *self._arguments)

    def explain(self, error: BaseException) -> AgentError:
        return AgentError(_kind(error), _brief(str(error)))

    def close(self) -> None:
        self._module = None
        self._arguments = ()
        self._outputs = []

    @contextmanager
    def profiler(self) -> Iterator[Profiler]:
        """Yield a profiler of this session's module, on which torch's profiler leaves no trace."""
        with self.running() as call:
            yield TorchProfiler(self._torch, call, self.provider)


class _Parameter:
    """A parameter of the module's `forward`."""

    def __init__(self, argument: Any) -> None:
        self.name = str(argument.name)
        self.kind = str(argument.type)
        """Its type as TorchScript writes it: `Tensor`, `Optional[Tensor]`, `List[Tensor]`, `int`, ..."""
        self.has_default = bool(argument.has_default_value())
        self._default = argument.default_value if self.has_default else None

    def argument(self, tensor: Any) -> Any:
        """Return what to call the module with, for a tensor or for None: not given."""
        if tensor is None:
            return self._default
        if self.kind == "List[Tensor]":
            return [tensor]
        return tensor.item() if self.kind in _NUMBERS else tensor


_NUMBERS = ("int", "float", "bool", "number")
_KINDS = ("Tensor", "Optional[Tensor]", "List[Tensor]", *_NUMBERS)


def _asked_for(
    parameters: list[_Parameter], inputs: Sequence[InputRequest]
) -> tuple[list[_Parameter], tuple[TensorSpec, ...]]:
    """Return the parameters up to the last that is asked for, and the specification of those that are.

    The file stores neither types nor shapes: float32 suits images, the usual inputs.
    """
    if not inputs:
        return [], ()
    names = [one.name for one in parameters]
    if len(inputs) > len(names):
        raise AgentError("bad_request", f"the network has {len(names)} inputs, not {len(inputs)}")
    asked = {one.name or names[place]: one for place, one in enumerate(inputs)}
    specs = specify_inputs(
        [(name, asked[name].shape or (), None) for name in names if name in asked],
        [replace(one, name=name) for name, one in asked.items()],
    )
    called = parameters[: 1 + max(names.index(spec.name) for spec in specs)]
    for one in parameters:
        if one.name not in asked and not one.has_default:
            raise AgentError("bad_request", f"the network also takes {one.name!r}: say its shape and type")
        if one.name in asked and one.kind not in _KINDS:
            raise AgentError("bad_request", f"input {one.name!r} is a {one.kind}, which latlab cannot make up")
    return called, specs


class CUDASession(TorchScriptSession):
    """A TorchScript session on a GPU: on torch's default stream, timed by CUDA events around the call.

    float32 stays float32: by default torch lets convolutions round to TF32 (10 bits of mantissa), which fails the
    comparison with eager outputs. On each convolution's first call cuDNN searches for the fastest algorithm
    (`cudnn.benchmark`): shapes do not change, and ONNX Runtime does the same.
    """

    provider = "cuda"

    def __init__(self, path: str, version: str, threads: int, inputs: Sequence[InputRequest]) -> None:
        import torch

        from latlab.agents.runtimes.cuda import pci_bus_id

        if not torch.cuda.is_available():
            raise AgentError("runtime_missing", _why_no_cuda(torch))
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self.clock = TorchClock(torch)
        self.gpu = pci_bus_id()
        super().__init__(path, version, threads, inputs)

    def invoke(self) -> None:
        super().invoke()
        try:
            self._torch.cuda.synchronize()  # errors of queued work surface here
        except Exception as error:
            raise self.explain(error) from error

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        try:
            super().set_inputs(arrays)
        except RuntimeError as error:
            raise self.explain(error) from error

    def close(self) -> None:
        super().close()
        self._torch.cuda.empty_cache()  # torch keeps freed memory, which the next network's runtime may need


class TorchClock:
    """A `DeviceClock` of CUDA events on torch's current stream; `wait` waits for all streams."""

    def __init__(self, torch: Any) -> None:
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.start, self.stop = self._begin.record, self._end.record
        self.wait = torch.cuda.synchronize

    def elapsed_ns(self) -> int:
        """Return the nanoseconds between the two events."""
        return int(self._begin.elapsed_time(self._end) * 1e6)  # from milliseconds


def _why_no_cuda(torch: Any) -> str:
    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} was built without CUDA: pip install --force-reinstall torch, "
            "or the build for your driver that pytorch.org/get-started/locally names"
        )
    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no GPU: nvidia-smi must list one and a driver "
        "for that CUDA or a later one, and CUDA_VISIBLE_DEVICES must not hide it"
    )


def _brief(message: str) -> str:
    """Return the reason, which TorchScript puts after a quotation of the serialised code, in at most 500 characters."""
    at = message.rfind("RuntimeError:")
    return " ".join(message[max(at, 0) :].split())[:500]


def _kind(error: BaseException) -> str:
    message = str(error)
    memory = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
    if isinstance(error, MemoryError) or any(text in message for text in memory):
        return "out_of_memory"
    if (
        "Unknown builtin op" in message
        or "Could not find any similar ops" in message
        or "isn't a registered" in message
    ):
        return "unsupported_op"
    markers = (
        "PytorchStreamReader",
        "file in archive is not in a subdirectory",
        "Unknown type name",
        "unexpected EOF",
    )
    if any(marker in message for marker in markers) or "not a ZIP archive" in message:
        return "corrupt_artifact"
    return "crash"
