"""The examination of a device (`latlab doctor`): can it be reached, and is it fit to measure on?"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from latlab.harness.devices.health_checks import Clocks, Finding, State, compare_clocks, conditions, facts, step_details
from latlab.harness.devices.owner import busy_advice
from latlab.harness.devices.preconditions import Preconditions
from latlab.harness.devices.readiness import connections, install_advice, obstacle
from latlab.harness.devices.smoke_test import ANSWER_S, SmokeTest
from latlab.harness.devices.worker_client import Hello, RuntimeInfo, WorkerClient
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, ExportError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.paths import cache_folder
from latlab.harness.targets import RUNTIMES, USUAL_RUNTIMES, Target
from latlab.harness.transports import ConnectError, DeviceConfig, DeviceLostError, WorkerError, open_transport

__all__ = ["Examination", "Finding", "examine", "examine_controller"]

LOW_DISK_GB = 2.0
"""Gigabytes free for exported networks on this machine, below which there is a warning."""


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings about one device, and the seconds that the examination took."""

    device: str
    config: DeviceConfig
    findings: list[Finding]
    seconds: float

    @property
    def state(self) -> State:
        """The worst state among the findings."""
        states = {finding.state for finding in self.findings}
        return "failed" if "failed" in states else "warning" if "warning" in states else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return the device, its transport, its state and its checks."""
        checks = [finding.to_json() for finding in self.findings]
        return {"device": self.device, "transport": self.config.transport, "state": self.state, "checks": checks}


def examine_controller() -> list[Finding]:
    """Examine what this machine itself needs, whatever the devices are: room for exported networks."""
    folder = cache_folder() / "artifacts"
    try:
        ArtifactCache(folder)
    except CacheError as error:
        return [Finding("exported networks", "failed", str(error), "Name a writable folder in $LATLAB_CACHE.")]
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < LOW_DISK_GB:
        advice = f"They are kept in {folder}: free some space there, or name another folder in $LATLAB_CACHE."
        return [Finding("exported networks", "warning", f"{free_gb:.1f} GB free", advice)]
    return [Finding("exported networks", "ok", f"{free_gb:.0f} GB free in {folder}")]


def examine(names: Sequence[str], inventory: Inventory) -> Iterator[Examination]:
    """Examine devices of the inventory side by side, and yield the examinations in the order of `names`.

    Whatever is wrong with a device is a finding, and no exception.

    Raises:
        BadInputError: if a name is not in the inventory.
    """
    configs = {name: inventory.device(name) for name in names}
    with SmokeTest() as smoke_test:
        results = {name: _in_background(name, config, smoke_test) for name, config in configs.items()}
        for future in results.values():
            yield future.result()


def _in_background(name: str, config: DeviceConfig, smoke_test: SmokeTest) -> Future[Examination]:
    result: Future[Examination] = Future()

    def examine_it() -> None:
        began = time.monotonic()
        examiner = _DeviceExaminer(name, config, smoke_test)
        try:
            examiner.examine()
        except Exception as error:  # the examinations of the other devices must go on
            found = f"{type(error).__name__}: {error}"
            examiner.findings.append(
                Finding("doctor", "failed", found, "This is a defect of latlab: please report it.")
            )
        result.set_result(Examination(name, config, examiner.findings, time.monotonic() - began))

    # No thread of a pool: Ctrl-C would have to wait for its end.
    threading.Thread(target=examine_it, name=f"doctor-{name}", daemon=True).start()
    return result


class _DeviceExaminer:
    """The examination of one device: it fills `findings`."""

    def __init__(self, name: str, config: DeviceConfig, smoke_test: SmokeTest) -> None:
        self.findings: list[Finding] = []
        self._name, self._config, self._smoke_test = name, config, smoke_test
        self._hello = Hello({})

    def examine(self) -> None:
        """Examine the device for all its targets. Those of benchmark_model need a transport of their own."""
        try:
            targets = self._config.all_targets(self._name)
        except LatlabError as error:
            self._report("inventory", "failed", error.message, error.hint or "")
            return
        for group in connections(targets):
            try:
                worker = WorkerClient(open_transport(self._config, self._name, group[0].runtime))
            except LatlabError as error:
                self._report("inventory", "failed", error.message, error.hint or "")
                return
            try:
                self._examine_worker(worker, group)
            finally:
                worker.close()

    def _examine_worker(self, worker: WorkerClient, targets: Sequence[Target]) -> None:
        """Examine everything that one connection can show."""
        if not self._connect(worker):
            return
        try:
            self.findings += facts(self._hello.fields, on_this_machine=self._config.is_this_machine)
            before = self._read_sensors(worker)
            self.findings += conditions(before[1], self._hello.fields)
            cpus = self._config.timing_cpus(self._hello.usable_cpus, max(target.threads for target in targets))
            self.findings += Preconditions(self._config, self._hello.fields, cpus).findings(before[1])
            if self._affinity_is_possible():
                self._check_runtimes(worker, targets)
            after = self._read_sensors(worker)
        except (DeviceLostError, WorkerError) as error:
            self._report_loss(error)
            return
        if before[0] and after[0]:
            self.findings += compare_clocks(before[0], after[0])

    def _connect(self, worker: WorkerClient) -> bool:
        """Connect, greet the worker, report each step, and return whether all succeeded."""
        try:
            worker.start()
        except ConnectError as error:
            steps = worker.transport.STEPS
            for step in steps[: steps.index(error.step) if error.step in steps else 0]:
                self._report(step, "ok")
            self._report(error.step, "failed", self._short(error.message), error.advice or "Fix that, then look again.")
            return False
        try:
            self._hello = worker.hello(ANSWER_S)
        except (WorkerError, DeviceLostError) as error:
            for step in worker.transport.STEPS:
                self._report(step, "ok")
            if isinstance(error, WorkerError) and error.kind == "busy":
                advice = busy_advice(error.message, self._config)
                self._report("in use", "failed", self._short(error.message), advice)
            else:
                self._report_loss(error)
            return False
        details = step_details(self._hello.fields)
        for step in worker.transport.STEPS:
            self._report(step, "ok", details.get(step, ""))
        if "Python" not in worker.transport.STEPS and details["Python"]:
            self._report("worker", "ok", details["Python"])
        return True

    def _read_sensors(self, worker: WorkerClient) -> tuple[Clocks | None, dict[str, Any]]:
        asked_s = time.perf_counter()
        telemetry = worker.telemetry(ANSWER_S)
        return Clocks.read(telemetry, asked_s, time.perf_counter(), time.time()), telemetry

    def _affinity_is_possible(self) -> bool:
        usable, chosen = self._hello.usable_cpus, self._config.affinity
        if chosen is None or not usable or set(chosen) <= set(usable):
            return True
        self._report("affinity", "failed", f"{chosen} names CPUs that it does not have", f"Choose from {usable}.")
        return False

    # Runtimes

    def _check_runtimes(self, worker: WorkerClient, targets: Sequence[Target]) -> None:
        """Test each runtime of the device on one CPU thread, and each target of the inventory that asks for more."""
        wanted = {target.runtime for target in targets}
        found = self._hello.runtimes
        plain = [Target(self._name, runtime) for runtime in _known_runtimes([*found, *wanted])]
        special = [target for target in dict.fromkeys(map(_at_batch_1, targets)) if target not in plain]
        labels = {target: f"runtime {target.runtime}" for target in plain}
        labels |= {target: _label(target) for target in special}
        exports = {}
        before = len(self.findings)
        # OpenVINO uses no more CPUs than the worker had when it loaded the first network: the most threads come first.
        for target, label in sorted(labels.items(), key=lambda item: -item[0].threads):
            if not self._hello.runtime(target.runtime).version:
                if target in plain:
                    self._report_missing(target.runtime, self._hello.runtime(target.runtime), target.runtime in wanted)
                continue
            blocked = obstacle(self._config, target, self._hello)
            if blocked is not None:
                self._report(label, "failed", blocked.why, blocked.advice)
                continue
            try:
                if target.format not in exports:
                    exports[target.format] = self._smoke_test.submit(target.format)
                artifact = exports[target.format].result()
            except ExportError as error:
                self._report(label, "failed", f"the small network cannot be exported: {error.message}")
            except BadInputError as error:  # an optional package that writes such files is not installed here
                state: State = "failed" if target.runtime in wanted else "warning"
                self._report(label, state, error.message, error.hint or "")
            except CacheError as error:
                self._report(label, "failed", str(error), "Name a writable folder in $LATLAB_CACHE.")
            else:
                self._run_smoke_test(worker, target, artifact, label)
        order = list(labels.values())
        self.findings[before:] = sorted(self.findings[before:], key=lambda finding: order.index(finding.check))

    def _report_missing(self, runtime: str, found: RuntimeInfo, wanted: bool) -> None:
        if not wanted and (self._config.targets or runtime not in USUAL_RUNTIMES):
            self._report(f"runtime {runtime}", "ok", "not installed, and no target wants it")
            return
        why = (found.why or "not installed").partition(": pip ")[0]
        reason = "; the inventory's targets want it" if wanted and self._config.targets else ""
        state: State = "failed" if wanted else "warning"
        self._report(f"runtime {runtime}", state, why + reason, install_advice(self._name, runtime))

    def _run_smoke_test(self, worker: WorkerClient, target: Target, artifact: Artifact, label: str) -> None:
        """Run a small network: that a runtime can be imported does not show that it works."""
        try:
            cpus = self._config.timing_cpus(self._hello.usable_cpus, target.threads)
            self._report(label, *self._smoke_test.run(worker, target, artifact, cpus))
        except WorkerError as error:
            self._report(label, *self._explain(error, target))
        except DeviceLostError as error:
            if error.unreachable:
                raise
            reinstall = install_advice(self._name, target.runtime, again=True)
            advice = _advice_on_loss(error, self._name) if error.timed_out or _is_idle_end(error) else reinstall
            self._report(label, "failed", self._short(error.message), advice)
            worker.start()  # the runtime has killed the worker; the other runtimes may still be sound
            worker.hello(ANSWER_S)

    def _explain(self, error: WorkerError, target: Target) -> tuple[State, str, str]:
        message = self._short(error.message)
        if self._hello.is_simulated and error.kind == "bad_request":
            return "warning", message, ""  # the simulated device has a table of latencies without this network
        advice = {
            "no_space": "Free some space on the device, or name another folder with `work` in the inventory.",
            "lease_lost": "Somebody else uses the device now: look again when they have finished.",
            "out_of_memory": "End other programs on the device.",
            "timeout": "It is very slow, or it hangs.",
        }.get(error.kind)
        if advice is None and target.accelerator != "cpu":
            advice = (
                f"Does the runtime there support {target.accelerator}? Else take `accelerator: cpu` in the inventory."
            )
        if advice is None:
            advice = install_advice(self._name, target.runtime, again=True)
        return "failed", message, advice

    def _report_loss(self, error: WorkerError | DeviceLostError) -> None:
        advice = (
            _advice_on_loss(error, self._name) if isinstance(error, DeviceLostError) else "Fix that, then look again."
        )
        self._report("worker", "failed", self._short(error.message), advice)

    def _short(self, message: str) -> str:
        """Return a message without the names of the device, which is in the heading, and of the small network."""
        return message.removeprefix(f"device {self._name}: ").replace(f" ({self._smoke_test.network})", "")

    def _report(self, check: str, state: State, found: str = "", advice: str = "") -> None:
        self.findings.append(Finding(check, state, found, advice))


def _known_runtimes(runtimes: Sequence[str]) -> list[str]:
    """Return each known runtime once: a newer or a malicious worker may name others."""
    return [runtime for runtime in RUNTIMES if runtime in runtimes]


def _at_batch_1(target: Target) -> Target:
    """Return the target at batch size 1: an accelerator, or a number of threads, works for any batch or for none."""
    return Target(target.device, target.runtime, target.accelerator, target.precision, target.threads)


def _label(target: Target) -> str:
    """Return a target's runtime, and what it asks for in addition to one thread of the CPU."""
    accelerator = f" on {target.accelerator}" if target.accelerator != "cpu" else ""
    return f"{target.runtime}{accelerator}{f', {target.threads} threads' if target.threads > 1 else ''}"


def _is_idle_end(error: DeviceLostError) -> bool:
    """Return whether the worker has ended by itself, as it does when it is asked for nothing for minutes."""
    return "ended with exit code 0" in str(error)


def _advice_on_loss(error: DeviceLostError, name: str) -> str:
    if isinstance(error, ConnectError):
        return error.advice or "Fix that, then look again."
    if error.timed_out:
        return "It is very slow, or it hangs: look at it, restart it."
    if _is_idle_end(error):
        return f"This machine was busy or asleep for minutes, and the worker gave up. Again: latlab doctor {name}"
    if error.unreachable:
        return f"Look at its cable, its network and its power; then again: latlab doctor {name}"
    return "The worker died there. If it printed an error, the line above shows it."
