"""A reader of numbers and text in pickles that never unpickles.

A pickle is a program, and unpickling runs it. This interpreter knows only the instructions that make lists, dicts,
tuples, numbers, text, truth values and None. Any other instruction, above all one that would import or call something,
ends the reading with an error that names the instruction and its place. A file's cost in memory and time is limited:
bytes, instructions, nesting, and the values that repeated references to one list stand for. A `.pt` file of PyTorch 1.6
or later is a zip archive around a pickle.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from latlab.harness.errors import BadInputError

__all__ = ["MAX_BYTES", "PickleReader", "read_pickle", "read_torch"]

MAX_BYTES = 64_000_000
"""The most bytes of a file, and of the pickle in an archive. A million latencies take nine million."""
MAX_STEPS = 5_000_000
"""The most instructions, plus the values that references to lists stand for."""
MAX_DEPTH = 16
MAX_MARKS = 64
MAX_INTEGER = 2**63
PICKLE_IN_ARCHIVE = "data.pkl"

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME"}
_FIXED_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_WAY_OUT = (
    "latlab never unpickles: it reads lists, dicts, tuples, numbers and text. If you trust the file, load it where it "
    "came from and save plain lists (`.tolist()`), or a CSV file."
)


def read_torch(data: bytes, name: str) -> Any:
    """Return the value in a `.pt` archive.

    Args:
        data: the file's bytes.
        name: the file's name in errors.

    Raises:
        BadInputError: it is not such an archive, or holds more than plain data.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [one for one in archive.infolist() if one.filename.rpartition("/")[2] == PICKLE_IN_ARCHIVE]
            if len(found) != 1:
                raise BadInputError(f"{name}: it is an archive with {len(found)} {PICKLE_IN_ARCHIVE}, not one")
            with archive.open(found[0]) as file:
                content = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OSError, EOFError) as error:
        raise BadInputError(
            f"{name}: the archive cannot be read: {error}", "Fetch the file again: it may be cut short."
        ) from error
    if len(content) > MAX_BYTES:
        raise BadInputError(f"{name}: {found[0].filename} unpacks to more than {MAX_BYTES:,} bytes")
    return read_pickle(content, f"{name}, {found[0].filename}")


def read_pickle(data: bytes, name: str, reader: type[PickleReader] | None = None) -> Any:
    """Return the value of a pickle of plain data.

    Args:
        data: the pickle's bytes.
        name: the file's name in errors.
        reader: the interpreter, for pickles that may hold more (`safe_numpy.NumpyReader`); by default `PickleReader`.

    Raises:
        BadInputError: naming the byte at which it is anything else.
    """
    if len(data) > MAX_BYTES:
        raise BadInputError(f"{name}: more than {MAX_BYTES:,} bytes")
    return (reader or PickleReader)(data, name).read()


