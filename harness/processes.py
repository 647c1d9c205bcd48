"""Work in several processes, with one thread of linear algebra each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

__all__ = ["in_processes", "one_thread"]

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def one_thread() -> None:
    """Limit linear algebra to one core, so that times are per core and parallel jobs do not disturb each other.

    Libraries read the variables when they are first loaded, so call this before that. PyTorch can also be set later.
    """
    os.environ |= dict.fromkeys(THREADS, "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def in_processes(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """Yield the position of each item with what the function returns for it, as they finish.

    Args:
        function: a function of a module; with several processes, items and results are sent between them.
        items: its arguments.
        jobs: number of processes; 1 for this one.
    """
    one_thread()
    if jobs == 1:
        for i, item in enumerate(items):
            yield i, function(item)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)
    futures = {pool.submit(function, item): i for i, item in enumerate(items)}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BaseException:  # also if the caller stops or is interrupted: an item may take minutes
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _ignore_interrupts() -> None:
    """Ignore what reaches the whole process group (Ctrl-C, a closed terminal): the first process ends the others."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
