"""Exported networks for all devices of a run: each network is exported once, however many devices need it."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from latlab.harness.exporters import Artifact, ArtifactCache, ExportError, ExportPool, ExportRequest
from latlab.harness.exporters.pool import pin_thread

__all__ = ["Exports"]

CLOSED = "the export was ended before it had begun"
_Entry = tuple[Future[Artifact], list[Future[Artifact]]]
"""An export under way, and the futures of the callers that wait for it."""


class Exports:
    """The cache of exported networks, and the processes that fill it. Use it in a `with` block; threads may share it.

    Args:
        cache: where artifacts are looked up and stored.
        workers: number of processes that export.
        cpus: the cores that they may use; None for all.
    """

    def __init__(self, cache: ArtifactCache, workers: int = 1, cpus: Collection[int] | None = None) -> None:
        self._cache, self.workers = cache, workers
        self._pool = ExportPool(cache, workers, cpus)
        # A thread of its own: reading and checking a cached file may take as long as timing a network, and no device
        # should wait for it.
        self._reader = ThreadPoolExecutor(1, "artifacts", pin_thread, (cpus,))
        self._lock = threading.Lock()
        self._known: dict[ExportRequest, Artifact] = {}
        self._shared: dict[ExportRequest, _Entry] = {}

    def submit(self, request: ExportRequest) -> Future[Artifact]:
        """Return a future of the artifact of `request`: from memory, the cache, an export under way or a new one.

        The future belongs to the caller: cancelling it stops the export only if no other caller waits for it. It raises
        what the future of `ExportPool.submit` raises.

        Raises:
            UnknownSpaceError, ArchitectureError, UnknownFormatError: immediately, for a request that cannot be served.
        """
        self._pool.check(request)
        mine: Future[Artifact] = Future()
        known = self._known.get(request)
        if known is not None and known.path.is_file():  # it may have been evicted: the cache's size is limited
            mine.set_result(known)
        else:
            self._reader.submit(self._find, request, mine)
        return mine

    def _find(self, request: ExportRequest, mine: Future[Artifact]) -> None:
        """Look the request up in the cache, or have it exported."""
        try:
            found = self._cache.get(request)
            if found is None:
                self._share(request, mine)
                return
        except BaseException as error:
            if mine.set_running_or_notify_cancel():
                mine.set_exception(error)
            return
        self._known[request] = _without_durations(found)
        if mine.set_running_or_notify_cancel():
            mine.set_result(self._known[request])

    def _share(self, request: ExportRequest, mine: Future[Artifact]) -> None:
        """Join the callers that wait for this export, or start it."""
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
        """True while an export is computed."""
        return self._pool.busy

    def paused(self) -> AbstractContextManager[None]:
        """Pause all exports within the `with` block, for passes on this machine that exporting would disturb.

        Entering and leaving take some 10 us per worker. Waiting for an export inside the block never ends.
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
        if idle:  # outside the lock, because cancelling runs the future's callbacks in this thread
            shared.cancel()

    def _hand_out(self, request: ExportRequest, entry: _Entry) -> None:
        """Give the artifact to all callers that wait for it.

        The first caller's artifact carries the export's durations, so that its row reports the cost. The others'
        durations are zero.
        """
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
            self._known[request] = _without_durations(artifact)
            mine.set_result(artifact if number == 0 else _without_durations(artifact))

    def close(self) -> None:
        """End the processes. Unfinished exports fail; the cache stays consistent."""
        self._reader.shutdown()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _without_durations(artifact: Artifact) -> Artifact:
    """Return the artifact with zero durations: nothing was spent on it now."""
    return replace(artifact, build_s=0.0, export_s=0.0, parity_s=0.0)
