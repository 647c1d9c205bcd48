"""Damaged .npz files."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator

import numpy as np


def archives_damaged(good: bytes) -> Iterator[bytes]:
    """Yield an .npz file of compressed arrays with each of several damages."""
    yield b""
    yield good[: len(good) // 2]
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        entries = archive.infolist()
        arrays = {one.filename: archive.read(one) for one in entries}
    start = entries[0].header_offset + 30 + len(entries[0].filename)
    yield good[: start + 40] + b"\xff" * 60 + good[start + 100 :]  # what deflate cannot decode
    central = good.index(b"PK\x01\x02")
    for place, value in ((8, 1), (10, 99), (10, zipfile.ZIP_BZIP2), (10, zipfile.ZIP_LZMA)):  # encrypted; other methods
        local = entries[0].header_offset + place - 2
        changed = bytearray(good)
        changed[central + place : central + place + 2] = struct.pack("<H", value)
        changed[local : local + 2] = struct.pack("<H", value)
        yield bytes(changed)
    for shape in ("(10**13,)", "(10000000000000,)", "(-1,)", "(1, 2)", "[[", "(" * 900):
        first = np.lib.format.magic(1, 0)
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        yield _packed(arrays | {entries[0].filename: first + struct.pack("<H", len(header)) + header + bytes(64)})
    yield _packed({name: data + b"more" for name, data in arrays.items()})
    yield _packed(dict.fromkeys(arrays, b"no array"))


def _packed(arrays: dict[str, bytes]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in arrays.items():
                archive.writestr(name, data)
        return file.getvalue()