class PickleReader:
    """An interpreter for one pickle, with the stack and the memo of pickle's own machine."""

    most_steps = MAX_STEPS

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name = data, name
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        """The stacks under the marks."""
        self._memo: dict[int, Any] = {}
        self._depths: dict[int, int] = {}
        """The nesting depth of every list, dict and tuple, by its id.

        A new object may get a freed one's id, and replaces it.
        """
        self._steps = 0
        self._at = 0

    def read(self) -> Any:
        for opcode, argument, position in self._instructions():  # they end with STOP or an error
            self._at = position
            self._count(1)
            if opcode == "STOP":
                break
            try:
                self._do(opcode, argument)
            except (IndexError, KeyError):
                self._stop("something is missing that this instruction needs")
        return self._finish(self._at + 1)

    def _instructions(self) -> Iterator[tuple[str, Any, int]]:
        try:
            for opcode, argument, position in pickletools.genops(self._data):
                yield opcode.name, argument, position or 0
        except (ValueError, struct.error, OverflowError) as error:
            raise BadInputError(
                f"{self._name}: not a pickle, or a damaged one, behind byte {self._at}: {error!s:.200}",
                "Fetch the file again: it may be cut short.",
            ) from error

    def _finish(self, end: int) -> Any:
        if self._below or len(self._stack) != 1:
            self._stop("it ends with something unfinished")
        if end != len(self._data):
            self._stop(f"{len(self._data) - end} bytes follow its end")
        return self._stack[0]

    def _do(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in _LITERALS:
            if isinstance(argument, int) and not -MAX_INTEGER <= argument < MAX_INTEGER:
                self._stop("a whole number of more than 64 bits")
            stack.append(argument)
        elif opcode in _CONSTANTS:
            stack.append(_CONSTANTS[opcode])
        elif opcode in _PUTS:
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in _GETS:
            stack.append(self._copy(self._memo[argument]))
        elif opcode == "MARK":
            if len(self._below) == MAX_MARKS:
                self._stop(f"nested more than {MAX_MARKS} deep")
            self._below.append(stack)
            self._stack = []
        elif opcode == "EMPTY_LIST":
            self._push([], ())
        elif opcode == "EMPTY_DICT":
            self._push({}, ())
        elif opcode in _FIXED_TUPLES:
            count = _FIXED_TUPLES[opcode]
            items = [stack.pop() for _ in range(count)][::-1]
            self._push(tuple(items), items)
        elif opcode in ("TUPLE", "LIST", "DICT"):
            items = self._to_mark()
            if opcode == "DICT":
                self._push({}, ())
                self._set(items)
            else:
                self._push(tuple(items) if opcode == "TUPLE" else items, items)
        elif opcode in ("APPEND", "APPENDS"):
            self._append([stack.pop()] if opcode == "APPEND" else self._to_mark())
        elif opcode in ("SETITEM", "SETITEMS"):
            self._set([stack.pop(), stack.pop()][::-1] if opcode == "SETITEM" else self._to_mark())
        elif opcode not in _NOTHING:
            what = f" {argument!r:.80}" if isinstance(argument, str) else ""
            self._stop(f"it does more than hold data (instruction {opcode}{what})", _WAY_OUT)

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _push(self, made: Any, items: Iterable[Any]) -> None:
        self._depths[id(made)] = 0
        self._stack.append(made)
        self._nest(made, items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            self._stop("it appends to what is no list")
        target.extend(items)
        self._nest(target, items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            self._stop("it sets items of what is no dict")
        for key in items[::2]:
            parts = key if type(key) is tuple else (key,)
            if not all(isinstance(part, (int, str)) for part in parts):
                self._stop("the key of a dict is neither text nor a whole number nor a tuple of these")
        target.update(zip(items[::2], items[1::2], strict=True))
        self._nest(target, items)

    def _nest(self, outer: Any, items: Iterable[Any]) -> None:
        """Record that `items` are inside `outer`."""
        inside = max((self._depths[id(item)] for item in items if type(item) in (list, dict, tuple)), default=0)
        self._depths[id(outer)] = depth = max(self._depths[id(outer)], inside + 1)
        if depth > MAX_DEPTH:
            self._stop(f"nested more than {MAX_DEPTH} deep")

    def _copy(self, value: Any) -> Any:
        """Return a copy of the value that a reference stands for.

        With copies nothing can contain itself, and everything counts towards `MAX_STEPS`.
        """
        made: Any
        if type(value) is list:
            self._count(len(value))
            made = [self._copy(item) for item in value]
        elif type(value) is dict:
            self._count(2 * len(value))
            made = {key: self._copy(item) for key, item in value.items()}
        elif type(value) is tuple:
            self._count(len(value))
            made = tuple(self._copy(item) for item in value)
        else:
            return value
        self._depths[id(made)] = self._depths[id(value)]
        return made

    def _count(self, steps: int) -> None:
        self._steps += steps
        if self._steps > self.most_steps:
            self._stop(f"it takes more than {self.most_steps:,} instructions, counting what references stand for")

    def _stop(self, problem: str, way_out: str | None = None) -> NoReturn:
        raise BadInputError(f"{self._name}, byte {self._at}: {problem}", way_out)
