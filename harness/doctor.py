"""`latlab doctor`: is this device fit to measure on? Each finding says what was seen and what to do about it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

from latlab.agents.statistics import summarise
from latlab.harness.device import DeviceSession
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import (
    Artifact,
    ArtifactCache,
    CacheError,
    ExportError,
    ExportPool,
    ExportRequest,
)
from latlab.harness.inventory import Inventory
from latlab.harness.paths import cache_folder
from latlab.harness.targets import RUNTIME_FORMATS, Target
from latlab.harness.transports import DeviceLostError, WorkerError
from latlab.search_spaces import get

__all__ = ["Finding", "examine"]

PROBE_SPACE = "nasbench201"
PROBE_RUNS = 30
NOISY_RATIO = 1.1
"""Of the slowest tenth of runs to the median; beyond it labels will need many passes."""
LOW_DISK_GB = 2.0
COARSE_CLOCK_NS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination."""

    check: str
    state: Literal["ok", "warning", "failed"]
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def examine(name: str, inventory: Inventory) -> list[Finding]:
    """Examine a device of the inventory. Never raises for what is wrong with the device: that is a finding."""
    device = inventory.device(name)
    try:
        cache = ArtifactCache(cache_folder() / "artifacts")
    except CacheError as error:
        return [Finding("cache", "failed", str(error), "Name a writable folder in $LATLAB_CACHE.")]
    findings: list[Finding] = [_disk()]
    described = False
    with ExportPool(cache, 1) as pool:
        probe = get(PROBE_SPACE).references()[0].text
        futures = {r: pool.submit(ExportRequest(PROBE_SPACE, probe, f)) for r, f in RUNTIME_FORMATS.items()}
        for runtime in RUNTIME_FORMATS:
            try:
                artifact = futures[runtime].result()
                with DeviceSession(name, device, Target(name, runtime)) as session:
                    if not described:
                        findings += _describe(session.hello)
                        described = True
                    findings.append(_run(session, artifact, runtime))
            except ExportError as error:
                findings.append(Finding(f"export for {runtime}", "failed", error.message))
            except BadInputError as error:
                findings.append(Finding(f"runtime {runtime}", "failed", error.message, error.hint or ""))
            except (LatlabError, WorkerError, DeviceLostError, CacheError) as error:
                findings.append(Finding(f"worker ({runtime})", "failed", str(error)))
    return findings


def _disk() -> Finding:
    free_gb = shutil.disk_usage(cache_folder().parent if cache_folder().parent.exists() else "/").free / 1e9
    if free_gb < LOW_DISK_GB:
        return Finding("disk", "warning", f"{free_gb:.1f} GB free", "Exported networks are kept: free some space.")
    return Finding("disk", "ok", f"{free_gb:.0f} GB free for exported networks")


def _describe(hello: dict[str, Any]) -> list[Finding]:
    cpus, governor = hello["cpus"], hello["cpus"].get("governor")
    usable = len(cpus.get("affinity") or []) or cpus["count"]
    findings = [
        Finding("worker", "ok", f"Python {hello['python']} on {hello['fingerprint']['os']}, {hello['machine']}"),
        Finding("processor", "ok", f"{cpus['model'] or 'unknown'}: {usable} of {cpus['count']} CPUs usable"),
    ]
    if usable < 2:
        findings.append(
            Finding(
                "spare core",
                "warning",
                "none",
                "Exporting pauses while networks are timed; that takes longer.",
            )
        )
    if governor and governor != "performance":
        findings.append(
            Finding(
                "governor",
                "warning",
                str(governor),
                "Clocks will move. As root: cpupower frequency-set -g performance",
            )
        )
    clock = hello["clock_resolution_ns"]
    if clock > COARSE_CLOCK_NS:
        findings.append(Finding("clock", "warning", f"resolution {clock} ns", "Short networks will be badly resolved."))
    else:
        findings.append(Finding("clock", "ok", f"resolution {clock} ns"))
    return findings


def _run(session: DeviceSession, artifact: Artifact, runtime: str) -> Finding:
    """A small network run for real: an import is not a health check."""
    loaded = session.load(artifact)
    timed = session.time(loaded, 5, PROBE_RUNS)
    summary = summarise([timed.samples_ns], 0.1)
    middle = sorted(timed.samples_ns)[PROBE_RUNS // 2]
    slow = sorted(timed.samples_ns)[int(0.9 * PROBE_RUNS)] / middle
    found = (
        f"{loaded.facts.get('runtime_version', '')}: a small network in {summary.latency_ms:.2f} ms, "
        f"the slowest tenth of its runs took {slow:.2f} times the median or more"
    )
    if slow > NOISY_RATIO:
        advice = "Something else uses this machine; close it, or expect wide error bars."
        return Finding(f"runtime {runtime}", "warning", found, advice)
    return Finding(f"runtime {runtime}", "ok", found)
