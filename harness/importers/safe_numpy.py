"""A reader of pickles that hold numpy's numbers and arrays, which still never unpickles.

numpy pickles an array as a call of its own functions. This interpreter knows these few calls by their names, imports
nothing and calls nothing: it decodes the bytes that are the last argument, so arrays become lists, and numbers of numpy
become Python's. Any other name ends the reading, as in `safe_pickle`. The forms are those of numpy 1 and 2, pickle
protocols 0 to 5 (numpy/_core/src/multiarray: `array_reduce_ex`, `gentype_reduce`, `arraydescr_reduce`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlab.harness.importers.safe_pickle import PickleReader

__all__ = ["NumpyReader"]

_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_NAMES = {
    **{(module, name): name for module in _MODULES for name in ("scalar", "_reconstruct", "_frombuffer")},
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): "encode",
    ("collections", "OrderedDict"): "dict",
}
"""The names that a pickle may use, and what each stands for here."""
_CODE = re.compile(r"[<>=|]?([fiu][1248])")


@dataclass
class _Name:
    """One of `_NAMES`; a pickle uses it as the function of a call, or as an argument."""

    name: str


@dataclass
class _Type:
    """A numpy type: the code of a number, and the order of its bytes."""

    code: str
    order: str = "<"

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class NumpyReader(PickleReader):
    """An interpreter for one pickle of plain data, and of numpy's numbers and arrays of numbers."""

    most_steps = 20_000_000
    """A number of numpy's takes about ten instructions. HW-NAS-Bench has half a million, and 47,000 dicts."""

    def _do(self, opcode: str, argument: Any) -> None:
        if opcode == "GLOBAL":
            self._name_of(*str(argument).partition(" ")[::2])
        elif opcode == "STACK_GLOBAL":
            name, module = self._stack.pop(), self._stack.pop()
            self._name_of(module, name)
        elif opcode in ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"):
            self._stack.append(bytes(argument))
        elif opcode == "REDUCE":
            arguments, called = self._stack.pop(), self._stack.pop()
            if type(called) is not _Name or type(arguments) is not tuple:
                self._stop("it does more than hold data (instruction REDUCE)")
            self._call(called.name, arguments)
        elif opcode == "BUILD":
            state = self._stack.pop()
            self._build(self._stack[-1], state)
        elif opcode == "POP":
            self._stack.pop()
        else:
            super()._do(opcode, argument)

    def _nest(self, outer: Any, items: Iterable[Any]) -> None:
        held = list(items)
        if type(outer) is not tuple and any(type(item) in (_Name, _Type, bytes) for item in held):
            self._stop("it holds a name, a type or bytes, not only numbers and text")
        super()._nest(outer, held)

    def _name_of(self, module: Any, name: Any) -> None:
        found = _NAMES.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            self._stop(f"it does more than hold data (instruction GLOBAL {f'{module} {name}'!r:.80})")
        self._stack.append(_Name(found))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Put what a call stands for on the stack."""
        if name == "dict" and not arguments:
            self._push({}, ())
        elif name == "encode" and len(arguments) == 2 and type(arguments[0]) is str and arguments[1] == "latin1":
            try:
                self._stack.append(arguments[0].encode("latin-1"))
            except UnicodeEncodeError:
                self._stop("bytes that are none")
        elif name == "dtype" and arguments and type(arguments[0]) is str:
            code = _CODE.fullmatch(arguments[0])
            if code is None:
                self._stop(f"an array of {arguments[0]!r:.40}, not of numbers")
            self._stack.append(_Type(code[1]))
        elif name == "scalar" and len(arguments) == 2:
            (value,) = self._decoded(arguments[0], arguments[1], 1)
            self._stack.append(value)
        elif name == "_reconstruct":
            self._push([], ())  # its state follows, in BUILD
        elif name == "_frombuffer" and len(arguments) == 4:
            raw, kind, shape, order = arguments
            self._stack.append(self._array(shape, kind, order == "F", raw))
            self._note_depth(self._stack[-1])
        else:
            self._stop(f"a call of {name} that numpy does not write")

    def _build(self, target: Any, state: Any) -> None:
        """Give what is on top of the stack its state."""
        if type(target) is _Type and type(state) is tuple and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            target.order = ">" if state[1] == ">" else "<"  # in place: the memo holds it, too
        elif type(target) is list and not target and type(state) is tuple and len(state) == 5:
            _, shape, kind, fortran, raw = state
            target.extend(self._array(shape, kind, bool(fortran), raw))
            self._note_depth(target)
        else:
            self._stop("it does more than hold data (instruction BUILD)")

    def _array(self, shape: Any, kind: Any, fortran: bool, raw: Any) -> list[Any]:
        """Return an array's numbers as lists of lists."""
        if (
            type(shape) is not tuple
            or not 1 <= len(shape) <= 4
            or not all(type(one) is int and one >= 0 for one in shape)
        ):
            self._stop("an array whose shape is none")
        if type(raw) is list:
            self._stop("an array of objects, not of numbers")
        values = np.array(self._decoded(kind, raw, math.prod(shape)), dtype=object)
        made: list[Any] = values.reshape(shape, order="F" if fortran else "C").tolist()
        return made

    def _note_depth(self, value: Any) -> int:
        """Record the nesting of lists of lists, as the reader of lists does, and return it."""
        if type(value) is not list:
            return 0
        self._depths[id(value)] = found = 1 + max(map(self._note_depth, value), default=0)
        return found

    def _decoded(self, kind: Any, raw: Any, count: int) -> list[Any]:
        """Return the numbers in bytes."""
        if type(kind) is not _Type or type(raw) is not bytes:
            self._stop("numbers without a type, or without bytes")
        wanted = kind.numpy()
        if len(raw) != count * wanted.itemsize:
            self._stop(f"{len(raw)} bytes for {count} numbers of {wanted.itemsize}")
        self._count(count)
        found: list[Any] = np.frombuffer(raw, wanted).tolist()
        return found
