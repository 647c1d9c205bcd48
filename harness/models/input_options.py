"""What a user says of a model's inputs: shapes, lengths, ranges, values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from latlab.agents.protocol.load_request import MAX_ELEMENTS, MAX_SIDES, MAX_SIZE
from latlab.agents.runtimes.base import DTYPES
from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription, shape_text

__all__ = ["InputOptions", "check_size", "parse_input", "read_arrays"]

SCALAR = "scalar"
"""The shape of a single number, in words."""


@dataclass(frozen=True)
class InputOptions:
    """What a user says of a model's inputs, in the words of the command line."""

    inputs: Sequence[str] = ()
    """`1x3x224x224`, `name=1x128`, `name=1x128:int64`: shapes, and types where the file keeps none."""
    dims: Sequence[str] = ()
    """`seq=128`: lengths of open sides, by their names; `ids[1]=128` for a side without one."""
    ranges: Sequence[str] = ()
    """`ids=0:30521`: least and greatest value of integer inputs; `rate=16000`: their only value."""
    data: Path | str | None = None
    """An `.npz` file with the inputs' values, by name."""

    def check(self) -> None:
        """Raise `BadInputError` if one of `inputs` is malformed, whatever the model is."""
        for text in self.inputs:
            parse_input(text)

    def of(self, description: ModelDescription) -> InputOptions:
        """Return those options that name something of a model; an option without a name stays."""
        names = {one.name for one in description.inputs}
        sides = {side for one in description.inputs for side in one.sides or () if isinstance(side, str)}

        def known(text: str) -> bool:
            name, equals, _ = text.rpartition("=")
            return not equals or name in names | sides or name.partition("[")[0] in names

        inputs, dims, ranges = (tuple(filter(known, texts)) for texts in (self.inputs, self.dims, self.ranges))
        return InputOptions(inputs, dims, ranges, self.data)

    def words(self) -> list[str]:
        """Return the options as words of a command."""
        named = (("--input", self.inputs), ("--dim", self.dims), ("--range", self.ranges))
        words = [word for option, values in named for value in values for word in (option, value)]
        return words if self.data is None else [*words, "--input-data", str(self.data)]


def parse_input(text: str) -> tuple[str | None, tuple[int, ...] | None, str | None]:
    """Return the name (None if there is none), the shape and the type (None if there is none) of `--input`.

    Raises:
        BadInputError: if the text is malformed.
    """
    name, equals, rest = text.rpartition("=")
    shape_words, _, dtype = rest.partition(":")
    if equals and not name:
        raise BadInputError(f"--input {text}: the name before = is missing")
    if dtype and dtype not in DTYPES:
        raise BadInputError(f"--input {text}: unknown type {dtype!r}", f"Choose one of: {', '.join(DTYPES)}.")
    shape: tuple[int, ...] | None
    if shape_words == SCALAR:
        shape = ()
    elif not shape_words and dtype:
        shape = None
    else:
        parts = re.split(r"[xX,]", shape_words)
        if not all(part.isascii() and part.isdigit() and 0 < int(part[:20]) <= MAX_SIZE for part in parts):
            raise BadInputError(
                f"--input {text}: {shape_words!r} is not a shape", "Write it like 1x3x224x224 or name=1x128:int64."
            )
        shape = tuple(int(part) for part in parts)
        check_size(f"--input {text}", shape)
    return name or None, shape, dtype or None


def check_size(what: str, shape: Sequence[int]) -> None:
    """Raise `BadInputError` if an input of that shape has too many elements or sides; `what` names it."""
    elements = 1
    for side in shape:
        elements *= side
    if elements > MAX_ELEMENTS or len(shape) > MAX_SIDES:
        raise BadInputError(
            f"{what}: at most {MAX_ELEMENTS} elements and {MAX_SIDES} sides are possible, not {shape_text(shape)}"
        )


def read_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and numpy type name of each array in an `.npz` file. The values are not read.

    Raises:
        BadInputError: if it is no such file, or holds pickled objects.
    """
    if not path.is_file():
        raise BadInputError(f"there is no file {path}")
    try:
        with ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _header(archive, name) for name in archive.namelist()}
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # zipfile, its codecs and numpy have no common error
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(
            f"{path} is not an .npz file of plain arrays: {reason}", "Write it with numpy.savez(file, name=array)."
        ) from error


def _header(archive: ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    from numpy.lib import format as npy

    with archive.open(name) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    check_size(name, shape)
    return tuple(int(side) for side in shape), str(dtype.name)
