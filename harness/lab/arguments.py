"""What the methods of `Lab` take in the place of plain values: NumPy's numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import getmembers, isfunction
from typing import Any, TypeVar

import numpy as np

__all__ = ["plain_arguments"]

Class = TypeVar("Class", bound=type)


def plain_arguments(kind: Class) -> Class:
    """Have the public methods of a class, and its constructor, take NumPy's numbers where they take Python's.

    A seed of a store and of a random draw is an `int`, nothing else.
    """
    for name, method in getmembers(kind, isfunction):
        if name == "__init__" or not name.startswith("_"):
            setattr(kind, name, _taking_plain(method))
    return kind


def _taking_plain(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return method(*map(_plain, arguments), **{name: _plain(value) for name, value in named.items()})

    return call


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.integer | np.floating | np.bool_) else value
