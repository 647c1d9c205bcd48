"""Many devices at once, one job at a time on each. Lost devices are tried again, and no measurement is lost.

Each device has a thread, which runs that device's jobs in order of priority. A job can be run again from the start:
everything that it has measured is in the store, so after a cut link it continues where it was. What happens after a
failure depends on who is to blame:

* A network (it is not supported, or kills the worker twice): its row records the failure, and the job goes on
  (`measurement.scheduler`).
* The way to the device (link, SSH server, reboot): the device is tried again, at growing intervals, for the inventory's
  `reconnect_s`. The pass that was under way is taken again.
* The device, if the fault will last (disk full, key refused), or if it was lost more than `MAX_LOSSES` times without a
  pass in between: it is quarantined for the rest of the run. The networks that it was timing are `device_lost` until
  the same command is given again.
* Somebody else (the device is in use): the job fails, and the message names the user.

Deadlines count from the moment of a request, never from when a job is queued. So a slow queue is not mistaken for a
hung device.
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
"""Most export processes at the same time."""
MAX_AT_ONCE = 256
"""Most devices that work at the same time; further ones wait for their turn."""
STOP_S = 1.0
"""Seconds that threads may take to end by themselves after an interruption; then the links to their devices are cut."""


class Fleet:
    """The devices that work for one controller. A context manager: inside, it may write to the store, and export.

    Args:
        store: where measurements and incidents go.
        inventory: the devices.
        cache: where exported networks are kept.
        jobs: all jobs. Those of one device run one after another, devices work side by side.

    Raises:
        BadInputError: if a job's device is not in the inventory.
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
            name: DeviceState(name, total=sum(job.total for job in own), jobs=len(own), passes=own[0].passes)
            for name, own in self._jobs.items()
        }
        for name in self._jobs:
            inventory.device(name)  # an unknown device is bad input, and no failure during the run

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
        """Run all jobs, and yield finished rows and incidents as they come. Afterwards, each job holds its error."""
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
        """Wait for the threads, so that none uses the store when it is released; cut off devices that take too long."""
        until = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for state in self.devices.values():
            if state.session is not None and state.state == "running":
                state.session.abort()
        for thread in self._threads:
            thread.join(max(0.0, until + STOP_S - time.monotonic()))

    def _cpus_for_exports(self) -> set[int] | None:
        """Return the CPUs of this machine on which no network is timed; None if there are none or they are unknown."""
        if not hasattr(os, "sched_getaffinity"):
            return None
        usable = sorted(os.sched_getaffinity(0))
        timed: set[int] = set()
        for name, jobs in self._jobs.items():
            config = self._inventory.device(name)
            if config.is_this_machine:
                timed |= set(config.timing_cpus(usable, max(job.target.threads for job in jobs)) or usable)
        return set(usable) - timed or None

    # What runs in the thread of a device

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
                    if self._stop.is_set():  # what an end in the middle of something breaks is no fault of the device
                        return
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
        """Record an incident in the store, and queue it for whoever iterates over `run`."""
        state.trouble = "" if kind == "back" else message
        with suppress(LatlabError):  # a broken store is reported when a measurement is written
            self._store.note(state.name, kind, message)
        self._events.put(Incident(state.name, kind, message, target=str(state.target or "")))

    def check(self) -> None:
        """Raise `StoppedError` if the run is ending."""
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait so many seconds; raise `StoppedError` as soon as the run is ending."""
        if self._stop.wait(seconds):
            raise StoppedError

    def publish(self, row: Measurement) -> None:
        """Yield a finished row from `run`."""
        self._events.put(row)

    def config(self, name: str) -> DeviceConfig:
        """Return a device's entry in the inventory."""
        return self._inventory.device(name)

    def open_session(self, job: Job) -> DeviceSession:
        """Return a session, not yet connected, with the device of the job."""
        return DeviceSession(job.target.device, self.config(job.target.device), job.target, self._id)

    def begin_measurement(self, session: DeviceSession) -> Measurer:
        """Register a connected device in the store, and return what measures on it."""
        session.register(self._store)
        return Measurer(session, self._exports, self.check)

    def give_up(self, touched: set[tuple[str, int]], reason: str) -> None:
        """Mark what was being measured in these (campaign, session) pairs as lost with the device."""
        for campaign_id, session in touched:
            self._store.lose(campaign_id, session, reason)


def run_jobs(
    store: Store,
    inventory: Inventory,
    cache: ArtifactCache,
    jobs: Sequence[Job],
    listener: RunListener = RunListener(),
) -> list[LatlabError]:
    """Run jobs on their devices, side by side.

    Args:
        store: where measurements and incidents go.
        inventory: the devices.
        cache: where exported networks are kept.
        jobs: all jobs; afterwards each holds its error and its state.
        listener: what is called during the run.

    Returns:
        The errors of the jobs that failed. The other jobs are not affected by them.

    Raises:
        LatlabError: if the store or the cache cannot be written, for which no device is to blame.
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
