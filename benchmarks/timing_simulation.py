"""Figure 1: whether error bars are true and verdicts right, where the truth is known.

    python benchmarks/timing_simulation.py [--networks 2000] [--others 400] [--workers 2]

Simulated devices (`harness/transports/simulated`) time sessions of 100 networks under each preset, with the functions
that real devices and the engine use: the worker's `time` verb with its rules, `needs_pass` for when a network is done,
`estimate_noise` for what networks teach about each other, `summarise` for latencies and intervals, `judge` for
verdicts. Passes of a network lie apart as the engine spreads them, with other networks' runs in between. The truth
is the process's own 10 % trimmed mean over a run of some hours, for drift and heat at the speed that the device had
while it timed the network.

Columns, in percent where nothing else is said: `covered` of the rows that are not "noisy", and `covered_all`;
`covered_or_flagged`, with any verdict; the share of each verdict; `false`, of verdicts but "noisy" where nothing but
noise happens; `caught`, of the `hit` rows, those with any verdict. Hit are rows whose speed changed by more than 2 %
from their first sample to their last, or that ran with a throttled clock where the device tells of it.
`drift_found`: sessions whose drift `fit_drift` finds, which then takes it out. `half` is the median half-width.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from common import RESULTS, save, show

from latlab.agents.protocol.messages import Fields
from latlab.harness.measurement.scheduler import SPACING_S
from latlab.harness.statistics.drift import Observation, fit_drift
from latlab.harness.statistics.estimators import needs_pass, summarise, trimmed_mean, winsorised_stderr
from latlab.harness.statistics.pooled_variance import NoiseEstimator, estimate_noise
from latlab.harness.statistics.verdicts import KINDS, judge, judge_together, usual_clock_mhz
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.simulated.device import Device
from latlab.harness.transports.simulated.latency_process import LatencyProcess
from latlab.harness.transports.simulated.loaded_models import SimulatedModels
from latlab.search_spaces import get

SPACE = "nasbench201"
ARCH = get(SPACE).references()[0].text
BASE_MS = 50.0
"""The table that the device looks it up in says so."""
SESSION = 100
"""Networks of a session."""
TRUTH_TRIM = 0.1
TRUTH_RUNS, TRUTH_SAMPLES = 4, 100_000
CHANGED_PERCENT = 2.0


class Case(NamedTuple):
    """What disturbs the device."""

    noise: dict[str, Any]
    heating: dict[str, Any] | None = None
    told: bool = False
    """Whether the device tells clock, temperature and throttling; else the samples must."""
    steady: bool = False
    """Nothing happens but noise: every verdict but "noisy" is a false alarm."""


QUIET = {"sigma": 0.01, "autocorrelation": 0.3}
HOT = {"watts": 4.0, "ambient_c": 60.0, "c_per_watt": 8.5, "time_constant_s": 60.0, "throttle_factor": 1.5}
CASES = {
    **{
        f"{name}, sigma {100 * sigma:.0f} %": Case({"sigma": sigma, "autocorrelation": phi}, steady=True)
        for name, phi in (("white", 0.0), ("AR(1) .3", 0.3), ("AR(1) .6", 0.6))
        for sigma in (0.01, 0.02, 0.04)
    },
    "bursts, 2 % of the time": Case({**QUIET, "bursts": {"per_minute": 3.0, "seconds": 0.5, "factor": 1.6}}),
    "bursts, 14 % of the time": Case({**QUIET, "bursts": {"per_minute": 20.0, "seconds": 0.5, "factor": 1.6}}),
    "two clocks, quick": Case({**QUIET, "slow_clock": {"share": 0.3, "factor": 1.3, "dwell_s": 0.1}}),
    "two clocks, slow": Case({**QUIET, "slow_clock": {"share": 0.3, "factor": 1.3, "dwell_s": 2.0}}),
    "drift, 100 %/h": Case({**QUIET, "drift_percent_per_hour": 100.0}),
    "drift, 1000 %/h": Case({**QUIET, "drift_percent_per_hour": 1000.0}),
    "heat, told": Case(QUIET, HOT, told=True),
    "heat, not told": Case(QUIET, HOT),
}


@dataclass
class Network:
    records: list[RecordedPass] = field(default_factory=list)
    timed_s: float = 0.0
    hit: bool = False
    due: int = 0
    last_s: float = -1e9
    speeds: list[float] = field(default_factory=list)

    @property
    def passes(self) -> list[Sequence[int]]:
        return [record.samples_ns for record in self.records]


class Timer:
    """A simulated worker with one network loaded."""

    def __init__(self, case: Case, seed: int, folder: Path) -> None:
        table, file = folder / "table.csv", folder / "network.onnx"
        if not file.exists():
            table.write_text(f"arch,latency_ms\n{ARCH},{BASE_MS}\n")
            file.write_bytes(b"\x08" * 8)
        config = SimulatedDevice(kind="ideal", seed=seed, noise=case.noise, heating=case.heating, table=table)
        self.device = Device("simulated", config)
        self._told = case.told
        self._networks = SimulatedModels(self.device)
        digest = sha256(file.read_bytes()).hexdigest()
        self.device.storage.receive(file, digest)
        self.device.storage.put(digest, 8, ".onnx")
        what = {"sha256": digest, "suffix": ".onnx", "runtime": "onnxruntime", "accelerator": "cpu", "threads": 1}
        self._handle = self._networks.load(Fields({**what, "seed": 0, "network": f"{SPACE}/{ARCH}"}))["handle"]

    def time(self, network: Network, policy: TimingPolicy) -> None:
        process = self.device.process
        asked = Fields({"handle": self._handle, "deadline_s": 86400, **policy.pass_request().to_fields()})
        before = process.slowdown
        reply = self._networks.time(asked)
        telemetry = reply["telemetry"] if self._told else {}
        if self._told and reply.get("throttled"):
            telemetry = {**telemetry, "throttled": True}
        hot = process.heat is not None and (process.heat.throttled or reply.get("throttled", False))
        network.hit = network.hit or hot
        network.speeds += [before, process.slowdown]
        network.records.append(RecordedPass([], reply["samples_ns"], {**telemetry, "at_s": reply["at_s"]}))
        network.timed_s += (sum(reply["warmup_ns"]) + sum(reply["samples_ns"])) * reply.get("calls", 1) / 1e9
        network.last_s = process.now_s


def session(case: Case, policy: TimingPolicy, seed: int, folder: Path) -> list[Network]:
    """The engine's schedule: in each round a newcomer, and all whose turn it is, in random order."""
    timer, rng = Timer(case, seed, folder), random.Random(seed)
    active: list[Network] = []
    done: list[Network] = []
    learning = NoiseEstimator(policy.trim)
    begun = round_ = 0
    while begun < SESSION or active:
        if begun < SESSION:
            active.append(Network(due=round_))
            begun += 1
        elif policy.spread > 1:
            first_s = min(network.last_s for network in active)
            timer.device.process.rest(first_s + SPACING_S - timer.device.process.now_s)
        due = [network for network in active if network.due <= round_]
        rng.shuffle(due)
        for network in due:
            timer.time(network, policy)
            network.due = round_ + policy.spread
            if not needs_pass(network.passes, policy, network.timed_s, learning.model):
                active.remove(network)
                done.append(network)
                learning.add(network.passes)
        round_ += 1
        if begun == SESSION and active:
            round_ = max(round_, min(network.due for network in active))
    return done


