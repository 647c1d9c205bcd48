"""LiteRT's profiler, through the C interface of the library in the package `ai_edge_litert`.

Python's `Interpreter` has no profiler. The library's `CompiledModel` has one: it runs the same kernels with the same
delegate (XNNPACK), and reports each operator inside the delegate. Its C interface (litert/c/*.h) may change, so only
releases with which it was tried are used.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import util
from typing import TYPE_CHECKING, Any

from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes.profiler import Operator, Profiler
from latlab.agents.runtimes.tflite_profile_table import TableError, read_table

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array, TensorSpec

__all__ = ["opened"]

TRIED = ("2.1.", "2.2.", "2.3.")
"""Releases with which this module was tried."""
_CPU = 1
_WRITE = 1
"""Numbers of `LiteRtHwAccelerators` and of `LiteRtTensorBufferLockMode`."""
_TYPES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10}
"""Numbers of `LiteRtElementType`."""
_MAX_RANK = 8
_SIGNATURE = ctypes.c_size_t(0)


class _Layout(ctypes.Structure):
    """`LiteRtLayout`."""

    _fields_ = (
        ("rank", ctypes.c_uint32, 7),
        ("has_strides", ctypes.c_uint32, 1),
        ("dimensions", ctypes.c_int32 * _MAX_RANK),
        ("strides", ctypes.c_uint32 * _MAX_RANK),
    )


class _TensorType(ctypes.Structure):
    """`LiteRtRankedTensorType`."""

    _fields_ = (("element_type", ctypes.c_int), ("layout", _Layout))


@contextmanager
def opened(
    path: str,
    version: str,
    threads: int,
    inputs: Sequence[tuple[TensorSpec, Array]],
    outputs: Sequence[TensorSpec],
    provider: str,
) -> Iterator[Profiler]:
    """Open a model under LiteRT's profiler.

    Args:
        path: the model file.
        version: that of the package.
        threads: threads of the delegate.
        inputs: specification and value of each, in the order of the model.
        outputs: specification of each.
        provider: the name of the delegate.

    Raises:
        AgentError: "bad_request" if this release was not tried, or has no profiler; "crash" if a call fails.
    """
    found = util.find_spec("ai_edge_litert")
    library = os.path.join(os.path.dirname(found.origin), "libLiteRt.so") if found and found.origin else ""
    if not version.startswith(TRIED) or not os.path.isfile(library):
        raise AgentError(
            "bad_request",
            f"tflite {version} has no profiler that latlab can read (ai-edge-litert {TRIED[0]}x to {TRIED[-1]}x have "
            "one). TFLite's program benchmark_model profiles on phones: see the runtime benchmark_model",
        )
    with ExitStack() as stack:
        yield LiteRTProfiler(_Library(library), stack, path, threads, inputs, outputs, provider)


class _Library:
    """The library: calls that return a handle, or raise."""

    def __init__(self, path: str) -> None:
        self._functions = ctypes.CDLL(path)
        self.libc = ctypes.CDLL(None)
        self.libc.strdup.restype = ctypes.c_void_p

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function. Raises `AgentError` ("crash") unless it reports success."""
        status = getattr(self._functions, name)(*arguments)
        if status:
            raise AgentError("crash", f"LiteRT's profiler cannot be used: {name} failed with status {status}")

    def create(self, stack: ExitStack, kind: str, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Return the handle that a function makes. `stack` destroys it, if `kind` is given."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        if not handle.value:
            raise AgentError("crash", f"LiteRT's profiler cannot be used: {name} returned nothing")
        if kind:
            stack.callback(getattr(self._functions, f"LiteRtDestroy{kind}"), handle)
        return handle

    def options(self, stack: ExitStack, **tables: str) -> ctypes.c_void_p:
        """Return the options of a model on the CPU.

        Args:
            tables: lines of TOML, by the name of the part that reads them.
        """
        options = self.create(stack, "Options", "LiteRtCreateOptions")
        self.call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        free = ctypes.cast(self.libc.free, ctypes.c_void_p)
        for part, text in tables.items():
            content = ctypes.c_void_p(self.libc.strdup(text.encode()))  # LiteRT frees it
            one = self.create(stack, "", "LiteRtCreateOpaqueOptions", part.encode(), content, free)
            self.call("LiteRtAddOpaqueOptions", options, one)
        return options


class LiteRTProfiler(Profiler):
    """A compiled model with LiteRT's profiler, whose summary is read at the end.

    Args: those of `opened`, with the library, and a stack that frees what is made.
    """

    resolution_ns = 1000

    def __init__(
        self,
        library: _Library,
        stack: ExitStack,
        path: str,
        threads: int,
        inputs: Sequence[tuple[TensorSpec, Array]],
        outputs: Sequence[TensorSpec],
        provider: str,
    ) -> None:
        self._library, self._provider = library, provider
        self._runs = 0
        environment = library.create(stack, "Environment", "LiteRtCreateEnvironment", 0, None)
        model = library.create(stack, "Model", "LiteRtCreateModelFromFile", environment, path.encode())
        options = library.options(
            stack, xnnpack=f"num_threads = {threads}\n", runtime_options_string="enable_profiling = true\n"
        )
        self._model = library.create(stack, "CompiledModel", "LiteRtCreateCompiledModel", environment, model, options)
        for place, (spec, _) in enumerate(inputs):
            shape = (ctypes.c_int * len(spec.shape))(*spec.shape)
            sizes = (self._model, _SIGNATURE, ctypes.c_size_t(place), shape, ctypes.c_size_t(len(spec.shape)))
            library.call("LiteRtCompiledModelResizeInputTensorNonStrict", *sizes)
        self._inputs = [self._buffer(stack, environment, "Input", n, spec) for n, (spec, _) in enumerate(inputs)]
        self._outputs = [self._buffer(stack, environment, "Output", n, spec) for n, spec in enumerate(outputs)]
        for buffer, (_, array) in zip(self._inputs, inputs):
            memory = ctypes.c_void_p()
            library.call("LiteRtLockTensorBuffer", buffer, ctypes.byref(memory), _WRITE)
            ctypes.memmove(memory, array.ctypes.data, array.nbytes)
            library.call("LiteRtUnlockTensorBuffer", buffer)
        self._profiler = library.create(stack, "", "LiteRtCompiledModelGetProfiler", self._model)
        self._arguments = (
            *(self._model, _SIGNATURE, ctypes.c_size_t(len(inputs)), (ctypes.c_void_p * len(inputs))(*self._inputs)),
            *(ctypes.c_size_t(len(outputs)), (ctypes.c_void_p * len(outputs))(*self._outputs)),
        )

    def _buffer(
        self, stack: ExitStack, environment: ctypes.c_void_p, side: str, place: int, spec: TensorSpec
    ) -> ctypes.c_void_p:
        """Return the buffer of an input or output."""
        if spec.dtype not in _TYPES or len(spec.shape) > _MAX_RANK:
            raise AgentError("bad_request", f"LiteRT's profiler takes no {spec.dtype} of shape {spec.shape}")
        needs = self._library.create(
            stack,
            "",
            f"LiteRtGetCompiledModel{side}BufferRequirements",
            *(self._model, _SIGNATURE, ctypes.c_size_t(place)),
        )
        tensor = _TensorType(element_type=_TYPES[spec.dtype])
        tensor.layout.rank = len(spec.shape)
        tensor.layout.dimensions[: len(spec.shape)] = spec.shape
        name = "LiteRtCreateManagedTensorBufferFromRequirements"
        return self._library.create(stack, "TensorBuffer", name, environment, ctypes.byref(tensor), needs)

    def start(self) -> None:
        self._runs = 0
        self._library.call("LiteRtStartProfiler", self._profiler)

    def invoke(self) -> object:
        self._library.call("LiteRtRunCompiledModel", *self._arguments)
        return None

    def collect(self) -> None:
        self._runs += 1

    def operators(self) -> list[Operator]:
        """Return the operators. LiteRT's summary has their means only, which stand for each inference."""
        self._library.call("LiteRtStopProfiler", self._profiler)
        summary = ctypes.c_void_p()
        self._library.call("LiteRtGetProfileSummary", self._profiler, self._model, ctypes.byref(summary))
        try:
            rows = read_table(ctypes.string_at(summary.value or 0).decode("utf-8", "replace"))
        except TableError as error:
            raise AgentError("crash", f"LiteRT's profile cannot be read: {error}") from error
        finally:
            self._library.libc.free(summary)
        return [
            Operator(
                row.name,
                row.kind,
                self._provider if row.delegate else "TFLite kernels",
                # The summary counts the calls of all inferences.
                (round(row.mean_ms * 1e6 / self._runs),) * self._runs,
            )
            for row in rows
        ]
