"""Retries: when a device that failed is tried again, and when it is given up."""

from __future__ import annotations

import time
from typing import Protocol

from latlab.harness.devices.session import DeviceFaultError, DeviceSession
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import CacheError
from latlab.harness.fleet.jobs import DeviceState, Job, Kind
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import Status
from latlab.harness.transports import ConnectError, DeviceConfig, DeviceLostError

__all__ = ["FleetServices", "JobAttempts", "QuarantinedError"]

MAX_LOSSES = 3
"""Most losses of a device with no pass in between; after one more it is quarantined."""


FIRST_RETRIES = 1
"""Further tries for a device that was never reached in this run: it is probably switched off."""


BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try; the last value repeats."""


class FleetServices(Protocol):
    """The services of the fleet that a running job uses."""

    def check(self) -> None:
        """Raise `StoppedError` if the run is ending."""

    def pause(self, seconds: float) -> None:
        """Wait so many seconds; raise `StoppedError` as soon as the run is ending."""

    def report(self, state: DeviceState, kind: Kind, message: str) -> None:
        """Record an incident in the store, and publish it to the run's listener."""

    def publish(self, row: Measurement) -> None:
        """Publish a finished row to the run's listener."""

    def config(self, name: str) -> DeviceConfig:
        """Return a device's entry in the inventory."""
        ...

    def open_session(self, job: Job) -> DeviceSession:
        """Return a session, not yet connected, with the device of the job."""
        ...

    def begin_measurement(self, session: DeviceSession) -> Measurer:
        """Return what measures on a connected device."""
        ...

    def give_up(self, touched: set[tuple[str, int]], reason: str) -> None:
        """Mark what was being measured in these (campaign, session) pairs as lost with the device."""


class QuarantinedError(Exception):
    """Raised when a device is left out for the rest of the run; `cause` is the error behind it."""

    def __init__(self, cause: LatlabError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class JobAttempts:
    """The attempts at one job: it is tried until it is done, its device is given up, or it fails for another reason."""

    def __init__(self, fleet: FleetServices, job: Job, state: DeviceState) -> None:
        self._fleet, self._job, self._state = fleet, job, state
        self._touched: set[tuple[str, int]] = set()
        self._losses = 0
        self._lost_since: float | None = None
        self._tries = 0
        self._reconnect_s = fleet.config(state.name).reconnect_s

    def run(self) -> None:
        """Do the job, with further attempts after the device was lost.

        Raises:
            StoppedError: if the run is ending.
            QuarantinedError: if the device is given up.
            LatlabError: if the job fails for another reason.
        """
        state = self._state
        state.target = self._job.target
        state.began = state.began or time.monotonic()
        while True:
            self._fleet.check()
            try:
                self._attempt()
                return
            except DeviceLostError as error:
                self._fleet.check()  # the link was cut because the run ends
                self._handle_loss(error)
            except DeviceFaultError as error:
                self._quarantine(error)
            except CacheError as error:
                raise BadInputError(str(error), "Everything measured so far is in the store.") from error

    def _attempt(self) -> None:
        fleet, job, state = self._fleet, self._job, self._state
        device = fleet.open_session(job)
        state.session = device
        state.state = "running"
        with device:
            state.reached = True
            if self._lost_since is not None:
                fleet.report(state, "back", f"device {state.name} is back after {self._away_s():.0f} s")
                self._lost_since, self._tries = None, 0
            measurer = fleet.begin_measurement(device)
            try:
                job.work(measurer, self._publish)
            finally:
                job.timed_s += measurer.timed_s
                self._touched |= measurer.touched
                state.first_pass = state.first_pass or device.first_label_pass
                state.earlier_passes += device.label_passes
                device.label_passes = 0
                if device.passes:
                    self._losses = 0

    def _publish(self, row: Measurement) -> None:
        state = self._state
        state.last = row
        state.copied += row.same_graph_as is not None
        if row.status in (Status.OK, Status.RUNNING):
            state.done += 1
        else:
            state.failed += 1
        self._fleet.publish(row)

    def _handle_loss(self, error: DeviceLostError) -> None:
        """Report the loss, and wait until the next attempt is due, or give the device up."""
        fleet, state = self._fleet, self._state
        state.state = "lost"
        if self._lost_since is None:
            self._lost_since = time.monotonic()
            self._losses += 1
            fleet.report(state, "lost", error.message)
        lasting = isinstance(error, ConnectError) and error.lasting
        advice = error.advice if isinstance(error, ConnectError) else ""
        hopeless = self._tries >= FIRST_RETRIES if not state.reached else self._away_s() > self._reconnect_s
        if lasting or hopeless or self._losses > MAX_LOSSES:
            after = f" (and not reached again within {self._reconnect_s:g} s)" if state.reached and hopeless else ""
            hint = (advice or f"`latlab doctor {state.name}` looks for the cause").removesuffix(".")
            kind = BadInputError if lasting else LatlabError  # only a person can fix a lasting fault
            self._quarantine(
                kind(
                    f"{error.message}{after}",
                    f"{hint}.\nWhat was measured is in the store; the same command continues.",
                )
            )
        fleet.pause(BACKOFF_S[min(self._tries, len(BACKOFF_S) - 1)])
        self._tries += 1

    def _away_s(self) -> float:
        return 0.0 if self._lost_since is None else time.monotonic() - self._lost_since

    def _quarantine(self, cause: LatlabError) -> None:
        state = self._state
        state.state = "quarantined"
        self._fleet.give_up(self._touched, cause.message)
        self._fleet.report(state, "quarantined", cause.message)
        raise QuarantinedError(cause)