@cache
def truth_ms(name: str) -> float:
    """The 10 % trimmed mean of a device at its usual speed."""
    noise = SimulatedDevice(kind="ideal", noise={**CASES[name].noise, "drift_percent_per_hour": 0.0}).noise
    runs = [LatencyProcess(noise, None, (seed, 99)).samples(BASE_MS, TRUTH_SAMPLES) for seed in range(TRUTH_RUNS)]
    return trimmed_mean(np.concatenate(runs).tolist(), TRUTH_TRIM)


def changing(case: Case) -> bool:
    return case.heating is not None or "drift_percent_per_hour" in case.noise


def drift_found(networks: Sequence[Network], trim: float) -> bool | None:
    points = [
        Observation(
            record.at_s,
            number,
            math.log(trimmed_mean(record.samples_ns, trim)),
            winsorised_stderr(record.samples_ns, trim) / trimmed_mean(record.samples_ns, trim),
        )
        for number, network in enumerate(networks)
        for record in network.records
    ]
    return fit_drift(points).significant if len(points) > len(networks) else None


def measure(name: str, preset: str, seed: int) -> list[dict[str, Any]]:
    """One session: what is counted of each row."""
    case, policy = CASES[name], PRESETS[preset]
    with tempfile.TemporaryDirectory() as folder:
        networks = session(case, policy, crc32(f"{name} {seed}".encode()), Path(folder))
    usual_mhz = usual_clock_mhz([record.telemetry for network in networks for record in network.records])
    found = drift_found(networks, policy.trim) if changing(case) and not case.heating else None
    noise_model = estimate_noise([network.passes for network in networks], policy.trim)
    verdicts = judge_together([judge(network.records, policy, usual_mhz, noise_model) for network in networks])
    rows = []
    for network, verdict in zip(networks, verdicts, strict=True):
        summary = summarise(network.passes, policy.trim, noise_model)
        true_ms = truth_ms(name) * (fmean(network.speeds) if changing(case) else 1.0)
        changed = max(network.speeds) / min(network.speeds) - 1 > CHANGED_PERCENT / 100
        rows.append(
            {
                "kind": verdict.kind,
                "covered": summary.low_ms <= true_ms <= summary.high_ms,
                "error": summary.latency_ms / true_ms - 1,
                "half": summary.relative_half_width,
                "device_s": network.timed_s,
                "passes": summary.passes,
                "hit": changing(case) and (changed or (case.told and network.hit)),
                "drift_found": found,
            }
        )
    return rows


