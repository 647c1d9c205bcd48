"""One network on one device, pass after pass without a pause, for minutes; every pass is in the store at once."""

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

__all__ = ["Result", "Run", "close_earlier", "policy_of", "sustained_passes"]

PASS_S = 1.5
"""Of a pass: long against what lies between two (milliseconds), short against what Ctrl-C waits for."""
PROGRAM_PASS_S = 10.0
"""Where each pass starts a program anew (`benchmark_model`)."""
MAX_ATTEMPTS = 2
"""Workers that the network may kill before that is its result."""
_BEGAN = "began_s"


def policy_of(target: Target) -> TimingPolicy:
    pass_s = PROGRAM_PASS_S if target.runtime == BENCHMARK_MODEL else PASS_S
    return TimingPolicy(Role.SUSTAIN.value, warmup=0, runs=1, trim=0.1, passes=1, spread=0, pass_s=pass_s)


@dataclass(frozen=True)
class Result:
    """The result of a sustained run."""

    target: str
    space: str
    """`model` for a model of the user's own."""
    network: str
    asked_s: float
    status: str
    """`ok`, or how the network failed."""
    error: str | None
    readings: tuple[SustainedPass, ...]
    simulated: bool = False

    @cached_property
    def summary(self) -> Sustained | None:
        """None where there was not one pass."""
        return summarise(self.readings) if self.readings else None

    @property
    def complete(self) -> bool:
        """Whether it was as long as it was to be."""
        return self.summary is not None and self.summary.seconds >= self.asked_s

    def windows(self, window_s: float | None = None) -> list[Window]:
        """Default: at most 30 of a round length; longer where passes are."""
        seconds = self.summary.seconds if self.summary else self.asked_s
        wanted_s = nice_window_s(max(seconds, 1.0)) if window_s is None else window_s
        return windows(self.readings, legible_window_s(self.readings, wanted_s))

    def to_json(self) -> dict[str, Any]:
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


class Run:
    """What a job does (`fleet.Job.work`); it goes on after the way to the device was lost, with a gap.

    Args:
        network: what the store calls it.
        label: what the device is told that it is: SPACE/ARCH.
        seconds: how long, on the device's clock.
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
        self.readings: list[SustainedPass] = []
        """So far; only ever appended to."""
        self.elapsed_s = 0.0
        self.row: Measurement | None = None
        self._passes: list[RecordedPass] = []
        self._facts: dict[str, Any] = {}
        self._attempts = 0
        self._left_at = 0.0
        self._simulated = False

    def work(self, measurer: Measurer, tell: Callable[[Measurement], None]) -> None:
        """Raises what ends a stay at a device; what was timed is in the store, and its row says so."""
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
        if not self.readings:
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
            if self.readings and self.row.status == Status.RUNNING:
                facts = {**self._artifact.facts(), **self._facts}
                self.row = _close(self._store, row.id, self.readings, self._passes, facts)
        tell(self.row)

    def _stay(
        self, measurer: Measurer, loaded: LoadedModel, row: Measurement, tell: Callable[[Measurement], None]
    ) -> None:
        """Passes from one worker, whose clock is one."""
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
                number=len(self.readings),
                kind=PassKind.SUSTAIN,
                measurement_id=row.id,
                telemetry={**timed.telemetry, _BEGAN: began_s},
            )
            self._store.add_pass(row.id, recorded, device.lease)
            self._attempts = 0
            reading = _sustained_pass(recorded, self._facts)
            self._passes.append(recorded)
            self.readings.append(reading)
            self.elapsed_s = max(self.elapsed_s, reading.ended_s)
            measurer.timed_s += reading.busy_s
            row.latency_ms = reading.median_ms
            tell(row)

    def result(self) -> Result:
        """What there is of it so far."""
        status, error = (Status.RUNNING.value, None) if self.row is None else (self.row.status, self.row.error)
        return Result(
            self._campaign.target,
            self._campaign.space,
            self._network,
            self.seconds,
            status,
            error,
            tuple(self.readings),
            self._simulated,
        )


def sustained_passes(passes: Iterable[RecordedPass], facts: Mapping[str, Any]) -> list[SustainedPass]:
    """The passes of a run, as they came or as the store has them.

    Args:
        facts: of the network on the device (`Loaded.facts`, or the row's `artifact`).
    """
    return [_sustained_pass(one, facts) for one in passes]


def close_earlier(store: Store, campaign: Campaign) -> None:
    """A run whose latlab was killed has its passes, and a row that was never closed: it is as long as it is."""
    for row in store.rows(campaign, store.latest_session(campaign)).values():
        passes = store.passes(row.id) if row.status == Status.RUNNING else []
        if passes:
            _close(store, row.id, sustained_passes(passes, row.artifact), passes, row.artifact)


def _close(
    store: Store,
    row_id: int,
    readings: Sequence[SustainedPass],
    passes: Sequence[RecordedPass],
    facts: dict[str, Any],
) -> Measurement:
    found = summarise(readings)
    return store.finish(
        row_id,
        Status.OK,
        latency_ms=found.mean_ms,
        raw_ms=found.mean_ms,
        times_s={"measure_s": found.busy_s, "sustained_s": found.seconds},
        metrics=metrics(facts, passes, int(number(facts, "size_bytes") or 0)),
        verdict="throttled" if found.throttled_s else "",
        artifact=facts,
    )


def _sustained_pass(one: RecordedPass, facts: Mapping[str, Any]) -> SustainedPass:
    gpu = number(facts, "gpu")
    return SustainedPass(number(one.telemetry, _BEGAN) or 0.0, one, None if gpu is None else int(gpu))
