"""A small network, run for real on whatever runtime and accelerator: an import is not a health check."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from latlab.harness.devices.health_checks import State
from latlab.harness.exporters import Artifact, ArtifactCache, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.paths import cache_folder
from latlab.harness.targets import Target
from latlab.harness.telemetry.readings import text
from latlab.harness.transports import Transport
from latlab.search_spaces import get

__all__ = ["ANSWER_S", "Trials"]

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


class Trials:
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
        self, transport: Transport, target: Target, artifact: Artifact, cpus: list[int] | None
    ) -> tuple[State, str, str]:
        """Times the network on a device: how that went, and what to do about it.

        Raises `WorkerError` or `DeviceLostError`.
        """
        transport.push(artifact.path, artifact.sha256, artifact.path.suffix)
        loaded = transport.request(
            "load",
            LOAD_S,
            sha256=artifact.sha256,
            suffix=artifact.path.suffix,
            runtime=target.runtime,
            accelerator=target.accelerator,
            threads=target.threads,
            affinity=cpus,
            input_shape=list(artifact.input_shape),
            seed=0,
            network=self.network,
        )
        first_s = loaded["first_ns"] / 1e9
        runs = max(FEWEST_RUNS, min(MOST_RUNS, int(RUN_S / max(first_s, 1e-6))))
        warmup = min(5, runs)
        deadline_s = max(TIME_FLOOR_S, 20 * first_s * (warmup + runs))
        timed = transport.request(
            "time", deadline_s + 10, handle=loaded["handle"], warmup=warmup, runs=runs, deadline_s=deadline_s
        )
        transport.request("unload", ANSWER_S, handles=[loaded["handle"]])
        samples = sorted(timed["samples_ns"])
        middle_ns = samples[len(samples) // 2]
        provider = f" ({loaded['provider']})" if target.accelerator != "cpu" else ""
        found = f"{loaded['runtime_version']}{provider}: a small network in {middle_ns / 1e6:.3g} ms"
        warnings = timed.get("warnings")
        if isinstance(warnings, list) and text(warnings[0] if warnings else None):
            return "warning", f"{found}; {text(warnings[0])}", "Expect wide error bars until that is mended."
        slow = samples[int(0.9 * len(samples))] / max(1, middle_ns)
        if slow > NOISY_RATIO:
            noise = f", one run in ten takes {slow:.2f} times that or more"
            return "warning", found + noise, "Something else uses the device: end it, or expect wide error bars."
        return "ok", found, ""

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        if self._exports is not None:
            self._exports.close()
