"""ONNX Runtime's profiler: a session that writes a trace, and what tracing itself costs.

The profiler describes a node (its shapes, its memory) before it reads the clock at the node's end, so some microseconds
of its own work are in the time of every node. How many depends on the network and on the caches: from 2 to 5 on one
machine. So they are measured with the network itself. How much longer an inference is under the profiler is all of the
profiler's work; the part of it that lies inside nodes comes from a network of simple nodes, where the same two can be
told apart. That part hardly varies.
"""

from __future__ import annotations

import glob
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
_FIRST = 3
"""Inferences without the profiler that do not count: they find other data in the caches."""
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
def traced(
    start: Open, options: Callable[[], Any], path: str, plain: Any, feed: Mapping[str, Array]
) -> Iterator[Profiler]:
    """Open a model under ORT's profiler, whose trace lies in a temporary folder until this ends.

    Args:
        start: opens a session.
        options: returns new options as the session's own are.
        path: the model file.
        plain: a session of it without the profiler.
        feed: its inputs.
    """
    inside = _share_inside_nodes(start, options)
    with _trace_folder() as folder:
        yield ORTProfiler(start(path, _tracing(options(), folder)), plain, feed, inside)


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
        plain: one of the same model without.
        feed: its inputs.
        inside: the part of the profiler's own work that lies inside the times of nodes, 0 to 1.
    """

    resolution_ns = 1000

    def __init__(self, session: Any, plain: Any, feed: Mapping[str, Array], inside: float) -> None:
        self._session, self._plain, self._feed, self._inside = session, plain, feed, inside
        self._last_ns = 0
        self._traced_ns: list[int] = []
        self._plain_ns: list[int] = []

    def start(self) -> None:
        self._traced_ns, self._plain_ns = [], []

    def invoke(self) -> object:
        self._last_ns, outputs = _timed(self._session, self._feed)
        return outputs

    def collect(self) -> None:
        self._traced_ns.append(self._last_ns)

    def operators(self) -> list[Operator]:
        # Not in turn with the others: each would find the other's weights in the caches instead of its own.
        plain_ns = [_timed(self._plain, self._feed)[0] for _ in range(_FIRST + len(self._traced_ns))]
        self._plain_ns = plain_ns[_FIRST:]
        path = self._session.end_profiling()
        try:
            return read_trace(path, len(self._traced_ns), round(self._inside * self._slowdown_ns()))
        except OSError as error:
            raise AgentError("crash", f"onnxruntime wrote no profile: {error.strerror} ({path})") from error

    def share_inside(self) -> float:
        """Stop recording, and return the part of the profiler's work that lies in the nodes, which are all there is."""
        in_nodes = [sum(run) for run in zip(*(one.run_ns for one in self.operators()))]
        sums_ns = statistics.fmean(in_nodes[number] for number in _quiet(self._traced_ns))
        slowdown_ns = self._slowdown_ns()
        return min(1.0, max(0.0, (sums_ns - _quiet_ns(self._plain_ns)) / slowdown_ns)) if slowdown_ns else 0.0

    def _slowdown_ns(self) -> float:
        """Return by how much longer an inference is under the profiler; 0 if none was counted."""
        if not self._traced_ns:
            return 0.0
        return max(0.0, _quiet_ns(self._traced_ns) - _quiet_ns(self._plain_ns))


def _share_inside_nodes(start: Open, options: Callable[[], Any]) -> float:
    """Return which part of the profiler's own work lies inside the times of nodes, from 0 to 1.

    In a network of nodes that add three tensors nothing but nodes takes time. So what the times of its nodes add up to,
    less an inference without the profiler, is the work inside them.
    """
    import numpy as np

    model, feed = _adding_tensors(_NODES, _SIDE), {"x": np.ones((1, 1, _SIDE, _SIDE), np.float32)}
    with _trace_folder() as folder:
        profiler = ORTProfiler(start(model, _tracing(options(), folder)), start(model, options()), feed, 0)
        for number in range(_WARMUP + _RUNS):
            profiler.invoke()
            if number >= _WARMUP:
                profiler.collect()
        return profiler.share_inside()


def _timed(session: Any, feed: Mapping[str, Array]) -> tuple[int, object]:
    """Run an inference, and return its nanoseconds and its outputs."""
    began = time.perf_counter_ns()
    outputs = session.run(None, feed)
    return time.perf_counter_ns() - began, outputs


def _quiet(runs: Sequence[int]) -> list[int]:
    """Return the numbers of the fastest third of the runs: something else may have disturbed the others."""
    return sorted(range(len(runs)), key=lambda number: runs[number])[: max(1, len(runs) // 3)]


def _quiet_ns(runs: Sequence[int]) -> float:
    return statistics.fmean(runs[number] for number in _quiet(runs))


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
