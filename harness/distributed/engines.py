"""Runs a function over many items: in processes of this machine (`local`), or on a Ray cluster (`ray`, `ray://...`).

Both engines yield results as they finish, keep only a few items per processor under way, so that neither items nor
results pile up, and give an item that was lost with its process to another one. What is finished is for the caller to
keep; then the same command continues where a killed one stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from latlab.harness.distributed.local import in_processes
from latlab.harness.errors import BadInputError

__all__ = ["ENGINES", "check_engine", "in_parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")

ENGINES = "local, ray, or ray://HOST:PORT"
LOCAL = "local"


def check_engine(engine: str) -> None:
    """Raise `BadInputError` if there is no engine of that name."""
    if engine not in (LOCAL, "ray") and not re.fullmatch(r"ray://[^/\s@]+:\d{1,5}", engine):
        if "@" in engine:
            raise BadInputError("an engine has no user and no password in it", "Ray's token is in RAY_AUTH_TOKEN.")
        raise BadInputError(f"no engine {engine[:60]!r}", f"Engines: {ENGINES}")


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, engine: str = LOCAL, jobs: int = 1
) -> Iterator[tuple[int, Result]]:
    """Yield the position of each item with what the function returns for it, as they finish.

    Args:
        function: a function of a module, or a `functools.partial` of one; items and results are sent between processes.
        items: its arguments; they are taken as they are needed.
        engine: `local`; `ray`, the cluster that `RAY_ADDRESS` names or this machine belongs to, or one that is started
            for this call; or a cluster's address, `ray://HOST:PORT`.
        jobs: number of processes of `local`, 1 for this process itself; a cluster has its own.

    Raises:
        BadInputError: there is no such engine, or the cluster cannot be used.
        LatlabError: an item was lost again and again.
        Exception: whatever the function raises.
    """
    check_engine(engine)
    if engine == LOCAL:
        return in_processes(function, items, jobs)
    from latlab.harness.distributed.ray_cluster import on_cluster  # an optional package

    return on_cluster(function, items, engine)