def percent(values: Sequence[bool]) -> float | None:
    return 100 * float(np.mean(values)) if len(values) else None


def figures(name: str, preset: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table: percent, but for seconds and passes."""
    kinds = Counter(row["kind"] for row in rows)
    hit = [bool(row["kind"]) for row in rows if row["hit"]]
    errors = np.array([row["error"] for row in rows])
    return {
        "preset": preset,
        "device": name,
        "rows": len(rows),
        "covered": percent([row["covered"] for row in rows if row["kind"] != "noisy"]),
        "covered_all": percent([row["covered"] for row in rows]),
        "covered_or_flagged": percent([row["covered"] or bool(row["kind"]) for row in rows]),
        **{kind: 100 * kinds[kind] / len(rows) for kind in KINDS if kind},
        "false": percent([row["kind"] not in ("", "noisy") for row in rows]) if CASES[name].steady else None,
        "hit": len(hit) if changing(CASES[name]) else None,
        "caught": percent(hit),
        "drift_found": percent([row["drift_found"] for row in rows if row["drift_found"] is not None]),
        "bias": 100 * float(np.mean(errors)),
        "rmse": 100 * float(np.sqrt(np.mean(errors**2))),
        "half": 100 * float(np.median([row["half"] for row in rows])),
        "device_s": float(np.mean([row["device_s"] for row in rows])),
        "passes": float(np.mean([row["passes"] for row in rows])),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--networks", type=int, default=2000, help="of each preset of several passes on each steady device"
    )
    parser.add_argument("--others", type=int, default=400, help="the same of the others")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--cases", default="", help="only devices whose names begin so")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "timing_simulation.json")
    arguments = parser.parse_args()
    began = time.monotonic()
    lines = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = {}
        for preset in arguments.presets:
            for name, case in CASES.items():
                if name.startswith(arguments.cases):
                    several = PRESETS[preset].most_passes > 1
                    count = arguments.networks if case.steady and several else arguments.others
                    seeds = range(max(1, count // SESSION))
                    jobs[preset, name] = [pool.submit(measure, name, preset, seed) for seed in seeds]
        for (preset, name), futures in jobs.items():
            lines.append(figures(name, preset, [row for future in futures for row in future.result()]))
    for preset in arguments.presets:
        show(preset, [{k: v for k, v in line.items() if k != "preset"} for line in lines if line["preset"] == preset])
    took_s = time.monotonic() - began
    print(f"{took_s:.0f} s")
    policies = {name: PRESETS[name].hash() for name in arguments.presets}
    save(arguments.out, {"base_ms": BASE_MS, "policies": policies, "took_s": round(took_s), "lines": lines})


if __name__ == "__main__":
    main()
