"""Linear algebra on one thread.

The matrices of the predictors are small and many, and with a thread per core the threads mostly wait for each other. On
a busy machine, where one of them does not run, all wait for that one: minutes instead of seconds.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread"]


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Return a context manager in which BLAS and LAPACK use one thread in this process."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
