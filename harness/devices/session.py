"""A device in use: one worker at a time, loading and timing on it, and a fresh worker when one dies."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from latlab.agents.protocol.load_request import INPUT_DATA
from latlab.agents.protocol.pass_request import PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.harness.devices.owner import busy_advice
from latlab.harness.devices.preconditions import Preconditions
from latlab.harness.devices.readiness import install_advice
from latlab.harness.devices.worker_client import Hello, LoadedModel, WorkerClient, load_request
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact
from latlab.harness.store.store import LeaseToken, Store
from latlab.harness.targets import BENCHMARK_MODEL, Target
from latlab.harness.telemetry.operator_profile import OperatorProfile
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import DeviceConfig, DeviceLostError, WorkerError, open_transport

__all__ = ["DeviceBusyError", "DeviceFaultError", "DeviceSession", "pass_deadline_s"]

DEVICE_FAULTS = ("no_space", "lease_lost")
"""Kinds of failure for which the device is to blame, and no network."""
MAX_RESTARTS = 5
"""Most restarts of the worker with no pass in between; then the device is given up."""
HELLO_S = 120.0
"""Deadline in seconds of a worker's first reply. Before it, Python starts and looks for runtimes, which takes a
Raspberry Pi Zero several seconds.
"""
REQUEST_S = 30.0
"""Deadline in seconds of requests that neither load nor time a network."""
LOAD_S = 300.0
"""Deadline in seconds of loading a model, its first inference included."""
WAIT_S = 5.0
"""Seconds after which a display of progress says what it is that takes so long."""
REST_SLICE_S = 0.5
"""Seconds of rest after which it is checked whether the run is to end."""
TIME_FLOOR_S = 60.0
"""Least seconds that the runs of a pass may take."""
TIME_CEILING_S = 7200.0
"""Most seconds that the runs of a pass may take: a device cannot make the controller wait forever."""
TIME_FACTOR = 20.0
"""The runs of a pass may take this many times as long as the first inference suggests."""


PROFILE_FACTOR = 50.0
"""The same for profiled inferences, which are slower."""


def pass_deadline_s(request: PassRequest, first_s: float) -> float:
    """Return the deadline of a pass in seconds: the time of its runs by `TIME_FACTOR`, and the seconds it asks for.

    If only a stopping rule ends the samples, the most runs that it may want are counted.

    Args:
        first_s: seconds of the first inference.
    """
    open_ended = request.stop and not request.max_pass_s
    runs = max(request.warmup, request.max_warmup) + (request.most_runs if open_ended else request.runs)
    wanted_s = request.warmup_s + max(request.pass_s, request.max_pass_s)
    return min(TIME_CEILING_S, max(TIME_FLOOR_S, TIME_FACTOR * first_s * runs)) + wanted_s


class DeviceFaultError(LatlabError):
    """A fault of the device that a person has to fix (its disk is full, say). Until then nothing succeeds there."""


class DeviceBusyError(LatlabError):
    """Raised when somebody else uses the device. The message says who."""


class DeviceSession:
    """One controller's use of one device for one target. A context manager: entering connects, leaving ends the worker.

    Args:
        name: the device's name in the inventory.
        device: its entry in the inventory.
        target: how networks run there.
        owner: identity of the controller's run, 32 hex digits. A worker that a cut link left behind gives way to a
            new one of the same owner. Default: a random identity.

    Raises:
        DeviceBusyError: on entering, if somebody else uses the device.
        DeviceLostError: on entering, if the device cannot be reached.
        DeviceFaultError: on entering, if a person has to fix something on the device.
        BadInputError: on entering, if the device cannot serve the target (a missing runtime, too few CPUs).
    """

    def __init__(self, name: str, device: DeviceConfig, target: Target, owner: str | None = None) -> None:
        self.name, self.target, self._device = name, target, device
        self._owner = owner or uuid.uuid4().hex
        self._worker = WorkerClient(open_transport(device, name, target.runtime))
        self._failures = 0
        self.hello = Hello({})
        """The reply of the present worker to `hello`; empty before the first."""
        self.fingerprint_id: str | None = None
        """Identity of the device's facts in the store; None before `register`."""
        self.lease: LeaseToken | None = None
        """The lease of the present worker; None before the first."""
        self.passes = 0
        """Number of passes timed since the session began."""
        self.label_passes = 0
        """Number of passes of networks, without those of anchors."""
        self.first_label_pass = 0.0
        """Time on the monotonic clock when the first of them began; 0 before."""
        self.generation = 0
        """Number of restarts of the worker. A new worker has no networks loaded."""
        self.begin("connecting")
        self.telemetry: dict[str, Any] = {}
        """The last reading of the device's sensors."""
        self._after_pass = False
        """Whether that reading was taken right after a pass."""
        self._circumstances: dict[str, Any] = {}
        """Facts about the wait before the next pass, which `time` adds to its telemetry."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._worker.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def _start(self) -> None:
        self.begin("connecting")
        try:
            self._worker.start()
            self.hello = self._worker.hello(HELLO_S, self._owner)
        except WorkerError as error:
            if error.kind == "busy":
                raise DeviceBusyError(
                    f"device {self.name} is in use: {error.message}",
                    busy_advice(error.message, self._device),
                ) from error
            kind = BadInputError if error.kind == "bad_request" else DeviceFaultError
            raise kind(f"device {self.name}: {error.message}") from error
        self.lease = self.hello.lease(self.name)
        self.begin("ready")
        self._after_pass = False
        self._check_cpus()
        self.check_runtime(self.target.runtime)

    def check_runtime(self, name: str) -> None:
        """Raise `BadInputError` if the device lacks a runtime."""
        runtime = self.hello.runtime(name)
        if not runtime.version:
            raise BadInputError(
                f"the runtime {name} is not installed on {self.name}: {runtime.why or 'not found'}",
                f"{install_advice(self.name, name)} Or choose another with --runtime; "
                f"`latlab doctor {self.name}` shows what it has.",
            )

    def _check_cpus(self) -> None:
        """Check that each thread has a CPU of its own: threads that take turns on one give meaningless latencies."""
        usable = self.hello.usable_cpus or range(self.hello.cpu_count)
        chosen = self._device.affinity
        if chosen is not None and not set(chosen) <= set(usable):
            raise BadInputError(
                f"device {self.name}: its affinity {chosen} names CPUs that it does not have",
                f"In the inventory, choose from {list(usable)}.",
            )
        cpus = len(usable if chosen is None else chosen)
        if self.target.threads > cpus:
            raise BadInputError(
                f"device {self.name} has {cpus} CPUs for timing: {self.target.threads} threads would take turns",
                f"Use --threads {cpus} or less.",
            )

    def begin(self, doing: str, subject: str = "") -> None:
        """Note what the session does from now on, for a display of progress.

        Args:
            doing: a word or two.
            subject: what it does that with.
        """
        self.doing, self._subject, self._since = doing, subject, time.monotonic()

    @property
    def waiting(self) -> str:
        """What the session has been doing for so long that it is worth a sentence (`WAIT_S`); else empty."""
        seconds = time.monotonic() - self._since
        if seconds < WAIT_S or self.doing in ("ready", "resting"):
            return ""
        return f"{self.doing} for {seconds:.0f} s{f': {self._subject}' if self._subject else ''}"

    def register(self, store: Store) -> None:
        """Record in the store the device's facts, to which rows refer, and the lease under which it is used."""
        self._store = store
        self.fingerprint_id = store.fingerprint(self.facts)
        assert self.lease is not None
        store.claim(self.lease)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that influence latency: software versions, CPU, governor, and the CPUs that time networks."""
        return {**self.hello.facts, "affinity": self.affinity}

    @property
    def affinity(self) -> list[int] | None:
        """The CPUs that time networks (`DeviceConfig.timing_cpus`); None for all."""
        return self._device.timing_cpus(self.hello.usable_cpus, self.target.threads)

    @property
    def is_this_machine(self) -> bool:
        """True if the device shares its CPUs with the controller."""
        return self._device.is_this_machine

    @property
    def spare_cpus(self) -> set[int] | None:
        """The CPUs of this machine that are left for exporting; None if none is left."""
        if not self._device.is_this_machine:
            return set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        if self.affinity is None:
            return None
        return set(self.hello.usable_cpus) - set(self.affinity) or None

    def load(self, artifact: Artifact, network: str = "", target: Target | None = None) -> LoadedModel:
        """Push the artifact if the device lacks it, and load it.

        Args:
            network: its name in the worker's messages.
            target: how it runs, if not as the session's target says: in another runtime, for example. Device and
                threads are the session's.

        Raises:
            WorkerError: if the network is to blame.
            DeviceFaultError: if the device is to blame.
            DeviceLostError: if the worker does not answer any more.
            BadInputError: if the device lacks the runtime or the accelerator.
        """
        try:
            return self._load(artifact, network, target or self.target)
        except WorkerError as error:
            if error.kind not in ("corrupt_artifact", "missing_artifact"):
                raise
        # The file was damaged on the way or on the device, or somebody has emptied the device's cache: try once more.
        try:
            return self._load(artifact, network, target or self.target)
        except WorkerError as error:
            if error.kind != "missing_artifact":
                raise
            raise self._fault(error) from error

    def _load(self, artifact: Artifact, network: str, target: Target) -> LoadedModel:
        start = time.perf_counter()
        self.begin("pushing", network)
        try:
            self._worker.push(artifact.path, artifact.sha256, artifact.suffix)
            if artifact.data is not None:
                self._worker.push(artifact.data.path, artifact.data.sha256, INPUT_DATA)
        except WorkerError as error:
            if error.kind not in ("crash", "no_space"):
                raise
            # The device's fault (its disk is full, say), not the network's: it must not become a row.
            raise self._fault(error) from error
        pushed = time.perf_counter()
        self.begin("loading", f"{network or 'the network'}, first inference included")
        try:
            loaded = self._worker.load(load_request(target, artifact, self.affinity, network), LOAD_S)
        except WorkerError as error:
            if error.kind in DEVICE_FAULTS:
                raise self._fault(error) from error
            if error.kind == "runtime_missing" and target.runtime != BENCHMARK_MODEL:
                # Every network would fail like this. (With benchmark_model, a delegate may refuse only this network.)
                raise BadInputError(
                    f"device {self.name} cannot run {target}: {error.message}",
                    f"`latlab doctor {self.name}` shows what it has; the same command goes on once that is mended.",
                ) from error
            raise
        return replace(loaded, push_s=pushed - start)

    def _fault(self, error: WorkerError) -> DeviceFaultError:
        return DeviceFaultError(
            f"device {self.name}: {error.message}",
            "Everything measured so far is in the store; mend that, and the same command continues.",
        )

    def time(self, loaded: LoadedModel, policy: TimingPolicy) -> RecordedPass:
        """Time one pass of a loaded network, as the policy asks for it.

        Raises:
            WorkerError: if the network is to blame.
            DeviceFaultError: if the device is to blame.
            DeviceLostError: if the worker does not answer any more.
            BadInputError: if the target cannot follow the policy.
        """
        if policy.stop and self.target.runtime == BENCHMARK_MODEL:
            raise BadInputError(
                f"the policy {policy.name} stops a pass by its samples ({policy.stop}), of which {BENCHMARK_MODEL} "
                "prints none",
                "Choose another with --policy: `tflite` is that program's own.",
            )
        request = policy.pass_request()
        deadline_s = pass_deadline_s(request, loaded.first_s)
        self.begin("timing")
        try:
            recorded = self._worker.time(loaded.handle, request, deadline_s)
        except WorkerError as error:
            if error.kind in DEVICE_FAULTS:
                raise self._fault(error) from error
            raise
        self._failures = 0
        self.passes += 1
        self.telemetry = recorded.telemetry["after"]
        recorded = replace(recorded, telemetry={**recorded.telemetry, **self._circumstances})
        self._after_pass, self._circumstances = True, {}
        return recorded

    def profile(self, loaded: LoadedModel, request: ProfileRequest) -> OperatorProfile:
        """Run a loaded network under its runtime's profiler.

        Raises:
            BadInputError: if the runtime has no profiler.
            WorkerError, DeviceFaultError, DeviceLostError: as `time`.
        """
        self.begin("profiling")
        runs_s = PROFILE_FACTOR * loaded.first_s * (request.warmup + request.runs)
        try:
            found = self._worker.profile(loaded.handle, request, min(TIME_CEILING_S, max(TIME_FLOOR_S, runs_s)))
        except WorkerError as error:
            if error.kind in DEVICE_FAULTS:
                raise self._fault(error) from error
            if error.kind == "bad_request":
                raise BadInputError(f"device {self.name}: {error.message}") from error
            raise
        self._failures = 0
        self._after_pass = False
        return found

    def note_pass(self, seconds: float) -> None:
        """Count a pass of a network, which took so many seconds and has just ended, for a display of progress."""
        self.label_passes += 1
        self.first_label_pass = self.first_label_pass or time.monotonic() - seconds

    def ping(self) -> None:
        """Read the device's sensors, which also keeps an idle worker from ending.

        Raises:
            DeviceLostError: if the worker does not answer any more.
            DeviceFaultError: if somebody else has the device now.
        """
        try:
            self.telemetry = self._worker.telemetry(REQUEST_S)
        except WorkerError as error:
            raise self._fault(error) from error
        self._after_pass = False

    def rest(self, seconds: float) -> None:
        """Let nothing run on the device for so many seconds of its own clock."""
        self.begin("resting")
        self._worker.rest(seconds)

    def wait_until_fit(self, check: Callable[[], None] = lambda: None) -> float:
        """Rest the device before a pass until it is as the inventory demands (`cooldown`, `clock`).

        The next `time` adds to its telemetry how long that took (`rested_s`), and which demands are still not met
        (`unfit`). If nothing is demanded, or the last pass left the device as it should be, this takes no time.

        Args:
            check: called at least every `REST_SLICE_S` seconds of rest; it may raise to end the wait.

        Returns:
            Seconds of rest, on the device's clock.

        Raises:
            BadInputError: if a demand is not met, and the inventory says to refuse then.
            DeviceLostError, DeviceFaultError: as `ping`.
        """
        preconditions = Preconditions(self._device, self.hello.fields, self.affinity)
        if not preconditions.demands:
            return 0.0
        if not self.telemetry:
            self.ping()
        rested_s = 0.0
        while True:
            decision = preconditions.before_pass(self.telemetry, rested_s, ran=self._after_pass)
            if decision.refused:
                raise BadInputError(
                    f"device {self.name}: {decision.unmet}",
                    f"The inventory demands that. `latlab doctor {self.name}` says how to set it; the same command "
                    "goes on then.",
                )
            if decision.wait_s <= 0:
                break
            self.begin("resting")
            until_s = rested_s + decision.wait_s
            while rested_s < until_s:
                check()
                slice_s = min(REST_SLICE_S, until_s - rested_s)
                self._worker.rest(slice_s)
                rested_s += slice_s
            self.ping()
        known = {"rested_s": rested_s, "unfit": decision.unmet}
        self._circumstances = {name: value for name, value in known.items() if value}
        return rested_s

    def abort(self) -> None:
        """End the worker from another thread. A request that is under way fails."""
        with contextlib.suppress(Exception):
            self._worker.close(gently=False)

    def unload(self, loaded: LoadedModel) -> None:
        """Free a network on the device. Raises `WorkerError`, `DeviceLostError`."""
        self._worker.unload([loaded.handle], REQUEST_S)

    def restart(self, cause: DeviceLostError) -> None:
        """Start a fresh worker after one was lost. Raises the cause if too many have died in a row (`MAX_RESTARTS`)."""
        self._failures += 1
        if self._failures > MAX_RESTARTS:
            self._worker.close()
            raise cause
        self.renew()

    def renew(self) -> None:
        """End the worker, and start a fresh one, on which nothing is loaded. It raises what entering raises."""
        self._worker.close()
        self._worker = WorkerClient(open_transport(self._device, self.name, self.target.runtime))
        self.generation += 1
        self._start()
        self.register(self._store)
