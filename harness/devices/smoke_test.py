"""A small network, run for real on whatever runtime and accelerator: an import is not a health check."""

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
MOST_RUNS = 30
FEWEST_RUNS = 3
RUN_S = 5.0
"""Of timing a network; slower devices run it less often, but `FEWEST_RUNS` times at least."""
NOISY_RATIO = 1.1
"""Of the slowest tenth of runs to the median; beyond it labels will need many passes."""
ANSWER_S = 180.0
"""For what a worker answers out of its head: an emulated Pi needs a minute for its first words."""
LOAD_S = 900.0
TIME_FLOOR_S = 60.0


class SmokeTest:
    """The small network in the formats that runtimes take: exported when first asked for, and kept."""

    def __init__(self) -> None:
        self.arch = get(SPACE).references()[0].text
        self._lock = threading.Lock()
        self._exports: Exports | None = None

    @property
    def network(self) -> str:
        return f"{SPACE}/{self.arch}"

    def submit(self, file_format: str) -> Future[Artifact]:
        """Raises `CacheError`."""
        with self._lock:
            if self._exports is None:
                self._exports = Exports(ArtifactCache(cache_folder() / "artifacts"))
        return self._exports.submit(ExportRequest(SPACE, self.arch, file_format))

    def run(
        self, worker: WorkerClient, target: Target, artifact: Artifact, cpus: list[int] | None
    ) -> tuple[State, str, str]:
        """Time the network on a device.

        Args:
            cpus: CPUs that run the network; None for all.

        Returns:
            How that went, what was found, and what to do about it.

        Raises:
            WorkerError: the worker could not load or run it.
            DeviceLostError: the worker did not survive it.
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
