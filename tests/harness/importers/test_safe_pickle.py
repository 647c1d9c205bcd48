"""Tests of the pickle reader: plain data comes back; anything else gives an error and runs nothing."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from latlab.harness.errors import BadInputError
from latlab.harness.importers import safe_pickle as pickles
from latlab.harness.importers.safe_pickle import read_pickle, read_torch

SHARED = [1.5, 2]
PLAIN = [
    [],
    {},
    (),
    None,
    [1.5, -0.0, 1e300, 7, -3, 2**40, True, None, "text", "ü", "x" * 300],
    {(0, 1, 2): 0.5, (3,): 1, "key": [()], 7: {}},
    {"arch": [{"ks": [3, 5], "d": (2, 3), "r": 204}] * 3},
    [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    [list(range(300)), [float(i) for i in range(3000)]],
    [SHARED, SHARED, (SHARED, {"again": SHARED})],
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=str)
def test_plain_data_come_back(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "f") == value


def test_torch_archives() -> None:
    for value in ([1.5, 2.0], {"arch": [{"op_idx_list": [1, 2]}]}):
        file = io.BytesIO()
        torch.save(value, file)
        assert read_torch(file.getvalue(), "f") == value


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps([1.0, Bomb(tmp_path / "made")], protocol)
    with pytest.raises(BadInputError, match=r"evil\.pickle, byte \d+: it does more than hold data") as error:
        read_pickle(data, "evil.pickle")
    assert "never unpickles" in str(error.value.hint)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.arange(3), collections.OrderedDict(a=1), {1, 2}, b"bytes", 1 + 2j, range(3), Path("x"), len],
    ids=str,
)
def test_anything_but_plain_data_is_refused(value: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(BadInputError, match="byte"):
            read_pickle(pickle.dumps([value], protocol), "f")


def test_tensors_are_refused_with_a_way_out() -> None:
    file = io.BytesIO()
    torch.save([torch.ones(2)], file)
    with pytest.raises(BadInputError, match="GLOBAL") as error:
        read_torch(file.getvalue(), "f.pt")
    assert "tolist" in str(error.value.hint)


def test_every_instruction_is_known_or_refused() -> None:
    """One that a later Python adds is refused, because only what is listed is done."""
    refused = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2",
               "EXT4", "PERSID", "BINPERSID", "POP", "POP_MARK", "DUP", "EMPTY_SET", "ADDITEMS", "FROZENSET",
               "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER"}  # fmt: skip
    for opcode in pickletools.opcodes:
        if opcode.name in refused:
            size = 0 if opcode.arg is None else opcode.arg.n
            argument = bytes(size) if size >= 0 else b"1\n1\n" if size == pickletools.UP_TO_NEWLINE else bytes(8)
            with pytest.raises(BadInputError, match="more than hold data"):
                read_pickle(opcode.code.encode("latin-1") + argument + b".", "f")
    assert refused < {opcode.name for opcode in pickletools.opcodes}


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def memo_bomb(doublings: int) -> bytes:
    """Return a pickle of a list that holds the previous list twice, and so on: 2^n values."""
    steps = b"".join(
        b"]q" + bytes([i]) + b"(h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e" for i in range(1, doublings)
    )
    return b"\x80\x02]q\x00(K\x01K\x01e" + steps + b"."


def tuple_bomb(doublings: int) -> bytes:
    return b"\x80\x02K\x01q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(doublings)) + b"."


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (nested(50), "nested more than"),
        (b"\x80\x02" + b"(" * 100 + b".", "nested more than"),
        (memo_bomb(60), r"unfinished|nested|instructions"),
        (tuple_bomb(60), "nested|instructions"),
        (b"\x80\x02]q\x00(" + b"h\x00" * 10 + b"e.", None),  # itself, which is a copy here
        (b"\x80\x02\x8a\x20" + b"\x7f" * 32 + b".", "64 bits"),
        (b"I" + b"9" * 5000 + b"\n.", "not a pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fabc", "not a pickle"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "not a pickle"),
        (b"", "not a pickle"),
        (b".", "unfinished"),
        (b"\x80\x02]", "not a pickle"),
        (b"\x80\x02a.", "missing"),
        (b"\x80\x02h\x05.", "missing"),
        (b"\x80\x02u.", "missing"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02](K\x01K\x02u.", "no dict"),
        (b"\x80\x02}(K\x01u.", "no dict"),
        (b"\x80\x02}](K\x01es.", "missing"),
        (b"\x80\x02}]K\x01s.", "key of a dict"),
        (b"\x80\x02}G\x3f\xf0\0\0\0\0\0\0K\x01s.", "key of a dict"),
        (b"\x80\x02K\x01.tail", "follow its end"),
        (b"\x80\x02K\x01K\x01.", "unfinished"),
    ],
)
def test_bombs_and_nonsense_end_quickly(data: bytes, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 100_000)
    if problem is None:
        assert read_pickle(data, "f") == [[]] * 10
        return
    with pytest.raises(BadInputError, match=problem):
        read_pickle(data, "f")


def test_references_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles.PickleReader, "most_steps", 5000)
    row = [1.0] * 100
    assert read_pickle(pickle.dumps([row] * 10), "f") == [row] * 10
    with pytest.raises(BadInputError, match="counting what references stand for"):
        read_pickle(pickle.dumps([row] * 60), "f")


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(f"{name}/data.pkl", content)
    return file.getvalue()


def test_archives_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    good = archive(a=pickle.dumps([1.0]))
    assert read_torch(good, "f") == [1.0]
    for bad in (b"PK\3\4", good[:50], good[:-30], archive(), archive(a=b".", b=b".")):
        with pytest.raises(BadInputError, match="f: "):
            read_torch(bad, "f")
    damaged = bytearray(good)
    damaged[40] ^= 0xFF
    with pytest.raises(BadInputError):
        read_torch(bytes(damaged), "f")
    monkeypatch.setattr(pickles, "MAX_BYTES", 10_000)
    with pytest.raises(BadInputError, match="unpacks to more than"):
        read_torch(archive(a=b"\0" * 1_000_000), "f")


def mutated(data: bytes, rng: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place, kind = rng.randrange(len(made)), rng.randrange(4)
        if kind == 0:
            made[place] = rng.randrange(256)
        elif kind == 1:
            made.insert(place, rng.choice(b"().]}aeushjq0cRbt\x85\x86\x87\x94\x93\x8a\x8c"))
        elif kind == 2:
            del made[place : place + rng.randint(1, 5)]
        else:
            other = rng.randrange(len(made))
            made[place:place] = made[other : other + rng.randint(1, 20)]
        if not made:
            return b""
    return bytes(made)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_fuzzed_pickles_are_read_or_refused() -> None:
    rng = random.Random(0)
    seeds = [pickle.dumps(value, protocol) for value in PLAIN[:9] for protocol in (0, 2, 4)]
    refusals = []
    for case in range(3000):
        try:
            read_pickle(mutated(seeds[case % len(seeds)], rng), "file")
        except BadInputError as error:
            refusals.append(error.message)
    assert 100 < len(refusals) < 2900
    assert all(message.startswith("file") for message in refusals)
