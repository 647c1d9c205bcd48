"""Ways to spoil a line of JSON, or any bytes. Each is a value, so that a case can be printed, shrunk and repeated.

Places are whole numbers that are taken modulo what is there, so any mutation can be made to any message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

__all__ = ["BYTE_EDITS", "LINE_EDITS", "TREE_EDITS", "Edit", "edit_bytes", "edit_line"]

_PLACEHOLDER = "@@latlab-fuzz-{}@@"


class Edit(NamedTuple):
    """One change.

    Args:
        kind: a key of `_TREE` or `_BYTES`.
        place: where, modulo the number of places.
        text: what comes there: raw JSON, or raw bytes.
        number: how many, how deep, or how much.
    """

    kind: str
    place: int
    text: Any = ""
    number: int = 0


def _edit(
    kind: str,
    text: st.SearchStrategy[Any] = st.just(""),  # noqa: B008
    number: st.SearchStrategy[int] = st.just(0),  # noqa: B008
) -> st.SearchStrategy[Edit]:
    return st.tuples(st.just(kind), st.integers(0, 10_000), text, number).map(lambda parts: Edit(*parts))


_ODD = st.sampled_from(
    [
        "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "0.5", "1e3", "-1", "true", "null",
        "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1000000000000001", "1" * 400,
        "1" * 5000, "0x10", "01", "+1", "1_000", '"\\ud800"', '"\\u0000"', '"\\u001b[2J\\u001b]0;pwned\\u0007"',
        '"\\u202e"', '"=1+1"', '"<script>alert(1)</script>"', '"../../../etc/passwd"', '"$(touch pwned)"', '"nan"',
        '"' + "x" * 3000 + '"', '"' + "x" * 300_000 + '"', "[]", "{}", "[[]]", '{"":""}', "", "[" * 50 + "]" * 50,
        "[" * 5000 + "]" * 5000, "[" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, "[1.5]", "[true]", "[-1]",
    ]
)  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
_NUMBERS = st.sampled_from(
    ["NaN", "Infinity", "1e999", "-1e999", "-1", "1.0", "1.5", "1000000000000001", "9223372036854775808", "1" * 5000]
)
_RAW = _ODD | _NUMBERS | _JSON
_NAMES = st.sampled_from(
    ["id", "ok", "error", "kind", "message", "samples_ns", "telemetry", "handle", "have", "lease", "token", "aggregate",
     "launch_ns", "sm_mhz", "warnings", "discarded", "throttled", "__class__", "py/object", ""]
) | st.text(max_size=6)  # fmt: skip

TREE_EDITS = st.one_of(
    _edit("exchange", _RAW),
    _edit("sample", _RAW),
    _edit("nudge", number=st.integers(0, 11)),
    _edit("remove"),
    _edit("twice", _RAW),
    _edit("rename", _NAMES),
    _edit("add", st.tuples(_NAMES, _RAW)),
    _edit("wrap", number=st.integers(1, 30)),
    _edit("resize", number=st.sampled_from([0, 1, 2, 3, 1000])),
)
"""Strategy: changes of the message at any depth."""
_JUNK = st.sampled_from(
    [b"", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b'"', b"\\", b"no reply\n", b"\x1b[31m",
     b"x" * 9000, b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
     b'{"id":1,"ok":true}\n', b'{"id":1,"ok":false,"error":{"kind":"crash","message":"\\u001b[2J"}}\n']
) | st.binary(max_size=12)  # fmt: skip
BYTE_EDITS = st.one_of(
    _edit("cut"),
    _edit("drop", number=st.integers(1, 40)),
    _edit("insert", _JUNK),
    _edit("flip", number=st.integers(1, 255)),
    _edit("repeat", number=st.integers(1, 40)),
)
"""Strategy: changes of any bytes."""
LINE_EDITS = BYTE_EDITS | st.one_of(
    _edit("before", _JUNK),
    _edit("after", _JUNK),
    _edit("again", number=st.integers(1, 3)),
    _edit("unbroken"),
    _edit("nothing"),
)
"""Strategy: changes of a line among others."""


def edit_bytes(data: bytes, edits: Sequence[Edit]) -> bytes:
    for edit in edits:
        at = edit.place % (len(data) + 1)
        match edit.kind:
            case "cut":
                data = data[:at]
            case "drop":
                data = data[:at] + data[at + edit.number :]
            case "insert":
                data = data[:at] + edit.text + data[at:]
            case "flip":
                data = data[:at] + bytes(byte ^ edit.number for byte in data[at : at + 1]) + data[at + 1 :]
            case "repeat":
                data = data[:at] + data[at : at + edit.number] * 3 + data[at + edit.number :]
            case "before":
                data = edit.text + data
            case "after":
                data = data + edit.text
            case "again":
                data = data * (edit.number + 1)
            case "unbroken":
                data = data.rstrip(b"\n")
            case "nothing":
                data = b""
            case "whole":
                data = edit.text
            case kind:
                raise AssertionError(kind)
    return data


def edit_line(line: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a message after changes of its tree and then of its bytes."""
    tree, kinds = json.loads(line), {edit.kind for edit in edits}
    within = [edit for edit in edits if edit.kind in _TREE]
    if within:
        raw: list[str] = []
        for edit in within:
            _TREE[edit.kind](tree, edit, raw)
        text = json.dumps(tree, separators=(",", ":"))
        for number, value in reversed(list(enumerate(raw))):
            text = text.replace(f'"{_PLACEHOLDER.format(number)}"', value)
        line = text.encode("utf-8", "surrogatepass") + b"\n"
    assert kinds
    return edit_bytes(line, [edit for edit in edits if edit.kind not in _TREE])


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a tree."""
    found: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        one = left.pop()
        pairs = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        for key, value in pairs:
            found.append((one, key))
            left.append(value)
    return found


def _place(tree: Any, edit: Edit) -> tuple[Any, Any]:
    places = _places(tree)
    return places[edit.place % len(places)] if places else (None, None)


def _raw(text: str, raw: list[str]) -> str:
    raw.append(text)
    return _PLACEHOLDER.format(len(raw) - 1)


def _exchange(tree: Any, edit: Edit, raw: list[str]) -> None:
    container, key = _place(tree, edit)
    if container is not None:
        container[key] = _raw(edit.text, raw)


def _sample(tree: Any, edit: Edit, raw: list[str]) -> None:
    """Replace a sample of a reply to a pass, or any value of another reply."""
    lists = [tree[name] for name in ("warmup_ns", "samples_ns") if isinstance(tree.get(name), list) and tree[name]]
    if lists:
        samples = lists[edit.place % len(lists)]
        samples[edit.place % len(samples)] = _raw(edit.text, raw)
    else:
        _exchange(tree, edit, raw)


def _nudge(tree: Any, edit: Edit, _: list[str]) -> None:
    """Change a value a little: to another number, or to the same number as another type."""
    container, key = _place(tree, edit)
    if container is None:
        return
    value = container[key]
    if isinstance(value, bool):
        container[key] = (not value, int(value), str(value), None)[edit.number % 4]
    elif isinstance(value, int):
        near = (value + 1, value - 1, -value, float(value), str(value), [value], value * 10**6, value * 10**18,
                value + 0.5, True, None, value ^ 1)  # fmt: skip
        container[key] = near[edit.number]
    elif isinstance(value, str):
        near = (value.upper(), value[1:], value + "\n", value + "\0", value * 50, [value], {value: value}, "", 0, None,
                value[::-1], "\x1b[31m" + value)  # fmt: skip
        container[key] = near[edit.number]
    elif isinstance(value, float):
        container[key] = (-value, f"{value:.0f}", str(value), None, value * 1e300, [value])[edit.number % 6]


def _remove(tree: Any, edit: Edit, _: list[str]) -> None:
    container, key = _place(tree, edit)
    if container is not None:
        del container[key]


def _twice(tree: Any, edit: Edit, raw: list[str]) -> None:
    """Give a name a second time, with another value."""
    container, key = _place(tree, edit)
    if isinstance(container, dict):
        container[_raw(json.dumps(key), raw)] = _raw(edit.text or "0", raw)


def _rename(tree: Any, edit: Edit, _: list[str]) -> None:
    container, key = _place(tree, edit)
    if isinstance(container, dict):
        container[edit.text] = container.pop(key)


def _add(tree: Any, edit: Edit, raw: list[str]) -> None:
    container, _ = _place(tree, edit)
    name, value = edit.text
    if isinstance(container, dict):
        container[name] = _raw(value, raw)
    elif isinstance(container, list):
        container.append(_raw(value, raw))


def _wrap(tree: Any, edit: Edit, _: list[str]) -> None:
    container, key = _place(tree, edit)
    if container is not None:
        for depth in range(edit.number):
            container[key] = {"x": container[key]} if depth % 2 else [container[key]]


def _resize(tree: Any, edit: Edit, _: list[str]) -> None:
    lists = [one for one, _ in _places(tree) if isinstance(one, list)] if isinstance(tree, dict) else []
    if lists:
        one = lists[edit.place % len(lists)]
        one[:] = (one * (edit.number // max(1, len(one)) + 1))[: edit.number]


_TREE = {
    "exchange": _exchange,
    "sample": _sample,
    "nudge": _nudge,
    "remove": _remove,
    "twice": _twice,
    "rename": _rename,
    "add": _add,
    "wrap": _wrap,
    "resize": _resize,
}
