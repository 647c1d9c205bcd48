"""ONNX Runtime's profiler: a session that writes a trace, and what tracing itself costs.

The profiler describes a node (its shapes, its memory) before it reads the clock at the node's end, so some microseconds
of its own work are in the time of every node. They are measured with a network of simple nodes, whose tensors are as
large as a layer's: like the layers of real networks, they push the profiler's data out of the processor's caches.
"""

from __future__ import annotations

import glob
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, Union

from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes.onnxruntime_trace import read_trace
from latlab.agents.runtimes.profiler import Operator, Profiler

if TYPE_CHECKING:
    from latlab.agents.runtimes.base import Array

__all__ = ["ORTProfiler", "traced"]

Open = Callable[[Union[str, bytes], Any], Any]
"""Opens a model (a file's name, or its content) as an ORT session with these options."""
_NODES, _WARMUP, _RUNS = 64, 10, 30
"""Size of the network of simple nodes, and its inferences before and in its profile."""
_PREFIX = "latlab-profile-"
STALE_S = 3600.0
"""Age in seconds from which a folder of a trace belongs to no profile under way."""
_SIDE = 256
"""Sides of its square tensors: 256 KiB each, about the second cache of a processor."""
_FLOAT = 1
"""The number of 32-bit floats in ONNX."""


@contextmanager
def traced(start: Open, options: Callable[[], Any], path: str, feed: Mapping[str, Array]) -> Iterator[Profiler]:
    """Open a model under ORT's profiler, whose trace lies in a temporary folder until this ends.

    Args:
        start: opens a session.
        options: returns new options as the session's own are.
        path: the model file.
        feed: its inputs.
    """
    overhead_ns = _overhead_ns(start, options)
    with _trace_folder() as folder:
        yield ORTProfiler(start(path, _tracing(options(), folder)), feed, overhead_ns)


def _trace_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for a trace. Those that killed workers have left behind are removed first."""
    for left in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{_PREFIX}*")):
        with suppress(OSError):
            if time.time() - os.stat(left).st_mtime > STALE_S:
                shutil.rmtree(left)
    return tempfile.TemporaryDirectory(prefix=_PREFIX)


def _tracing(options: Any, folder: str) -> Any:
    options.enable_profiling = True
    options.profile_file_prefix = os.path.join(folder, "trace")
    return options


class ORTProfiler(Profiler):
    """A session under ORT's profiler.

    Args:
        session: an `InferenceSession` with profiling on.
        feed: its inputs.
        overhead_ns: the profiler's own time in each execution of a node.
    """

    resolution_ns = 1000

    def __init__(self, session: Any, feed: Mapping[str, Array], overhead_ns: int) -> None:
        self._session, self._feed, self._overhead_ns = session, feed, overhead_ns
        self._runs = 0

    def start(self) -> None:
        self._runs = 0

    def invoke(self) -> object:
        return self._session.run(None, self._feed)

    def collect(self) -> None:
        self._runs += 1

    def operators(self) -> list[Operator]:
        path = self._session.end_profiling()
        try:
            return read_trace(path, self._runs, self._overhead_ns)
        except OSError as error:
            raise AgentError("crash", f"onnxruntime wrote no profile: {error.strerror} ({path})") from error


def _overhead_ns(start: Open, options: Callable[[], Any]) -> int:
    """Return the nanoseconds of the profiler's own work in the time of a node.

    It is the time of a node that adds three tensors, as the profiler sees it (the median over the inferences of each
    node), less what a node costs without the profiler (by the 10th percentile of inferences: medians of so short pieces
    are hardly ever disturbed, and whole inferences often).
    """
    import numpy as np

    model, feed = _adding_tensors(_NODES, _SIDE), {"x": np.ones((1, 1, _SIDE, _SIDE), np.float32)}
    plain = start(model, options())
    with _trace_folder() as folder:
        profiler = ORTProfiler(start(model, _tracing(options(), folder)), feed, 0)
        plain_ns = []
        for number in range(_WARMUP + _RUNS):
            began = time.perf_counter_ns()
            plain.run(None, feed)
            plain_ns.append(time.perf_counter_ns() - began)
            profiler.invoke()
            if number >= _WARMUP:
                profiler.collect()
        traced_ns = sum(statistics.median(one.run_ns) for one in profiler.operators())
    return max(0, round((traced_ns - statistics.quantiles(plain_ns[_WARMUP:], n=10)[0]) / _NODES))


def _adding_tensors(nodes: int, side: int) -> bytes:
    """Return an ONNX model of nodes that add two square tensors, each to the result of the one before.

    It is written in the wire format of protocol buffers, by the field numbers of onnx.proto, because a device has no
    package that could make one.
    """
    sizes = (1, 1, side, side)
    shape = b"".join(_field(1, _field(1, size)) for size in sizes)  # TensorShapeProto.Dimension.dim_value
    tensor = _field(1, _FLOAT) + _field(2, shape)

    def value(name: str) -> bytes:
        return _field(1, name) + _field(2, _field(1, tensor))

    def constant(name: str) -> bytes:
        sides = b"".join(_field(1, size) for size in sizes)
        return sides + _field(2, _FLOAT) + _field(8, name) + _field(9, bytes(4 * side * side))  # raw_data: zeros

    graph, last = b"", "x"
    for number in range(nodes):
        names = b"".join(_field(1, name) for name in (last, "a", "b"))
        last = f"y{number}"
        graph += _field(1, names + _field(2, last) + _field(3, f"node{number}") + _field(4, "Sum"))
    graph += _field(2, "graph") + _field(5, constant("a")) + _field(5, constant("b"))
    graph += _field(11, value("x")) + _field(12, value(last))
    return _field(1, 7) + _field(7, graph) + _field(8, _field(2, 13))  # IR version 7 has operator set 13


def _field(number: int, content: int | str | bytes) -> bytes:
    """Return a field of a protocol buffer: a whole number, or text or a message with its length."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Return a whole number in groups of seven bits, the least first; all groups but the last have the top bit set."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
