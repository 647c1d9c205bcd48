"""A sustained run: one network on one device, pass after pass without a pause, for minutes.

Every pass is in the store as soon as it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.exporters import Artifact
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Status
from latlab.harness.sustained.windows import (
    Sustained,
    SustainedPass,
    Window,
    legible_window_s,
    nice_window_s,
    summarise,
    windows,
)
from latlab.harness.targets import BENCHMARK_MODEL, Target
from latlab.harness.telemetry.metrics import metrics
from latlab.harness.telemetry.readings import number
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import DeviceLostError, ProtocolError, WorkerError

__all__ = ["SustainedResult", "SustainedRun", "close_earlier", "policy_of", "sustained_passes"]

PASS_S = 1.5
"""Seconds of a pass: long compared with the milliseconds between two passes, short enough for Ctrl-C to act soon."""
PROGRAM_PASS_S = 10.0
"""Seconds of a pass of `benchmark_model`, which starts its program again for each pass."""
MAX_ATTEMPTS = 2
"""Failures of the worker in a row, without a pass between them, after which the network counts as failed."""
_BEGAN = "began_s"


def policy_of(target: Target) -> TimingPolicy:
    """Return the timing policy of a sustained run: one pass that lasts some seconds, without discarded runs."""
    pass_s = PROGRAM_PASS_S if target.runtime == BENCHMARK_MODEL else PASS_S
    return TimingPolicy(Role.SUSTAIN.value, warmup=0, runs=1, trim=0.1, passes=1, spread=0, pass_s=pass_s)


@dataclass(frozen=True)
class SustainedResult:
    """The result of a sustained run, complete or not."""

    target: str
    space: str
    """Search space; `model` for a model of the user's own."""
    network: str
    asked_s: float
    """Seconds that the run was to last."""
    status: str
    """`ok`, `running`, or how the network failed."""
    error: str | None
    passes: tuple[SustainedPass, ...]
    """Its passes, in order."""
    simulated: bool = False
    """True if the device is a simulated one."""

    @cached_property
    def summary(self) -> Sustained | None:
        """The figures of the whole run; None if there was no pass."""
        return summarise(self.passes) if self.passes else None

    @property
    def complete(self) -> bool:
        """True if the run lasted as long as it was asked to."""
        return self.summary is not None and self.summary.seconds >= self.asked_s

    def windows(self, window_s: float | None = None) -> list[Window]:
        """Return the run in windows of equal length.

        Args:
            window_s: seconds of a window; by default a round length of which at most 30 fill the run. Windows are
            longer
                if passes are too far apart for it.
        """
        seconds = self.summary.seconds if self.summary else self.asked_s
        wanted_s = nice_window_s(max(seconds, 1.0)) if window_s is None else window_s
        return windows(self.passes, legible_window_s(self.passes, wanted_s))

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, with its windows."""
        return {
            "target": self.target,
            "space": self.space,
            "arch": self.network,
            "asked_s": self.asked_s,
            "complete": self.complete,
            "simulated": self.simulated,
            "status": self.status,
            "error": self.error,
            **(self.summary.to_json() if self.summary else {}),
            "windows": [window.to_json() for window in self.windows()],
        }


class SustainedRun:
    """A sustained run in progress: the work of a job (`fleet.jobs.Job.work`).

    If the connection to the device is lost, the job may be tried again: the run then continues, with a gap.

    Args:
        session: where in the store its row is.
        artifact: the exported network.
        network: its name in the store.
        label: the name that the device is given for messages, SPACE/ARCH.
        seconds: length of the run on the device's clock.
    """

    def __init__(
        self,
        session: MeasurementSession,
        artifact: Artifact,
        network: str,
        label: str,
        seconds: float,
    ) -> None:
        self._session, self._store, self._campaign = session, session.store, session.campaign
        self._artifact, self._network, self._label = artifact, network, label
        self.seconds = seconds
        self.passes: list[SustainedPass] = []
        """The passes so far; the list only grows, so that another thread may read it."""
        self.elapsed_s = 0.0
        """Seconds from the start of the run to the end of its last pass, gaps included."""
        self.row: Measurement | None = None
        """Its row in the store; None before it begins."""
        self._facts: dict[str, Any] = {}
        self._attempts = 0
        self._left_at = 0.0
        self._simulated = False

    def work(self, measurer: Measurer, tell: Callable[[Measurement], None]) -> None:
        """Run until the seconds are over, the network fails, or the device is lost.

        Args:
            measurer: the device to run on.
            tell: called with the row after every pass, and at the end.

        Raises:
            StoppedError: if the jobs are stopped.
            DeviceLostError: if the connection is lost. What was timed before is in the store, and the row is closed
            with
                it.
        """
        device = measurer.device
        measurer.touched.add(self._session.key)
        self._simulated = device.hello.is_simulated
        row = self.row = self._session.begin(
            self._network,
            Role.SUSTAIN,
            artifact_sha256=self._artifact.sha256,
            artifact=self._artifact.facts(),
            fingerprint_id=device.fingerprint_id,
        )
        if not self.passes:
            device.wait_until_fit(measurer.check)  # so that the first minute is that of a cool device
        else:
            self.elapsed_s += time.monotonic() - self._left_at
        try:
            while self.elapsed_s < self.seconds:
                try:
                    loaded = device.load(self._artifact, self._label)
                    self._facts = loaded.facts
                    self._stay(measurer, loaded, row, tell)
                except WorkerError as error:
                    self.row = self._store.finish(row.id, error.kind, error=error.message)
                    tell(self.row)
                    return
                except DeviceLostError as error:
                    self._attempts += 1
                    if error.unreachable or isinstance(error, ProtocolError):
                        raise
                    if self._attempts >= MAX_ATTEMPTS:
                        kind = "timeout" if error.timed_out else "crash"
                        self.row = self._store.finish(row.id, kind, error=error.message)
                        tell(self.row)
                        return
                    device.restart(error)
        finally:
            self._left_at = time.monotonic()
            if self.passes and self.row.status == Status.RUNNING:
                facts = {**self._artifact.facts(), **self._facts}
                self.row = _close(self._store, row.id, self.passes, facts)
        tell(self.row)

    def _stay(
        self, measurer: Measurer, loaded: LoadedModel, row: Measurement, tell: Callable[[Measurement], None]
    ) -> None:
        """Time passes with one worker, whose clock does not jump, until the seconds are over or it fails."""
        device, policy = measurer.device, self._session.policy
        before_s, first_s = self.elapsed_s, None
        while self.elapsed_s < self.seconds:
            measurer.check()
            asked_s = time.monotonic()
            timed = device.time(loaded, policy)
            at_s = asked_s if timed.at_s is None else timed.at_s
            first_s = at_s if first_s is None else first_s
            began_s = before_s + max(0.0, at_s - first_s)
            recorded = replace(
                timed,
                number=len(self.passes),
                kind=PassKind.SUSTAIN,
                measurement_id=row.id,
                telemetry={**timed.telemetry, _BEGAN: began_s},
            )
            self._store.add_pass(row.id, recorded, device.lease)
            self._attempts = 0
            reading = _sustained_pass(recorded, self._facts)
            self.passes.append(reading)
            self.elapsed_s = max(self.elapsed_s, reading.ended_s)
            measurer.timed_s += reading.busy_s
            row.latency_ms = reading.median_ms
            tell(row)

    def result(self) -> SustainedResult:
        """Return what the run has so far."""
        status, error = (Status.RUNNING.value, None) if self.row is None else (self.row.status, self.row.error)
        return SustainedResult(
            self._campaign.target,
            self._campaign.space,
            self._network,
            self.seconds,
            status,
            error,
            tuple(self.passes),
            self._simulated,
        )


def sustained_passes(passes: Iterable[RecordedPass], facts: Mapping[str, Any]) -> list[SustainedPass]:
    """Return recorded passes as passes of a sustained run.

    Args:
        passes: of one run, in order, from the device or the store.
        facts: what the worker reported when it loaded the network (`LoadedModel.facts`, or the row's `artifact`).
    """
    return [_sustained_pass(one, facts) for one in passes]


def close_earlier(store: Store, campaign: Campaign) -> None:
    """Close the row of an earlier run whose latlab was killed, with the passes that it has.

    Such a run cannot be continued, because the device has cooled down meanwhile.
    """
    for row in store.rows(campaign, store.latest_session(campaign)).values():
        passes = store.passes(row.id) if row.status == Status.RUNNING else []
        if passes:
            _close(store, row.id, sustained_passes(passes, row.artifact), row.artifact)


def _close(
    store: Store,
    row_id: int,
    passes: Sequence[SustainedPass],
    facts: dict[str, Any],
) -> Measurement:
    found = summarise(passes)
    return store.finish(
        row_id,
        Status.OK,
        latency_ms=found.mean_ms,
        raw_ms=found.mean_ms,
        times_s={"measure_s": found.busy_s, "sustained_s": found.seconds},
        metrics=metrics(facts, [one.recorded for one in passes], int(number(facts, "size_bytes") or 0)),
        verdict="throttled" if found.throttled_s else "",
        artifact=facts,
    )


def _sustained_pass(one: RecordedPass, facts: Mapping[str, Any]) -> SustainedPass:
    gpu = number(facts, "gpu")
    return SustainedPass(number(one.telemetry, _BEGAN) or 0.0, one, None if gpu is None else int(gpu))
