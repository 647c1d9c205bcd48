"""What an ExecuTorch file (`.pte`) says of its operators: those that it calls, and those that went to a delegate.

The runtime's Python bindings tell neither. A `.pte` file is a flatbuffer (schema/program.fbs of ExecuTorch), and so is
what XNNPACK gets (backends/xnnpack/serialization/schema.fbs); this module follows the few fields that it needs.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Plan", "read_plan"]

# Places of fields in the tables of program.fbs.
_EXECUTION_PLAN, _DELEGATE_DATA, _SEGMENTS = 1, 3, 4  # of Program
_NAME, _CHAINS, _OPERATORS, _DELEGATES = 0, 5, 6, 7  # of ExecutionPlan
_INSTRUCTIONS = 2  # of Chain
_ARGUMENTS_TYPE, _ARGUMENTS = 0, 1  # of Instruction
_KERNEL_CALL, _DELEGATE_CALL = 1, 2  # the union of Instruction
_OPERATOR_INDEX = 0  # of KernelCall
_DELEGATE_INDEX = 0  # of DelegateCall
_DELEGATE_ID, _PROCESSED = 0, 1  # of BackendDelegate
_LOCATION, _INDEX = 0, 1  # of BackendDelegateDataReference
_INLINE, _SEGMENT = 0, 1  # of DataLocation
_DATA = 0  # of BackendDelegateInlineData
_OFFSET, _SIZE = 0, 1  # of DataSegment
_XNN_NODES = 1  # of XNNGraph
_XNN_KIND = 0  # of XNode
_XNN_MAGIC = b"XH00"


class Plan(NamedTuple):
    """One method of a file."""

    calls: tuple[str, ...]
    """The operators that ExecuTorch's own kernels run, e.g. `aten::mean.out`, in the order of the calls."""
    delegates: tuple[str, ...]
    """The backend of each call of a delegate, e.g. `XnnpackBackend`."""
    delegated: tuple[int, ...] | None
    """The operators within these calls, by their numbers in XNNPACK's union `XNodeUnion`; None if another backend than
    XNNPACK has some."""


def read_plan(content: bytes, method: str) -> Plan:
    """Return what `method` of a `.pte` file consists of.

    Raises:
        ValueError: the content is no such file, or has no such method.
    """
    try:
        return _plan(content, method)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not an ExecuTorch file: {error}") from error


def _plan(content: bytes, method: str) -> Plan:
    program = _Table(content, _number(content, 0, "<I"))
    plan = next((one for one in program.tables(_EXECUTION_PLAN) if one.text(_NAME) == method), None)
    if plan is None:
        raise ValueError(f"it has no method {method!r}")
    operators = [_operator(one) for one in plan.tables(_OPERATORS)]
    backends = plan.tables(_DELEGATES)
    calls: list[str] = []
    delegates: list[str] = []
    delegated: list[int] | None = []
    for chain in plan.tables(_CHAINS):
        for instruction in chain.tables(_INSTRUCTIONS):
            kind = instruction.integer(_ARGUMENTS_TYPE, "<B")
            if kind == _KERNEL_CALL:
                calls.append(operators[instruction.table(_ARGUMENTS).integer(_OPERATOR_INDEX, "<i")])
            elif kind == _DELEGATE_CALL:
                backend = backends[instruction.table(_ARGUMENTS).integer(_DELEGATE_INDEX, "<i")]
                delegates.append(backend.text(_DELEGATE_ID))
                nodes = _xnnpack_nodes(_payload(content, program, backend))
                delegated = None if nodes is None or delegated is None else delegated + nodes
    return Plan(tuple(calls), tuple(delegates), None if delegated is None else tuple(delegated))


def _operator(table: _Table) -> str:
    name, overload = table.text(0), table.text(1)
    return f"{name}.{overload}" if overload else name


def _payload(content: bytes, program: _Table, backend: _Table) -> bytes:
    """Return what a backend gets: it lies in the flatbuffer, or in a segment behind it."""
    reference = backend.table(_PROCESSED)
    index = reference.integer(_INDEX, "<I")
    if reference.integer(_LOCATION, "<b") == _INLINE:
        return program.tables(_DELEGATE_DATA)[index].data(_DATA)
    # The extended header stands behind the root's offset and the file's identifier ET12: "eh00", its length as uint32,
    # then as uint64 the flatbuffer's size and the place of the first segment.
    if content[8:12] != b"eh00":
        raise ValueError("it has segments, but not the header that says where")
    segment = program.tables(_SEGMENTS)[index]
    start = _number(content, 24, "<Q") + segment.integer(_OFFSET, "<Q")
    return content[start : start + segment.integer(_SIZE, "<Q")]


def _xnnpack_nodes(payload: bytes) -> list[int] | None:
    """Return the operators in a graph of XNNPACK, or None if the payload is none.

    Its header: four bytes unused, the magic, the header's length as uint16, and the place of the graph as uint32.
    """
    if payload[4:8] != _XNN_MAGIC:
        return None
    graph = payload[_number(payload, 10, "<I") :]
    return [node.integer(_XNN_KIND, "<B") for node in _Table(graph, _number(graph, 0, "<I")).tables(_XNN_NODES)]


def _number(content: bytes, place: int, form: str) -> int:
    if place < 0:
        raise IndexError("a negative place")
    return int(struct.unpack_from(form, content, place)[0])


class _Table:
    """A table of a flatbuffer: offsets say where its fields are; a field that is absent is 0 or empty."""

    def __init__(self, content: bytes, place: int) -> None:
        self._content, self._place = content, place
        self._fields = place - _number(content, place, "<i")
        self._length = _number(content, self._fields, "<H")

    def _find(self, field: int) -> int | None:
        entry = 4 + 2 * field
        offset = _number(self._content, self._fields + entry, "<H") if entry < self._length else 0
        return self._place + offset if offset else None

    def _target(self, field: int) -> int | None:
        place = self._find(field)
        return None if place is None else place + _number(self._content, place, "<I")

    def integer(self, field: int, form: str) -> int:
        place = self._find(field)
        return 0 if place is None else _number(self._content, place, form)

    def table(self, field: int) -> _Table:
        place = self._target(field)
        if place is None:
            raise IndexError("a table is missing")
        return _Table(self._content, place)

    def data(self, field: int) -> bytes:
        place = self._target(field)
        if place is None:
            return b""
        return self._content[place + 4 : place + 4 + _number(self._content, place, "<I")]

    def text(self, field: int) -> str:
        return self.data(field).decode()

    def tables(self, field: int) -> list[_Table]:
        place = self._target(field)
        if place is None:
            return []
        count = _number(self._content, place, "<I")
        if 4 * count > len(self._content):
            raise IndexError("a list is longer than the file")
        entries = range(place + 4, place + 4 + 4 * count, 4)
        return [_Table(self._content, entry + _number(self._content, entry, "<I")) for entry in entries]
