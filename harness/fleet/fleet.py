"""Many devices at once: one job at a time on each, devices that are lost found again or left out, nothing lost.

Each device has a thread, which takes that device's jobs in order of priority. A job is a piece of work that can be
done again from the start: everything it has measured is in the store, so after a cut link it goes on where it
was. What differs between failures is who is to blame, and that decides what happens:

* a network (it is not supported, kills the worker twice): its row says so, the job goes on (`measurement.scheduler`);
* the way to the device (link, SSH server, reboot): the device is tried again, at growing intervals, for the
  inventory's `reconnect_s`; what it was timing is timed anew;
* the device, lastingly (disk full, key refused), or by being lost `MAX_LOSSES` times without a pass in between: it is
  quarantined for the rest of the run, and what it was timing is `device_lost` until the same command comes again;
* somebody else (the device is in use): the job fails, and says who.

Deadlines are counted from the moment a device is asked, never from when a job is queued, so a slow queue is not taken
for a hung device.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Self

from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import ArtifactCache, CacheError
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.jobs import DeviceState, Incident, Job, Kind, RunListener, StoppedError
from latlab.harness.fleet.retries import JobAttempts, QuarantinedError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.store.store import Measurement, Store, StoreError
from latlab.harness.transports import DeviceConfig

__all__ = ["Fleet", "run_jobs"]

MAX_EXPORTERS = 8
MAX_AT_ONCE = 256
"""Devices that are driven at the same time; more of them wait for their turn."""
STOP_S = 2.0
"""How long threads may take to end by themselves after Ctrl-C; then their devices are cut off."""


class Fleet:
    """Devices of an inventory at work for one controller. A context manager: it holds the store, and exports.

    Args:
        jobs: all of them; a device's jobs are done one after another, devices' side by side.
    """

    def __init__(
        self,
        store: Store,
        inventory: Inventory,
        cache: ArtifactCache,
        jobs: Sequence[Job],
    ) -> None:
        self._store, self._inventory, self._cache = store, inventory, cache
        self._id = uuid.uuid4().hex
        self._stop = threading.Event()
        self._slots = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._threads: list[threading.Thread] = []
        self._events: queue.SimpleQueue[Measurement | Incident | None] = queue.SimpleQueue()
        self._jobs: dict[str, list[Job]] = {}
        for job in sorted(jobs, key=lambda job: -job.priority):
            self._jobs.setdefault(job.target.device, []).append(job)
        self.devices = {
            name: DeviceState(name, total=sum(job.total for job in own)) for name, own in self._jobs.items()
        }
        for name in self._jobs:
            inventory.device(name)  # an unknown one is bad input, not a failure on the way

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._store.writing())
            cpus = self._cpus_for_exports()
            workers = min(len(cpus), MAX_EXPORTERS) if cpus else 1
            self._exports = stack.enter_context(Exports(self._cache, workers, cpus))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        self._join_threads()
        self._stack.__exit__(*exc)

    def run(self) -> Iterator[Measurement | Incident]:
        """Do all jobs, yielding finished rows and incidents as they come. Their errors are in the jobs afterwards."""
        self._threads = [
            threading.Thread(target=self._run_in_thread, args=(name, jobs), name=f"device-{name}", daemon=True)
            for name, jobs in self._jobs.items()
        ]
        for thread in self._threads:
            thread.start()
        left = len(self._threads)
        while left:
            event = self._events.get()
            if event is None:
                left -= 1
            else:
                yield event

    def _join_threads(self) -> None:
        """See that no thread is at work when the store is let go."""
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for state in self.devices.values():
            if state.session is not None and state.state == "running":
                state.session.abort()
        for thread in self._threads:
            thread.join(max(0.0, until + STOP_S - time.monotonic()))

    def _cpus_for_exports(self) -> set[int] | None:
        """Cores of this machine that no network is timed on; None where there are none."""
        if not hasattr(os, "sched_getaffinity"):
            return None
        usable = sorted(os.sched_getaffinity(0))
        timed: set[int] = set()
        for name, jobs in self._jobs.items():
            config = self._inventory.device(name)
            if config.is_this_machine:
                timed |= set(config.timing_cpus(usable, max(job.target.threads for job in jobs)) or usable)
        return set(usable) - timed or None

    # One device, in its thread

    def _run_in_thread(self, name: str, jobs: Sequence[Job]) -> None:
        with self._slots:
            self._run_jobs(self.devices[name], jobs)

    def _run_jobs(self, state: DeviceState, jobs: Sequence[Job]) -> None:
        quarantine: LatlabError | None = None
        try:
            for job in jobs:
                if quarantine is not None:
                    job.error = quarantine
                    continue
                try:
                    JobAttempts(self, job, state).run()
                except StoppedError:
                    return
                except QuarantinedError as error:
                    quarantine = job.error = error.cause
                except Exception as error:
                    job.error = error
                    self.report(state, "failed", str(error))
                else:
                    job.finished = True
            failed = any(job.error for job in jobs)
            state.state = "quarantined" if quarantine else "failed" if failed else "done"
        finally:
            state.ended = time.monotonic()
            self._events.put(None)

    def report(self, state: DeviceState, kind: Kind, message: str) -> None:
        """Keep an incident, and tell it."""
        state.trouble = "" if kind == "back" else message
        with suppress(LatlabError):  # the store's own trouble is told by whoever writes measurements
            self._store.note(state.name, kind, message)
        self._events.put(Incident(state.name, kind, message))

    def check(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError

    def publish(self, row: Measurement) -> None:
        self._events.put(row)

    def config(self, name: str) -> DeviceConfig:
        return self._inventory.device(name)

    def open_session(self, job: Job) -> DeviceSession:
        return DeviceSession(job.target.device, self.config(job.target.device), job.target, self._id)

    def begin_measurement(self, session: DeviceSession) -> Measurer:
        session.register(self._store)
        return Measurer(session, self._exports, self.check)

    def give_up(self, touched: set[tuple[str, int]], reason: str) -> None:
        for campaign_id, session in touched:
            self._store.lose(campaign_id, session, reason)


def run_jobs(
    store: Store,
    inventory: Inventory,
    cache: ArtifactCache,
    jobs: Sequence[Job],
    listener: RunListener = RunListener(),
) -> list[LatlabError]:
    """Do jobs on their devices, side by side.

    Returns:
        The errors of the jobs that failed, which do not keep the others from ending well.

    Raises:
        LatlabError: where the store or the cache cannot be written, which no device is to blame for.
    """
    if not jobs:
        return []
    with Fleet(store, inventory, cache, jobs) as fleet:
        if listener.watch:
            listener.watch(fleet.devices)
        for event in fleet.run():
            if listener.observe:
                listener.observe(event)
    errors = [job.error for job in jobs if job.error]
    for error in errors:
        own = isinstance(error, StoreError) or isinstance(error.__cause__, CacheError)  # our disk is full, say
        if own or not isinstance(error, LatlabError):
            raise error
    return [error for error in errors if isinstance(error, LatlabError)]
