"""Work in several processes of this machine, with one thread of linear algebra each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from latlab.harness.distributed.parent_death import end_with_parent
from latlab.harness.errors import LatlabError

__all__ = ["MOST_LOSSES", "in_processes", "one_thread"]

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
AHEAD = 2
"""Items under way per process: one is computed, the next one waits for its end."""
MOST_LOSSES = 3
"""An item whose process has died so often is not tried again: it may be what kills them."""


def one_thread() -> None:
    """Limit linear algebra to one core, so that times are per core and parallel jobs do not disturb each other.

    Libraries read the variables when they are first loaded, so call this before that. PyTorch can also be set later.
    """
    os.environ |= dict.fromkeys(THREADS, "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def in_processes(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[tuple[int, Result]]:
    """Yield the position of each item with what the function returns for it, as they finish.

    A process that somebody kills, or that the system ends for want of memory, takes its item along: the others go on in
    new processes, and so does that item.

    Args:
        function: a function of a module; with several processes, items and results are sent between them.
        items: its arguments; they are taken as they are needed.
        jobs: number of processes; 1 for this one.

    Raises:
        LatlabError: the processes of an item died `MOST_LOSSES` times.
    """
    one_thread()
    if jobs == 1:
        for i, item in enumerate(items):
            yield i, function(item)
        return
    left = enumerate(items)
    waiting: list[tuple[int, Item]] = []
    losses: Counter[int] = Counter()
    ended = False
    while not ended:
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin)
        under_way: dict[Future[Result], tuple[int, Item]] = {}
        try:
            while True:
                room = AHEAD * jobs - len(under_way)
                waiting += islice(left, max(room - len(waiting), 0))
                while waiting and len(under_way) < AHEAD * jobs:
                    future = pool.submit(function, waiting[0][1])
                    under_way[future] = waiting.pop(0)
                if not under_way:
                    ended = True
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    found = future.result()
                    yield under_way.pop(future)[0], found
        except BrokenProcessPool as error:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, (place, item) in under_way.items():
                if not future.cancelled() and future.exception() is None:
                    yield place, future.result()
                    continue
                losses[place] += 1
                if losses[place] >= MOST_LOSSES:
                    raise LatlabError(
                        f"processes died {MOST_LOSSES} times while one of them worked on item {place + 1}",
                        "The system may have ended them for want of memory: use fewer (--jobs).",
                    ) from error
                waiting.append((place, item))
        except BaseException:  # also if the caller stops or is interrupted: an item may take minutes
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        else:
            pool.shutdown()


def _begin() -> None:
    """Ignore what reaches the whole process group (Ctrl-C, a closed terminal): the first process ends the others.

    If it is killed it cannot: then they end with it.
    """
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
