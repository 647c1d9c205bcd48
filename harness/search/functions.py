"""Functions of the user's that give accuracies."""

from __future__ import annotations

import hashlib
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.models.factory import named_object, running_user_code
from latlab.harness.search.accuracy import as_accuracies
from latlab.harness.search.code_identity import code_identity
from latlab.harness.store.errors import StoreWarning

__all__ = ["Function", "function_source", "named_function"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Function:
    """A Python function of the user's, which takes genes (n, genes) and returns n accuracies."""

    name: str
    function: Callable[[Genes], Any] = field(repr=False)
    identity: str = ""
    """By default what the function is, by its code; another one each time if that cannot be known."""
    quick: bool = False
    lasting: bool = field(default=True, init=False)
    """Whether the identity is the same in a later run."""

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise BadInputError(f"{self.name} is no function", "It must take genes and return accuracies.")
        if not self.identity:
            code = code_identity(self.function)
            self.lasting = code is not None
            code = code or f"unknown {secrets.token_hex(16)}"
            self.identity = f"{getattr(self.function, '__module__', '')} {self.name} {code}"

    def __call__(self, genes: Genes) -> Floats:
        with _running(self.name, "failed", "instead of returning accuracies"):
            return as_accuracies(self.function(genes.copy()), self.name, len(genes))


def function_source(function: Callable[[Genes], Any]) -> Function:
    """Return a function of a Python program as a source.

    If nobody can say whether it is the same in a later run, a warning says that a search with it always begins afresh.

    Raises:
        BadInputError: it cannot be called.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    found = Function(name, function)
    if not found.lasting:
        warnings.warn(
            f"{name} uses objects that cannot be compared with those of another run, so every search with it begins "
            "afresh. A function that is given as module:function continues.",
            StoreWarning,
            stacklevel=2,
        )
    return found


def named_function(word: str) -> Function:
    """Return the function that `module:function` names, which imports the module.

    Raises:
        BadInputError: there is none, or its import fails.
    """
    with _running(word, "cannot be imported", "when it was imported"):
        found = named_object(word)
    module = sys.modules.get(word.partition(":")[0])
    code = getattr(found, "__code__", None)
    files = {str(getattr(module, "__file__", None) or ""), str(getattr(code, "co_filename", ""))}
    content = [Path(file).read_bytes() for file in sorted(files) if Path(file).is_file()]
    hashes = " ".join(hashlib.sha256(one).hexdigest() for one in content)
    return Function(word, found, f"{word} {hashes} {code_identity(found) or ''}")


@contextmanager
def _running(name: str, verb: str, when: str) -> Iterator[None]:
    """Run code of the user's within the `with` block: whatever it raises becomes a `BadInputError` that names it."""
    with running_user_code(name, when), _noting_signals() as signals:
        try:
            yield
        except (BadInputError, SystemExit):
            raise
        except KeyboardInterrupt as error:
            if signals or current_thread() is not main_thread():
                raise
            raise BadInputError(f"{name} raised a KeyboardInterrupt {when}") from error
        except BaseException as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
            raise BadInputError(f"{name} {verb}: {reason}") from error


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Yield a list of the signals that arrive: an interrupt without one is the user's code's own."""
    arrived: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        before[number](number, frame)

    if current_thread() is main_thread():  # only this one gets signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, note)
    try:
        yield arrived
    finally:
        for each, usual in before.items():
            if signal.getsignal(each) is note:  # and not what a first signal has put there
                signal.signal(each, usual)
