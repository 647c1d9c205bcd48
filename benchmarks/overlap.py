"""Figure 4: exporting the next networks while one is timed: what it saves, what limits, and what it does to labels.

    python benchmarks/overlap.py [--networks 300] [--rounds 2] [--only ssh] [--formats tflite]

NAS-Bench-201 networks whose graphs all differ, from an empty cache, on this machine and on an SSH server that the
script starts on the loopback interface (whose worker stays on one core, as exporting stays on the others, so that the
two are as apart as two machines). Each run is done with exporting beside timing and without (a batch of networks is
exported, then timed, in turns), in alternating order. The bound is what nobody can beat: the longer of the seconds
spent timing (warm-up and samples, anchors too) and the export CPU seconds per export worker.

Then with all artifacts in the cache, over SSH: what share of the time is spent timing, for networks of 20 ms and
more, and for NAS-Bench-201; in a session that brings the files to the device, and in the next one.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, save, show
from loopback import loopback_ssh

from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import ArtifactCache, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.measurement.anchors import ANCHORS
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Measurement, Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS
from latlab.harness.transports import DeviceConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.search_spaces import Architecture, get

SPACE, LARGE_SPACE = "nasbench201", "ofa-mobilenetv3-w1.2"
LARGE_MS = 20.0
LARGE_BATCH = 2
AMONG = 20
"""Large networks are those with the most work of so many random ones each."""
RUNTIMES = {"onnx": "onnxruntime", "torchscript": "torchscript", "tflite": "tflite"}
DEVICES = ("local", "ssh")
BOUND = 1.2


class Alone(DeviceSession):
    """A device that leaves no core for exporting, as far as the engine knows."""

    @property
    def spare_cpus(self) -> set[int] | None:
        return None


def networks(name: str, count: int, seed: int, among: int = 2) -> list[str]:
    """Random architectures whose graphs all differ: none stands for another.

    Args:
        among: drawn for each that is wanted; of more than 2 those with the most work are taken.
    """
    space = get(name)
    found: dict[str, Architecture] = {}
    for arch in space.sample(min(among * count + 10, space.size), seed):
        found.setdefault(space.canonical(arch).text, arch)
    archs = list(found.values())
    if among > 2:
        archs.sort(key=lambda arch: -sum(layer.macs for layer in space.layers(arch)))
    return [arch.text for arch in archs[:count]]


@contextmanager
def config(name: str, folder: Path) -> Iterator[DeviceConfig]:
    """What an inventory says of the device; either times on the last core."""
    affinity = [max(os.sched_getaffinity(0))]
    if name == "local":
        yield LocalDevice(work=folder / "work", affinity=affinity)
    else:
        with loopback_ssh(folder) as device:
            yield device.model_copy(update={"affinity": affinity})


def export_cpus() -> set[int]:
    """The cores beside the one that times; all where there is but one."""
    usable = os.sched_getaffinity(0)
    return usable - {max(usable)} or usable


class Run:
    """One session of a campaign, measured."""

    def __init__(
        self,
        folder: Path,
        device: DeviceConfig,
        target: Target,
        space: str,
        archs: Sequence[str],
        cache: Path,
        *,
        overlap: bool = True,
        seed: int,
        policy: str = "default",
    ) -> None:
        cpus = export_cpus()
        store = Store(folder / "store.db")
        campaign = store.campaign(target, space, PRESETS[policy], seed, "listed", {})
        kind = DeviceSession if overlap else Alone
        with ExitStack() as stack:
            stack.callback(store.close)
            stack.enter_context(store.writing())
            session = stack.enter_context(kind(target.device, device, target))
            session.register(store)
            exports = Exports(ArtifactCache(cache), len(cpus), cpus)
            try:
                start = time.monotonic()
                measurer = Measurer(session, exports, lambda: None)
                measured = MeasurementSession(store, campaign, 1)
                self.rows: list[Measurement] = list(measurer.run(measured, [(arch, "listed") for arch in archs]))
                self.wall_s = time.monotonic() - start
            finally:
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                exports.close()  # waits for the workers, which have exported and nothing else
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
            self.export_cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            self.workers = len(cpus)
            self.exports_change_latency = measurer.exports_change_latency
            timed = [*measured.passes(), *measured.anchors()]
            self.timing_s = sum(one.busy_s for one in timed)
            table = store.table()
        self.labels = dict(zip(table["arch"], table["latency_ms"], strict=True))
        self.passes = len(timed)

    def seconds(self, name: str) -> float:
        return sum(row.times_s.get(name, 0.0) for row in self.rows)


def overlapped(name: str, file_format: str, count: int, rounds: int, seed: int) -> dict[str, Any]:
    """With and without overlap, from an empty cache."""
    archs = networks(SPACE, count, seed)
    runs: dict[bool, list[Run]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as text, config(name, Path(text)) as device:
        target = Target(name, RUNTIMES[file_format])
        for round_ in range(rounds):
            for overlap in (True, False) if round_ % 2 == 0 else (False, True):
                folder = Path(text) / f"{round_}-{overlap}"
                folder.mkdir()
                runs[overlap].append(
                    Run(folder, device, target, SPACE, archs, folder / "cache", overlap=overlap, seed=seed)
                )
    ratios = sorted(
        math.exp(
            statistics.fmean(
                math.log(a.labels[arch] / b.labels[arch]) for a, b in zip(runs[True], runs[False], strict=True)
            )
        )
        for arch in archs
        if all(run.labels.get(arch, 0) > 0 for both in runs.values() for run in both)
    )
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [math.nan] * 3

    def mean(overlap: bool, name: str) -> float:
        return statistics.fmean(getattr(run, name) for run in runs[overlap])

    workers = runs[True][0].workers
    timing_s, export_s = mean(True, "timing_s"), mean(True, "export_cpu_s") / workers
    bound_s, wall_s = max(timing_s, export_s), mean(True, "wall_s")
    return {
        "device": name,
        "format": file_format,
        "networks": len(archs),
        "ok": sum(row.status == "ok" for row in runs[True][0].rows),
        "timing s": timing_s,
        "export CPU s": mean(True, "export_cpu_s"),
        "workers": workers,
        "limit": "timing" if timing_s > export_s else "exporting",
        "wall s": wall_s,
        "wall / bound": wall_s / bound_s,
        "wall s without": mean(False, "wall_s"),
        "saved": 1 - wall_s / mean(False, "wall_s"),
        "label ratio, median": quartiles[1],
        "quartiles": f"{quartiles[0]:.4f} - {quartiles[2]:.4f}",
        "exports shown": str([run.exports_change_latency for run in runs[True]]),
        "load s": statistics.fmean(run.seconds("load_s") for run in runs[True]),
        "push s": statistics.fmean(run.seconds("push_s") for run in runs[True]),
    }


def cached(space: str, file_format: str, count: int, seed: int, least_ms: float = 0.0) -> list[dict[str, Any]]:
    """Over SSH with everything exported before: in a session that brings the files to the device, and in the next.

    Args:
        least_ms: of all networks, those that take so long.
    """
    archs = networks(space, count, seed, AMONG if least_ms else 2)
    rows = []
    with tempfile.TemporaryDirectory() as text:
        batch = LARGE_BATCH if least_ms else 1
        cache, target = Path(text) / "cache", Target("ssh", RUNTIMES[file_format], batch_size=batch)
        cpus = export_cpus()
        with Exports(ArtifactCache(cache), len(cpus), cpus) as exports:
            wanted = [ExportRequest(space, arch, file_format, batch, seed=seed) for arch in archs]
            wanted += [ExportRequest(SPACE, arch, file_format) for arch in ANCHORS]
            for future in [exports.submit(request) for request in wanted]:
                future.result()

        def folder(name: str) -> Path:
            (Path(text) / name).mkdir()
            return Path(text) / name

        if least_ms:
            with config("ssh", folder("host")) as device:
                labels = Run(folder("quick"), device, target, space, archs, cache, seed=seed, policy="quick").labels
            archs = [arch for arch in archs if labels.get(arch, 0) >= least_ms]
        with config("ssh", folder("new")) as device:
            for files in ("brought", "there") if archs else ():
                run = Run(folder(files), device, target, space, archs, cache, seed=seed)
                found = sorted(run.labels.values())
                rows.append(
                    {
                        "space": space,
                        "format": file_format,
                        "batch": batch,
                        "files": files,
                        "networks": len(found),
                        "latency ms, least": found[0],
                        "median": statistics.median(found),
                        "passes": run.passes,
                        "timing s": run.timing_s,
                        "wall s": run.wall_s,
                        "share of timing": run.timing_s / run.wall_s,
                        "load s": run.seconds("load_s"),
                        "push s": run.seconds("push_s"),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=300, help="0: only with everything in the cache")
    parser.add_argument("--rounds", type=int, default=2, help="runs with overlap, and as many without")
    parser.add_argument("--cached", type=int, default=60, metavar="N", help="networks that are in the cache; 0: none")
    parser.add_argument("--only", choices=DEVICES, help="one device")
    parser.add_argument("--formats", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "overlap.json")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"overlap": [], "cached": []}
    for name in (arguments.only,) if arguments.only else DEVICES if arguments.networks else ():
        for file_format in arguments.formats:
            figures["overlap"].append(
                overlapped(name, file_format, arguments.networks, arguments.rounds, arguments.seed)
            )
            print(figures["overlap"][-1], flush=True)
    for file_format in arguments.formats if arguments.cached else ():
        for space, least_ms in ((SPACE, 0.0), (LARGE_SPACE, LARGE_MS)):
            rows = cached(space, file_format, arguments.cached, arguments.seed, least_ms)
            figures["cached"] += rows
            print(rows, flush=True)
    if figures["overlap"]:
        show(f"Exporting beside timing; to be at most {BOUND} times the bound", figures["overlap"])
    if figures["cached"]:
        show("Over SSH, artifacts in the cache", figures["cached"])
    save(arguments.out, figures)


if __name__ == "__main__":
    main()
