"""A reader of .npz files that takes no more memory than it is allowed to, and never unpickles."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = ["NUMBERS", "read_arrays"]

NUMBERS = "fiu"
"""The kinds of numpy types (`dtype.kind`) that are real numbers."""


def read_arrays(path: Path, kinds: Mapping[str, str], most_bytes: int) -> dict[str, NDArray[Any]]:
    """Return arrays of an .npz file by name.

    Args:
        path: the file.
        kinds: for each array that is wanted, the kinds of numpy types that it may have, such as `NUMBERS`.
        most_bytes: the most bytes of the file, and of all these arrays together. More are not read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, too large, or holds something else; the message says what.
    """
    if path.stat().st_size > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, allowed in kinds.items():
                left = most_bytes - sum(one.nbytes for one in found.values())
                found[name] = _array(archive, name, allowed, left)
    except OSError:
        raise
    except Exception as error:  # zipfile, its codecs and numpy have no common error
        reason = " ".join(str(error.args[0] if error.args else error).split())[:200]
        raise ValueError(reason or type(error).__name__) from error
    return found


def _array(archive: zipfile.ZipFile, name: str, allowed: str, most_bytes: int) -> NDArray[Any]:
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError(f"{name} is compressed in a way that numpy does not write")
    if entry.file_size > most_bytes:
        raise ValueError(f"{name} unpacks to {entry.file_size:,} bytes, at most {most_bytes:,} are read")
    with archive.open(entry) as file:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
        if read is None:
            raise ValueError(f"{name} has an unknown version of numpy's format")
        shape, fortran, dtype = read(file)
        if dtype.kind not in allowed:
            raise ValueError(f"{name} is an array of {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= size <= entry.file_size:
            raise ValueError(f"{name} has the shape {shape}, but only {entry.file_size:,} bytes")
        data = file.read(size + 1)  # one more than there is, because only the end compares the checksum
    if len(data) != size:
        raise ValueError(f"{name} has the shape {shape}, but not as many numbers")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
