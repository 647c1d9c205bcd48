"""Linear algebra on one thread.

The matrices here are small and many. A thread per core then spends its time waiting for the others, and on a busy
machine, where one of them does not run, all wait for that one: minutes instead of seconds.
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
    """While it is open, BLAS and LAPACK use one thread in this process."""
    limit: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limit
