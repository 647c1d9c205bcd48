"""What a Python function is, as text: the same text in two runs means the same code over the same values."""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

__all__ = ["code_identity"]

MOST_PARTS = 1_000_000
"""Most values and functions that are looked at; a function over more of them is not known."""
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class _UnknownError(Exception):
    """Raised for a value that cannot be compared from one run to the next."""


def code_identity(function: object) -> str | None:
    """Return a hash of a function: its code, its defaults, and the values of its closure and of the globals it uses.

    Functions of the user's that it uses are followed. Modules, classes, and functions of libraries count by name only.

    Args:
        function: any object.

    Returns:
        The hash; None if it is no function, or if it uses an object other than numbers, texts, arrays and containers
        of these, so that nobody can say whether it is the same in a later run.
    """
    if not isinstance(function, FunctionType | functools.partial):
        return None
    try:
        return hashlib.sha256("\n".join(_Describer().parts(function)).encode("utf-8", "surrogatepass")).hexdigest()
    except (_UnknownError, RecursionError):
        return None


class _Describer:
    """Describes values as lists of words."""

    def __init__(self) -> None:
        self._count = 0
        self._seen: dict[int, int] = {}

    def parts(self, value: Any) -> list[str]:
        """Return what describes a value. Raises `_UnknownError` if nothing does."""
        self._count += 1
        if self._count > MOST_PARTS:
            raise _UnknownError
        if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str, bytes):
            return [f"{type(value).__name__} {value!r}"]
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.hasobject:
                raise _UnknownError
            return [f"array {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"]
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, ModuleType | type | BuiltinFunctionType | np.ufunc):
            return [self._name(value)]
        # Constants first: whether two equal ones are the same object differs from run to run.
        if type(value) is tuple:
            return [f"tuple {len(value)}", *(part for one in value for part in self.parts(one))]
        if type(value) in (set, frozenset):
            inner = sorted("\n".join(self.parts(one)) for one in value)
            return [f"{type(value).__name__} {len(value)}", *inner]
        if id(value) in self._seen:  # it may hold itself
            return [f"value {self._seen[id(value)]}"]
        self._seen[id(value)] = len(self._seen)
        if type(value) is list:
            return [f"list {len(value)}", *(part for one in value for part in self.parts(one))]
        if type(value) is dict:
            return [f"dict {len(value)}", *(part for pair in value.items() for one in pair for part in self.parts(one))]
        if isinstance(value, functools.partial):
            return ["partial", *self.parts(value.func), *self.parts(value.args), *self.parts(value.keywords)]
        if isinstance(value, FunctionType):
            return self._function(value)
        return [self._name(value)]

    def _name(self, value: Any) -> str:
        """Return the name under which another run finds the same thing. Raises `_UnknownError` if there is none."""
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if isinstance(value, np.ufunc):
            module, name = "numpy", value.__name__
        found: Any = sys.modules.get(module) if isinstance(module, str) and isinstance(name, str) else None
        for one in str(name).split("."):
            found = getattr(found, one, None)
        if found is not value:
            raise _UnknownError
        return f"name {module} {name}"

    def _function(self, function: FunctionType) -> list[str]:
        if any(Path(function.__code__.co_filename).resolve().is_relative_to(one) for one in _LIBRARIES):
            return [self._name(function)]
        found = ["function", *self._code(function.__code__)]
        for value in (function.__defaults__, function.__kwdefaults__):
            found += self.parts(value)
        for cell in function.__closure__ or ():
            try:
                found += self.parts(cell.cell_contents)
            except ValueError:  # an empty cell
                found.append("nothing")
        for name in sorted(_globals(function.__code__)):
            if name in function.__globals__:
                found += [f"global {name}", *self.parts(function.__globals__[name])]
        return found

    def _code(self, code: CodeType) -> list[str]:
        facts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        found = [f"code {facts} {names} {code.co_code.hex()} {code.co_exceptiontable.hex()}"]
        return found + [part for one in code.co_consts for part in self.parts(one)]


def _globals(code: CodeType) -> set[str]:
    """Return the names of the globals that code reads, and the functions within it."""
    found = {one.argval for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return found.union(*(_globals(one) for one in code.co_consts if isinstance(one, CodeType)))
