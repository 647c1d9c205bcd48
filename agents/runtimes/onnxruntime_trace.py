"""The trace that ONNX Runtime's profiler writes: a JSON array of events, one event on each line.

A node's event `NAME_kernel_time` is written when the node ends, and the event `model_run` after all nodes of an
inference; so a `model_run` closes what came before it. Times are whole microseconds
(onnxruntime/core/common/profiler.cc).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from latlab.agents.protocol.errors import AgentError
from latlab.agents.runtimes.profiler import Operator

__all__ = ["read_trace"]

MAX_LINE = 1 << 20
"""Most characters of an event: it names the shapes of all inputs and outputs of a node."""
MAX_EVENTS = 1_000_000
"""Most events in a trace; the profiler itself keeps no more (kMaxNumEvents), and drops the rest without a word."""
_KERNEL = "_kernel_time"
_NS_PER_US = 1000


class _Node(NamedTuple):
    """The execution of one node, in microseconds on the profiler's clock."""

    key: tuple[str, str, str, str]
    """Its name, type, provider, and number in its graph."""
    start: int
    length: int


def read_trace(path: str, runs: int, overhead_ns: int) -> list[Operator]:
    """Return the operators of a trace, in the order in which they ran.

    Args:
        path: the file.
        runs: how many inferences count: the last ones of the trace.
        overhead_ns: the profiler's own time in the nodes of an inference, which are taken to have equal parts of it.

    Raises:
        AgentError: "crash" if the trace is cut off, or is no trace, or has fewer inferences.
    """
    inferences: list[list[_Node]] = []
    nodes: list[_Node] = []
    for event in _events(path):
        name, kind = event.get("name"), event.get("cat")
        if kind == "Session" and name == "model_run":
            inferences.append(nodes)
            nodes = []
            del inferences[:-runs]
        elif kind == "Node" and isinstance(name, str) and name.endswith(_KERNEL):
            nodes.append(_node(event, name[: -len(_KERNEL)], path))
    if len(inferences) < runs:
        raise _broken(path, f"it has {len(inferences)} inferences, not {runs}")
    total = sum(len(inference) for inference in inferences)
    times: dict[tuple[str, str, str, str], list[int]] = {}
    executions: dict[tuple[str, str, str, str], int] = {}
    for number, inference in enumerate(inferences):
        for node, own in _own_times(inference):
            times.setdefault(node.key, [0] * runs)[number] += own * _NS_PER_US
            executions[node.key] = executions.get(node.key, 0) + 1
    return [
        Operator(name, kind, provider, tuple(ns), round(overhead_ns * executions[name, kind, provider, index] / total))
        for (name, kind, provider, index), ns in times.items()
    ]


def _events(path: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a trace, which is read line by line: a whole one may be larger than a device's memory."""
    closed = False
    with open(path, encoding="utf-8", errors="replace") as file:
        for number in range(MAX_EVENTS + 3):
            line = file.readline(MAX_LINE)
            if not line:
                break
            text = line.strip().rstrip(",")
            if number == 0 and text == "[":
                continue
            if text == "]":
                closed = True
                break
            try:
                event = json.loads(text)
            except (ValueError, RecursionError):
                raise _broken(path, f"line {number + 1} is no event") from None
            if not isinstance(event, dict):
                raise _broken(path, f"line {number + 1} is no event")
            yield event
    if not closed:
        raise _broken(path, "it ends before its end mark")


def _node(event: dict[str, Any], name: str, path: str) -> _Node:
    """Return the execution that an event tells of."""
    facts = event.get("args")
    start, length = event.get("ts"), event.get("dur")
    if not isinstance(facts, dict) or type(start) is not int or type(length) is not int or length < 0:
        raise _broken(path, f"the event of the node {name[:100]!r} has no times")
    kind, provider, index = (str(facts.get(key, "")) for key in ("op_name", "provider", "node_index"))
    return _Node((name, kind, provider, index), start, length)


def _own_times(nodes: list[_Node]) -> list[tuple[_Node, int]]:
    """Return each node of an inference, in the order of their starts, with its time less that of the nodes inside it.

    A node with a graph of its own (`If`, `Loop`, `Scan`) lasts as long as the nodes of that graph and more.
    """
    ordered = sorted(nodes, key=lambda node: (node.start, -node.length))
    own = [node.length for node in ordered]
    open_nodes: list[int] = []
    for place, node in enumerate(ordered):
        while open_nodes and ordered[open_nodes[-1]].start + ordered[open_nodes[-1]].length <= node.start:
            open_nodes.pop()
        if open_nodes:
            own[open_nodes[-1]] -= node.length
        open_nodes.append(place)
    return [(node, max(0, time)) for node, time in zip(ordered, own)]


def _broken(path: str, why: str) -> AgentError:
    return AgentError("crash", f"onnxruntime's profile {path} cannot be read: {why}")
