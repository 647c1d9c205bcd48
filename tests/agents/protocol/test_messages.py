"""Tests of lines, JSON and the checks of fields, with what a hostile other side can send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import SHA256, SUFFIX, Fields, LineBuffer, LineTooLongError, decode, encode


@given(st.lists(st.binary(max_size=50).filter(lambda line: b"\n" not in line)), st.randoms())
def test_lines_come_out_as_they_went_in(lines: list[bytes], random: Any) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    buffer, out = LineBuffer(), []
    while stream:
        size = random.randint(1, 20)
        buffer.feed(stream[:size])
        stream = stream[size:]
        while (line := buffer.pop()) is not None:
            out.append(line)
    assert out == lines


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    buffer = LineBuffer(limit=100)
    buffer.feed(b"x" * 100)
    assert buffer.pop() is None
    buffer.feed(b"x")
    with pytest.raises(LineTooLongError):
        buffer.pop()


def test_a_long_line_with_an_end_is_too_long_as_well() -> None:
    buffer = LineBuffer(limit=100)
    buffer.feed(b"x" * 101 + b"\n")
    with pytest.raises(LineTooLongError):
        buffer.pop()


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"null", b"[]", b"3", b'"text"', b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": -Infinity}', b"\x00"),
        *(b"[" * 100_000, b'{"a":' * 50_000, b'{"a": ' + b"9" * 5000 + b"}"),
    ],
)
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (of many messages)
        decode(line)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=50)
@given(st.dictionaries(st.text(), _VALUES | st.lists(_VALUES, max_size=5), max_size=5))
def test_what_is_encoded_is_decoded(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert decode(line) == message


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON has no word for NaN"):
        encode({"value": float("nan")})


@pytest.mark.parametrize("value", [None, True, -1, 11, 3.0, "3", [3], {}])
def test_integers(value: object) -> None:
    assert Fields({"n": 3}).integer("n", 0, 10) == 3
    with pytest.raises(AgentError, match="'n' must be a whole number from 0 to 10") as caught:
        Fields({"n": value}).integer("n", 0, 10)
    assert caught.value.kind == "bad_request"


@pytest.mark.parametrize("value", [None, True, -0.5, 10.5, "3", 10**400])
def test_numbers(value: object) -> None:
    assert Fields({"n": 3}).number("n", 0, 10) == 3.0
    with pytest.raises(AgentError, match="'n' must be a number"):
        Fields({"n": value}).number("n", 0, 10)


@pytest.mark.parametrize("value", [None, 3, [1, True], [1, -1], [1, 2.0], [0] * 4, "12", {"0": 1}])
def test_lists_of_integers(value: object) -> None:
    assert Fields({"l": [1, 2, 3]}).integers("l", 0, 9, 3) == [1, 2, 3]
    with pytest.raises(AgentError, match="'l' must be a list"):
        Fields({"l": value}).integers("l", 0, 9, 3)


def test_optional_fields() -> None:
    fields = Fields({"a": None})
    assert fields.optional_integers("a", 0, 1, 1) is fields.optional_integers("b", 0, 1, 1) is None
    assert fields.optional_string("a", 3) is None
    with pytest.raises(AgentError):
        Fields({"a": 3}).optional_string("a", 3)


@pytest.mark.parametrize(("getter", "value"), [("boolean", 1), ("table", []), ("table", None)])
def test_other_types(getter: str, value: object) -> None:
    with pytest.raises(AgentError):
        getattr(Fields({"f": value}), getter)("f")


def test_lists_of_objects() -> None:
    assert Fields({"t": [{}]}).tables("t", 1) == [{}]
    for value in ([{}, {}], [1], {}, None):
        with pytest.raises(AgentError):
            Fields({"t": value}).tables("t", 1)


def test_an_enormous_value_is_not_quoted_in_full() -> None:
    with pytest.raises(AgentError) as caught:
        Fields({"n": "x" * 10_000}).integer("n", 0, 1)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "a" * 63, "a" * 64 + "\n", "a" * 64 + "/.."])
def test_names_that_are_no_hashes(name: str) -> None:
    assert SHA256.fullmatch("0" * 64)
    assert not SHA256.fullmatch(name)


@pytest.mark.parametrize("suffix", ["onnx", "", ".", "./x", ".ONNX", ".a/b", ".onnx\n", "." + "x" * 17])
def test_suffixes_that_are_none(suffix: str) -> None:
    assert SUFFIX.fullmatch(".onnx")
    assert not SUFFIX.fullmatch(suffix)


def test_the_error_travels() -> None:
    error = AgentError("timeout", "late")
    kind, arguments = error.__reduce__()
    assert vars(kind(*arguments)) == vars(error)
    with pytest.raises(ValueError, match="unknown kind"):
        AgentError("tired", "no")


def test_a_reply_with_most_samples_fits_into_a_line() -> None:
    from latlab.agents.execution.loaded_models import MAX_RUNS
    from latlab.agents.protocol.messages import MAX_LINE

    seconds = [10**9] * MAX_RUNS
    assert 2 * len(json.dumps(seconds, separators=(",", ":"))) < MAX_LINE
