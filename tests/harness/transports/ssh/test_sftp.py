"""SFTP servers that are not to be trusted. What a good one does is tested with the transport."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from latlab.harness.transports.base import ChannelLostError, Deadline
from latlab.harness.transports.ssh.sftp import Files
from latlab.harness.transports.ssh.stream import Stream

VERSION = struct.pack(">IBI", 5, 2, 3)
USES: list[Callable[[Files], object]] = [
    lambda files: files.home(),
    lambda files: files.size("a"),
    lambda files: files.make_folders("/a/b"),
    lambda files: files.read("a", 100_000),
    lambda files: files.write(io.BytesIO(bytes(100_000)), "a"),
    lambda files: files.bring(io.BytesIO(bytes(100_000)), 100_000, "a", "b"),
    lambda files: files.replace("a", "b"),
    lambda files: files.remove("a"),
]


class Canned:
    """A channel on which the answers are there already."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = list(answers)

    def send(self, data: bytes, deadline: Deadline) -> None:
        pass

    def receive(self, deadline: Deadline) -> bytes:
        return self._answers.pop(0) if self._answers else b""

    def end(self) -> ChannelLostError:
        return ChannelLostError("is gone")


def answer(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


ANSWERS = st.lists(
    st.binary(max_size=40)
    | st.builds(answer, st.sampled_from([101, 102, 103, 104, 105, 201]), st.integers(1, 6), st.binary(max_size=40)),
    max_size=8,
)


@settings(max_examples=500, deadline=None)
@given(ANSWERS, st.sampled_from(USES))
@example([answer(101, 1, b"")], USES[1])
@example([answer(105, 1, b"\0\0\0\1")], USES[1])
@example([answer(102, 1, b"")], USES[3])
@example([answer(104, 1, b"\0\0\0\1\xff\xff\xff\xff")], USES[0])
def test_answers_of_any_kind(answers: list[bytes], use: Callable[[Files], object]) -> None:
    files = Files(cast(Stream, Canned([VERSION, *answers])))
    with suppress(OSError, ChannelLostError):
        use(files)


@pytest.mark.parametrize("greeting", [b"", b"Welcome to Pi OS!\n", struct.pack(">I", 1 << 30), answer(101, 1, b"")])
def test_greetings_of_any_kind(greeting: bytes) -> None:
    with pytest.raises(ChannelLostError):
        Files(cast(Stream, Canned([greeting])))
