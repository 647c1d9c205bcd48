"""The smoke test of a runtime: it runs a small network, because an import does not show that a runtime works."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from latlab.agents.protocol.pass_request import PassRequest
from latlab.harness.devices.health_checks import State
from latlab.harness.devices.worker_client import WorkerClient, load_request
from latlab.harness.exporters import Artifact, ArtifactCache, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.paths import cache_folder
from latlab.harness.targets import Target
from latlab.harness.telemetry.readings import text
from latlab.search_spaces import get

__all__ = ["ANSWER_S", "SmokeTest"]

SPACE = "nasbench201"
"""The search space of the small network."""
MOST_RUNS = 30
FEWEST_RUNS = 3
RUN_S = 5.0
"""Seconds that timing should take: slow devices run the network less than `MOST_RUNS` times, but at least
`FEWEST_RUNS` times.
"""
NOISY_RATIO = 1.1
"""Ratio of the 90th percentile of the runs to their median above which labels will need many passes."""
ANSWER_S = 180.0
"""Deadline in seconds of requests that run no network: an emulated Raspberry Pi needs a minute for its first reply."""
LOAD_S = 900.0
"""Deadline in seconds of loading the network."""
TIME_FLOOR_S = 60.0
"""Least deadline in seconds of timing the network."""


class SmokeTest:
    """The small network, exported once in each format, and its run on a device. A context manager: it ends exports."""

    def __init__(self) -> None:
        self.arch = get(SPACE).references()[0].text
        self._lock = threading.Lock()
        self._exports: Exports | None = None

    @property
    def network(self) -> str:
        """The network's name in the worker's messages."""
        return f"{SPACE}/{self.arch}"

    def submit(self, file_format: str) -> Future[Artifact]:
        """Start the export of the network in a format, and return its future. Raises `CacheError`."""
        with self._lock:
            if self._exports is None:
                self._exports = Exports(ArtifactCache(cache_folder() / "artifacts"))
        return self._exports.submit(ExportRequest(SPACE, self.arch, file_format))

    def run(
        self, worker: WorkerClient, target: Target, artifact: Artifact, cpus: list[int] | None
    ) -> tuple[State, str, str]:
        """Time the network on a device, and judge how evenly it runs.

        Args:
            cpus: CPUs that run the network; None for all.

        Returns:
            The state of the finding, what was found, and what to do about it (empty if nothing).

        Raises:
            WorkerError: if the worker cannot load or run the network.
            DeviceLostError: if the worker does not answer any more.
        """
        worker.push(artifact.path, artifact.sha256, artifact.path.suffix)
        loaded = worker.load(load_request(target, artifact, cpus, self.network), LOAD_S)
        runs = max(FEWEST_RUNS, min(MOST_RUNS, int(RUN_S / max(loaded.first_s, 1e-6))))
        request = PassRequest(warmup=min(5, runs), runs=runs)
        recorded = worker.time(
            loaded.handle, request, max(TIME_FLOOR_S, 20 * loaded.first_s * (request.warmup + request.runs))
        )
        worker.unload([loaded.handle], ANSWER_S)
        samples = sorted(recorded.samples_ns)
        middle_ns = samples[len(samples) // 2]
        provider = f" ({loaded.facts.get('provider')})" if target.accelerator != "cpu" else ""
        found = f"{loaded.facts.get('runtime_version')}{provider}: a small network in {middle_ns / 1e6:.3g} ms"
        warnings = recorded.telemetry.get("warnings")
        if isinstance(warnings, list) and text(warnings[0] if warnings else None):
            return "warning", f"{found}; {text(warnings[0])}", "Expect wide error bars until that is mended."
        slow = samples[int(0.9 * len(samples))] / max(1, middle_ns)
        if slow > NOISY_RATIO:
            noise = f", one run in ten takes {slow:.2f} times that or more"
            return "warning", found + noise, "Something else uses the device: end it, or expect wide error bars."
        return "ok", found, ""

    def __enter__(self) -> SmokeTest:
        return self

    def __exit__(self, *_: object) -> None:
        if self._exports is not None:
            self._exports.close()
