"""Exported networks for whoever asks: each is made once, however many devices want it, and kept."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from latlab.harness.exporters import Artifact, ArtifactCache, ExportError, ExportPool, ExportRequest
from latlab.harness.exporters.pool import stay_on

__all__ = ["Exports"]


CLOSED = "the export was ended before it had begun"
_Entry = tuple[Future[Artifact], list[Future[Artifact]]]
"""An export under way, and the futures of those who wait for it."""


class Exports:
    """The cache of exported networks and the processes that fill it. A context manager; threads may share it.

    Args:
        workers: processes that export.
        cpus: the cores that they may use; None for all.
    """

    def __init__(self, cache: ArtifactCache, workers: int = 1, cpus: Collection[int] | None = None) -> None:
        self._cache, self.workers = cache, workers
        self._pool = ExportPool(cache, workers, cpus)
        # Reading and checking a file of the cache may take as long as timing a network: no device waits for it.
        self._reader = ThreadPoolExecutor(1, "artifacts", stay_on, (cpus,))
        self._lock = threading.Lock()
        self._known: dict[ExportRequest, Artifact] = {}
        self._shared: dict[ExportRequest, _Entry] = {}

    def submit(self, request: ExportRequest) -> Future[Artifact]:
        """The artifact of `request`, from memory, the cache, an export under way or a new one.

        The future is the caller's own: cancelling it stops the export only where nobody else waits for it. It raises
        what `ExportPool.submit`'s raises.
        """
        self._pool.check(request)
        mine: Future[Artifact] = Future()
        known = self._known.get(request)
        if known is not None and known.path.is_file():  # the cache is bounded: files go
            mine.set_result(known)
        else:
            self._reader.submit(self._find, request, mine)
        return mine

    def _find(self, request: ExportRequest, mine: Future[Artifact]) -> None:
        """In the cache, or have it exported."""
        try:
            found = self._cache.get(request)
            if found is None:
                self._share(request, mine)
                return
        except BaseException as error:
            if mine.set_running_or_notify_cancel():
                mine.set_exception(error)
            return
        self._known[request] = _for_nothing(found)
        if mine.set_running_or_notify_cancel():
            mine.set_result(self._known[request])

    def _share(self, request: ExportRequest, mine: Future[Artifact]) -> None:
        """Wait for the export with those who wait already, or begin it."""
        if mine.cancelled():
            return
        with self._lock:
            entry = self._shared.get(request)
            started = entry is None
            if entry is None:
                entry = self._shared[request] = (self._pool.submit(request), [])
            entry[1].append(mine)
        mine.add_done_callback(lambda _: self._leave(request, entry, mine))
        if started:
            entry[0].add_done_callback(lambda _: self._hand_out(request, entry))

    @property
    def busy(self) -> bool:
        """Whether an export is being computed."""
        return self._pool.busy

    def paused(self) -> AbstractContextManager[None]:
        """While in there no export is computed: for passes on this machine that exporting would disturb.

        Entering and leaving take some 10 us a worker. Do not wait for an export in there: none will come.
        """
        return self._pool.paused()

    def _leave(self, request: ExportRequest, entry: _Entry, mine: Future[Artifact]) -> None:
        if not mine.cancelled():
            return
        shared, waiting = entry
        with self._lock:
            if mine in waiting:
                waiting.remove(mine)
            idle = not waiting and self._shared.get(request) is entry
        if idle:  # outside the lock: its callbacks run here
            shared.cancel()

    def _hand_out(self, request: ExportRequest, entry: _Entry) -> None:
        """The first who asked bears the cost in its row; for the others the network was there."""
        shared, waiting = entry
        with self._lock:
            if self._shared.get(request) is entry:
                del self._shared[request]
            takers = [mine for mine in waiting if mine.set_running_or_notify_cancel()]
        for number, mine in enumerate(takers):
            error = ExportError("crash", CLOSED) if shared.cancelled() else shared.exception()
            if error is not None:
                mine.set_exception(error)
                continue
            artifact = shared.result()
            self._known[request] = _for_nothing(artifact)
            mine.set_result(artifact if number == 0 else _for_nothing(artifact))

    def close(self) -> None:
        """Ends the processes. Exports that have not ended fail; the cache stays whole."""
        self._reader.shutdown()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _for_nothing(artifact: Artifact) -> Artifact:
    """What was spent when it was made was not spent now."""
    return replace(artifact, build_s=0.0, export_s=0.0, parity_s=0.0)
