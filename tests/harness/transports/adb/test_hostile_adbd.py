"""An adbd that means harm: messages without end, more than was asked for, questions again and again, and nonsense."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
from adb_shell import constants
from hypothesis import given, settings
from hypothesis import strategies as st

from latlab.harness.transports.adb.connection import (
    ADBConnection,
    KeyRefusedError,
    ServiceRefusedError,
    Signer,
    TLSWantedError,
)
from latlab.harness.transports.adb.services import ShellProcess
from latlab.harness.transports.base import ChannelLostError, ChannelTimeoutError, Deadline

ID = constants.ID_TO_WIRE
REFUSALS = (ChannelLostError, ChannelTimeoutError, ServiceRefusedError, KeyRefusedError, TLSWantedError)


def message(command: bytes, first: int, second: int, payload: bytes = b"") -> bytes:
    number = ID[command]
    return struct.pack("<6I", number, first, second, len(payload), 0, number ^ 0xFFFFFFFF) + payload


WELCOME = message(constants.CNXN, 0x01000001, 1 << 20, b"device::features=shell_v2\0")


class Canned:
    """A link on which everything is there already; at its end it stands still, without waiting."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._got, self.lost = pieces, b"", False
        self.taken = 0

    def read(self, size: int, _: Deadline) -> bytes:
        if self.lost:
            raise ChannelLostError("closed")
        while len(self._got) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise ChannelTimeoutError
            self._got += piece
        self.taken += size
        data, self._got = self._got[:size], self._got[size:]
        return data

    def write(self, *_: object) -> None:
        if self.lost:
            raise ChannelLostError("closed")

    def piece(self, data: memoryview, most: int) -> memoryview:
        return data[:most]

    def close(self) -> None:
        self.lost = True


def connection(pieces: Iterator[bytes]) -> tuple[ADBConnection, Canned]:
    link: Any = Canned(pieces)
    return ADBConnection(link), link


def signer() -> Signer:
    return Signer(lambda token: b"signed", b"key")


def welcomed(*then: Iterator[bytes]) -> tuple[ADBConnection, Canned]:
    def pieces() -> Iterator[bytes]:
        yield WELCOME
        for one in then:
            yield from one

    made, link = connection(pieces())
    made.log_in(signer, Deadline(1.0))
    return made, link


@pytest.mark.parametrize(
    "flood",
    [
        message(constants.OKAY, 9, 9),
        message(constants.WRTE, 9, 9, b"x" * 100),
        message(constants.CLSE, 9, 9),
        message(constants.OKAY, 7, 1),
    ],
    ids=["for nobody", "data for nobody", "ends of nothing", "for us, and never data"],
)
def test_messages_without_end(flood: bytes) -> None:
    adb, _ = welcomed(iter([message(constants.OKAY, 7, 1)]), repeat(flood))
    process = ShellProcess(adb, "true", Deadline(1.0))
    start = time.monotonic()
    with pytest.raises(ChannelTimeoutError):
        process.read(Deadline(0.3))
    assert time.monotonic() - start < 10


def test_words_without_end_do_not_keep_us_from_asking_whether_it_has_ended() -> None:
    words = struct.pack("<BI", 1, 100) + b"x" * 100
    adb, _ = welcomed(iter([message(constants.OKAY, 7, 1)]), repeat(message(constants.WRTE, 7, 1, words)))
    start = time.monotonic()
    assert not ShellProcess(adb, "true", Deadline(1.0)).has_ended()
    assert time.monotonic() - start < 10


def test_packets_of_no_kind_without_end() -> None:
    adb, _ = welcomed(
        iter([message(constants.OKAY, 7, 1)]), repeat(message(constants.WRTE, 7, 1, struct.pack("<BI", 99, 0)))
    )
    with pytest.raises(ChannelTimeoutError):
        ShellProcess(adb, "true", Deadline(1.0)).read(Deadline(0.3))


def test_more_than_was_asked_for() -> None:
    """It may send a message when the last one was acknowledged, and no sooner: else it would fill the memory."""
    adb, link = welcomed(iter([message(constants.OKAY, 7, 1)]), repeat(message(constants.WRTE, 7, 1, bytes(1 << 20))))
    stream = adb.open("shell:x", Deadline(1.0))
    stream.ready = False
    with pytest.raises(ChannelLostError, match="more than it was asked for"):
        stream.write(b"data", Deadline(60.0))
    assert link.taken < 8 << 20
    assert adb.lost


def test_questions_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was a reason to wait anew for somebody to confirm the key."""
    monkeypatch.setattr("latlab.harness.transports.adb.connection.CONFIRM_S", 0.3)
    adb, _ = connection(repeat(message(constants.AUTH, constants.AUTH_TOKEN, 0, bytes(20))))
    start = time.monotonic()
    with pytest.raises(KeyRefusedError):
        adb.log_in(signer, Deadline(0.3))
    assert time.monotonic() - start < 10


COMMANDS = st.sampled_from(sorted(ID)) | st.just(b"STLS")
MESSAGES = st.builds(
    lambda command, first, second, payload: message(command, first, second, payload) if command in ID else command,
    COMMANDS,
    st.sampled_from([0, 1, 2, 7, 0xFFFFFFFF]),
    st.sampled_from([0, 1, 2, 0xFFFFFFFF]),
    st.binary(max_size=30),
) | st.binary(max_size=40)


@settings(max_examples=300, deadline=None)
@given(st.lists(MESSAGES, max_size=12), st.booleans())
def test_anything_at_all(messages: list[bytes], polite: bool) -> None:
    adb, _ = connection(iter([WELCOME, *messages] if polite else messages))
    try:
        adb.log_in(signer, Deadline(0.2))
        process = ShellProcess(adb, "true", Deadline(0.2))
        process.write(b"x" * 100, Deadline(0.2))
        while not process.ended:
            process.read(Deadline(0.2))
        process.close(Deadline(0.2))
    except REFUSALS:
        pass
