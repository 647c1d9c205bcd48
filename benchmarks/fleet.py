"""What the controller costs: many simulated devices on one core, and how busy it keeps a few.

    python benchmarks/fleet.py                     # 1,000 devices x 100 networks, and 8 devices at their own pace
    python benchmarks/fleet.py --devices 50 --networks 20
    python benchmarks/fleet.py --devices 0         # without the many; their figures stay as they are in the file

Networks are exported beforehand: this is about scheduler and store. Rows are counted in the store afterwards. The
overhead of a measurement is what it takes on the clock, less what the worker says that it spent in the runtime:
importing and loading it, its first inference, warm-up and samples. It is taken over SSH to this machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, save, show
from loopback import loopback_ssh

from latlab.harness.fleet.jobs import Incident, RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.store.store import Measurement
from latlab.harness.transports import Transport
from latlab.harness.transports.simulated.config import SimulatedDevice

SPACE = "nasbench201"


def lab_of(folder: Path, devices: dict[str, SimulatedDevice]) -> Lab:
    lab = Lab(folder / "latlab.db")
    lab.inventory = Inventory(devices)
    return lab


def export_first(networks: int, seed: int) -> None:
    """Fill the cache, by measuring them once on a device of their own."""
    with tempfile.TemporaryDirectory() as folder:
        lab_of(Path(folder), {"first": SimulatedDevice()}).measure("all", space=SPACE, count=networks, seed=seed)


def scale(devices: int, networks: int, policy: str, seed: int) -> dict[str, object]:
    """Devices that answer at once: the rate is the controller's own, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        lab = lab_of(Path(folder), {f"sim{n:04}": SimulatedDevice(seed=n) for n in range(devices)})
        events = {"rows": 0, "incidents": 0}

        def observe(event: Measurement | Incident) -> None:
            events["incidents" if isinstance(event, Incident) else "rows"] += 1

        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        lab.measure(
            "all",
            space=SPACE,
            count=networks,
            policy=policy,
            seed=seed,
            raw=False,
            listener=RunListener(observe=observe),
        )
        wall_s = time.perf_counter() - start
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        table = lab.store.table()
        rows, distinct = len(table), len(table[["target", "arch"]].drop_duplicates())
        size_mb = lab.store.path.stat().st_size / 1e6
    return {
        "devices": devices,
        "networks each": networks,
        "policy": policy,
        "rows": rows,
        "lost": devices * networks - distinct,
        "duplicates": rows - distinct,
        "not ok": int((table["status"] != "ok").sum()),
        "incidents": events["incidents"],
        "wall_s": wall_s,
        "rows_per_s": rows / wall_s,
        "peak_mb": peak_mb,
        "before_mb": before_mb,
        "store_mb": size_mb,
    }


def busy(devices: int, networks: int, seed: int) -> list[dict[str, object]]:
    """Devices that take the time that they say: which share of it they are timing, with the loading that they do."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = ("phone", "pi4", "server", "phone")
        configs = {
            f"sim{n}": SimulatedDevice(seed=n, pace=1.0, rest_ms=0, kind=kinds[n % len(kinds)])  # type: ignore[arg-type]
            for n in range(devices)
        }
        lab = lab_of(Path(folder), configs)
        ended: dict[str, float] = {}
        start = time.perf_counter()

        def observe(event: Measurement | Incident) -> None:
            if isinstance(event, Measurement):
                ended[event.campaign_id] = time.perf_counter() - start

        lab.measure("all", space=SPACE, count=networks, seed=seed, raw=False, listener=RunListener(observe=observe))
        table = lab.store.table()
    shown = []
    for target, own in table.groupby("target"):
        wall_s = ended[own["campaign"].iloc[0]]
        device_s = float((own["warm_s"] + own["measure_s"] + own["load_s"]).sum())
        shown.append(
            {
                "device": str(target).partition("/")[0],
                "median latency_ms": float(own["latency_ms"].median()),
                "rows": len(own),
                "timing_s": float((own["warm_s"] + own["measure_s"]).sum()),
                "wall_s": wall_s,
                "busy_percent": 100 * device_s / wall_s,
            }
        )
    return shown


def overhead(networks: int, policy: str, seed: int) -> dict[str, object]:
    """One device over SSH to this machine, whose networks are exported and on the device already."""
    in_runtime_s = [0.0]
    request = Transport.request

    def counted(self: Transport, verb: str, timeout_s: float, **fields: object) -> dict[str, Any]:
        reply = request(self, verb, timeout_s, **fields)
        if verb == "load":
            in_runtime_s[0] += (reply["import_ns"] + reply["load_ns"] + reply["first_ns"]) / 1e9
        elif verb == "time":
            in_runtime_s[0] += (sum(reply["warmup_ns"]) + sum(reply["samples_ns"])) / 1e9
        return reply

    with tempfile.TemporaryDirectory() as folder, loopback_ssh(Path(folder)) as device:
        lab = Lab(Path(folder) / "latlab.db")
        lab.inventory = Inventory({"here": device})
        lab.measure("here", space=SPACE, count=networks, policy=policy, seed=seed, raw=False)
        marks: list[tuple[float, float]] = []

        def observe(event: Measurement | Incident) -> None:
            marks.append((time.perf_counter(), in_runtime_s[0]))

        Transport.request = counted  # type: ignore[method-assign]
        try:
            lab.measure(
                "here",
                space=SPACE,
                count=networks,
                policy=policy,
                seed=seed,
                new_session=True,
                raw=False,
                listener=RunListener(observe=observe),
            )
        finally:
            Transport.request = request  # type: ignore[method-assign]
    gaps_ms = [1e3 * ((b[0] - a[0]) - (b[1] - a[1])) for a, b in itertools.pairwise(marks)]
    return {
        "policy": policy,
        "rows": len(marks),
        "median overhead_ms": statistics.median(gaps_ms),
        "mean overhead_ms": statistics.fmean(gaps_ms),
        "p90 overhead_ms": sorted(gaps_ms)[int(0.9 * len(gaps_ms))],
        "median row_ms": statistics.median(1e3 * (b[0] - a[0]) for a, b in itertools.pairwise(marks)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--busy", type=int, default=8, help="devices at their own pace; 0: leave that part out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "fleet.json")
    options = parser.parse_args()
    figures: dict[str, object] = json.loads(options.out.read_text()) if options.out.exists() else {}
    export_first(max(options.networks, 40), options.seed)
    figures["overhead"] = rows = [overhead(100, policy, options.seed) for policy in ("help", "default")]
    show("overhead of a measurement, over SSH to this machine", rows)
    if options.busy:
        figures["busy"] = rows = busy(options.busy, 40, options.seed)
        show(f"{options.busy} simulated devices at their own pace", rows)
    if options.devices:
        figures["scale"] = row = scale(options.devices, options.networks, options.policy, options.seed)
        show("simulated devices that answer at once, on one core", [row])
    save(options.out, figures)


if __name__ == "__main__":
    main()
