"""Export in separate processes, ahead of the device.

One thread here drives each worker process. If a worker dies (a crash in native code, no memory left), only its current
export is lost, and a new worker takes its place. While a network is timed on this machine, the workers can be paused:
SIGSTOP takes effect within microseconds and loses nothing.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict
from types import TracebackType
from typing import IO, Self

from latlab import search_spaces
from latlab.harness.exporters.base import Artifact, CacheError, ExportError, ExportRequest, get_exporter
from latlab.harness.exporters.cache import ArtifactCache

__all__ = ["ExportPool", "pin_thread"]

TIMEOUT_S = 900.0
"""Seconds after which an export counts as hung. The slowest one known, a batch of 32 at 224 pixels, takes seconds."""

STDERR_TAIL = 2000
CLOSED = "the pool was closed before the export ended"

Job = tuple[ExportRequest, "Future[Artifact]"]


class ExportPool:
    """Worker processes that export into `cache`. Use it in a `with` block.

    Args:
        cache: where artifacts are looked up and stored.
        workers: number of processes, each with one thread. They start at the first request that the cache lacks.
        cpus: the cores that they may use; None for all.
    """

    def __init__(self, cache: ArtifactCache, workers: int = 1, cpus: Collection[int] | None = None) -> None:
        if workers < 1:
            raise ValueError(f"a pool needs at least 1 worker, not {workers}")
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._pause_lock = threading.Lock()
        self._pauses = 0
        self._workers = [_Worker(cache, tuple(sorted(cpus or ())), self._jobs) for _ in range(workers)]

    @property
    def busy(self) -> bool:
        """True while a worker exports or starts."""
        return any(worker.busy for worker in self._workers)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause all workers within the `with` block; they resume where they were.

        Several threads may pause at the same time; the workers resume when the last one leaves. Waiting for an export
        inside the block never ends. A killed controller leaves no stopped process behind (`end_with_parent`).
        """
        with self._pause_lock:
            self._pauses += 1
            if self._pauses == 1:
                for worker in self._workers:
                    worker.pause()
        try:
            yield
        finally:
            with self._pause_lock:
                self._pauses -= 1
                if not self._pauses:
                    for worker in self._workers:
                        worker.resume()

    def submit(self, request: ExportRequest) -> Future[Artifact]:
        """Queue an export. Requests are served in order.

        The future raises what `ArtifactCache.ensure` raises, and `ExportError` ("crash") if the worker died.

        Raises:
            UnknownSpaceError, ArchitectureError, UnknownFormatError: immediately, for a request that cannot be served.
            RuntimeError: the pool is closed.
        """
        self.check(request)
        future: Future[Artifact] = Future()
        self._jobs.put((request, future))
        return future

    def check(self, request: ExportRequest) -> None:
        """Raise what `submit` raises immediately."""
        if self._closed:
            raise RuntimeError("the pool is closed")
        search_spaces.get(request.space).parse(request.arch)
        get_exporter(request.format)

    def close(self) -> None:
        """End the workers. Unfinished exports are cancelled or fail; the cache stays consistent."""
        self._closed = True
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job[1].cancel()
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pin_thread(cpus: Collection[int] | None) -> None:
    """Keep the calling thread on `cpus`, because a network may be timed on another core."""
    if cpus and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cpus)


class _Worker:
    """One worker process and the thread that drives it."""

    def __init__(self, cache: ArtifactCache, cpus: tuple[int, ...], jobs: queue.SimpleQueue[Job | None]) -> None:
        self._cache = cache
        self._cpus = cpus
        self._jobs = jobs
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[bytes] | None = None
        self._lock = threading.Lock()  # held while the process is started, ended, paused or resumed
        self._stopped = False
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self.busy = False
        self._thread = threading.Thread(target=self._serve, name="export-worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def pause(self) -> None:
        with self._lock:
            self._paused_at = time.monotonic()
            if self._process is not None:
                self._process.send_signal(signal.SIGSTOP)  # does nothing if it has died

    def resume(self) -> None:
        with self._lock:
            self._paused_s, self._paused_at = self._paused(), None
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)

    def _paused(self) -> float:
        """Return the seconds that it has been paused so far."""
        since = self._paused_at
        return self._paused_s + (0.0 if since is None else time.monotonic() - since)

    def _serve(self) -> None:
        pin_thread(self._cpus)
        while (job := self._jobs.get()) is not None:
            request, future = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                artifact = self._cache.get(request) or self._export(request)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(artifact)
        self._end()

    def _export(self, request: ExportRequest) -> Artifact:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        answered, hung = threading.Event(), threading.Event()
        watch = threading.Thread(target=self._kill_when_hung, args=(process, answered, hung), daemon=True)
        watch.start()
        self.busy = True
        try:
            process.stdin.write(json.dumps(asdict(request)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            self.busy = False
            answered.set()
        if not line.endswith("\n"):
            reason = f"took longer than {TIMEOUT_S:g} s and was killed" if hung.is_set() else ""
            raise ExportError("crash", CLOSED if self._stopped else f"the export worker {reason or self._death()}")
        answer = json.loads(line)
        if "cache_error" in answer:
            raise CacheError(answer["cache_error"])
        if "error" in answer:
            raise ExportError(answer["error"]["kind"], answer["error"]["message"])
        return Artifact.from_json(answer["artifact"])

    def _kill_when_hung(self, process: subprocess.Popen[str], answered: threading.Event, hung: threading.Event) -> None:
        """Kill a process that does not answer within `TIMEOUT_S`; the time that it is paused does not count."""
        start, granted, wait_s = self._paused(), 0.0, TIMEOUT_S
        while not answered.wait(wait_s):
            wait_s = self._paused() - start - granted
            granted += wait_s
            if wait_s <= 0.0:
                hung.set()
                process.kill()
                return

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise ExportError("crash", CLOSED)
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
                # -P: a file in the current folder must not shadow a module. Own process group: Ctrl-C must reach
                # only the controller, which then closes the pool.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "latlab.harness.exporters.worker", str(self._cache.folder)]
                    + [str(number) for number in (self._cache.max_bytes, *self._cpus)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._stderr,
                    env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                    process_group=0,
                    text=True,
                )
                if self._paused_at is not None:
                    self._process.send_signal(signal.SIGSTOP)
            return self._process

    def _death(self) -> str:
        """Return how the process ended, and the end of its error output."""
        assert self._process is not None
        assert self._stderr is not None
        code = self._process.wait()
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(self._stderr.tell() - STDERR_TAIL, 0))
        said = " ".join(self._stderr.read().decode(errors="replace").split())
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"{how}{'; its last words: ' + said if said else ''}"

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._stderr):
                with suppress(OSError):  # closing flushes, which fails if the process is dead
                    stream.close()  # type: ignore[union-attr]
            self._process = None
