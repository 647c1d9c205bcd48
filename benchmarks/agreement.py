"""Figure 3: latlab reports the latency that other ways of timing find, too.

    python benchmarks/agreement.py

Networks of three spaces, from the quickest to the slowest of a random sample, are timed by latlab and without it in
a process of its own (`bare_process.py`): TorchScript by `torch.utils.benchmark` (`blocked_autorange`), ONNX Runtime and
the TFLite interpreter in a bare loop. Both run on the same CPU with one thread. latlab's side is a pass of its default
policy, through device session, protocol and worker.

The two sides take turns, network by network, because the machine's speed wanders. A turn lasts some milliseconds, so
that a disturbance of one side soon hits the other, and the side that begins changes. Each round has two fresh
processes, because the memory layout that a process happens to get at its start stays for life and changes its speed.
For each network the medians of all samples of each side are compared. The same ratio between latlab's own even and odd
rounds shows how much the machine alone varies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import RESULTS, save, show

from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ArtifactCache, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports.local.config import LocalDevice
from latlab.search_spaces import get

OTHERS = {
    "torchscript": "torch.utils.benchmark",
    "onnxruntime": "a bare ONNX Runtime loop",
    "tflite": "a bare interpreter loop",
}
SPACES = {"nasbench201": 20, "fbnet": 5, "ofa-mobilenetv3": 5}
CANDIDATES = 200
"""Random networks of a space, of which those compared are chosen by their multiplications."""
ACCEPTED = (0.98, 1.02)


class Latlab:
    """The side that times with latlab: a device session on this machine."""

    def __init__(self, device: LocalDevice, target: Target, policy: TimingPolicy) -> None:
        self._policy = policy
        self._session = DeviceSession("local", device, target)
        self._session.__enter__()
        self._loaded: list[Any] = []

    def load(self, artifact: Artifact) -> None:
        self._loaded.append(self._session.load(artifact))

    def time(self, number: int) -> list[int]:
        return self._session.time(self._loaded[number], self._policy).samples_ns

    def close(self) -> None:
        self._session.__exit__()


class Bare:
    """The side that times without latlab: a process of `bare_process.py`."""

    def __init__(self, target: Target, cpus: Sequence[int], policy: TimingPolicy) -> None:
        program = Path(__file__).with_name("bare_process.py")
        command = [sys.executable, str(program), target.runtime, str(target.threads), ",".join(map(str, cpus))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._asked = {"warmup": policy.warmup, "runs": policy.runs}
        self._handles: list[int] = []
        self.calls: dict[int, int] = {}
        """Calls per sample of each network; the other way of timing may need more than one."""

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def load(self, artifact: Artifact) -> None:
        self._handles.append(self._ask(path=str(artifact.path), shape=artifact.input_shape, seed=0)["handle"])

    def time(self, number: int) -> list[int]:
        reply = self._ask(handle=self._handles[number], **self._asked)
        self.calls[number] = int(reply["calls"])
        return list(reply["samples_ns"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def networks(counts: dict[str, int], seed: int) -> list[tuple[str, str]]:
    """Return pairs of space and architecture: evenly spaced in a random sample that is sorted by multiplications."""
    chosen = []
    for name, count in counts.items():
        space = get(name)
        ordered = sorted(
            space.sample(CANDIDATES, seed), key=lambda arch: sum(layer.macs for layer in space.layers(arch, live=True))
        )
        chosen += [(name, ordered[round((number + 0.5) * CANDIDATES / count)].text) for number in range(count)]
    return chosen


def compare(target: Target, artifacts: Sequence[Artifact], arguments: argparse.Namespace, work: Path) -> list[Any]:
    """Return a row per network: pooled medians in ms of both sides, and their ratio."""
    device, policy = LocalDevice(work=work), PRESETS[arguments.policy]
    cpus = device.timing_cpus(sorted(os.sched_getaffinity(0)), target.threads) or sorted(os.sched_getaffinity(0))
    rng = random.Random(arguments.seed)
    rounds: dict[str, list[list[list[int]]]] = {name: [[] for _ in artifacts] for name in ("latlab", "other")}
    calls: list[list[int]] = [[] for _ in artifacts]
    for number in range(arguments.rounds):
        bare = Bare(target, cpus, policy)
        sides: dict[str, Latlab | Bare] = {"latlab": Latlab(device, target, policy), "other": bare}
        try:
            for artifact in artifacts:
                for side in sides.values():
                    side.load(artifact)
            for turn in range(arguments.turns):
                for index in rng.sample(range(len(artifacts)), len(artifacts)):
                    for name in sorted(sides, reverse=(number + turn) % 2 == 1):
                        rounds[name][index].append(sides[name].time(index))
            for index, found in bare.calls.items():
                calls[index].append(found)
        finally:
            for side in sides.values():
                side.close()
    rows = []
    for index in range(len(artifacts)):
        mine = rounds["latlab"][index]
        latlab, other = pooled_median(mine), pooled_median(rounds["other"][index])
        even = pooled_median([one for place, one in enumerate(mine) if place // arguments.turns % 2 == 0])
        odd = pooled_median([one for place, one in enumerate(mine) if place // arguments.turns % 2 == 1])
        row = {"latlab_ms": latlab / 1e6, "other_ms": other / 1e6, "ratio": latlab / other, "itself": even / odd}
        rows.append({**row, "calls": median(calls[index])})
    return rows


def pooled_median(rounds: Sequence[Sequence[int]]) -> float:
    return median(sample for samples in rounds for sample in samples)


def summary(runtime: str, rows: Sequence[dict[str, Any]], took_s: float) -> dict[str, Any]:
    ratios, own = [row["ratio"] for row in rows], [row["itself"] for row in rows]
    blocks = [row["ratio"] for row in rows if row["calls"] > 1]
    single = [row["ratio"] for row in rows if row["calls"] <= 1]
    return {
        "runtime": runtime,
        "against": OTHERS[runtime],
        "networks": len(rows),
        "ms": f"{min(row['other_ms'] for row in rows):.2f} .. {max(row['other_ms'] for row in rows):.1f}",
        "ratio": round(median(ratios), 4),
        "5-95 %": f"{np.quantile(ratios, 0.05):.4f} .. {np.quantile(ratios, 0.95):.4f}",
        "where a sample is one call": f"{median(single):.4f} ({len(single)})" if single else None,
        "a mean of calls": f"{median(blocks):.4f} ({len(blocks)})" if blocks else None,
        "latlab itself, 5-95 %": f"{np.quantile(own, 0.05):.4f} .. {np.quantile(own, 0.95):.4f}",
        "accepted": ACCEPTED[0] <= median(ratios) <= ACCEPTED[1],
        "seconds": round(took_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", nargs="+", choices=list(OTHERS), default=list(OTHERS))
    parser.add_argument("--rounds", type=int, default=12, help="pairs of fresh processes")
    parser.add_argument("--turns", type=int, default=2, help="of each side with each network, in each round")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth of the networks")
    parser.add_argument("--policy", choices=sorted(PRESETS), default="default", help="whose passes latlab makes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "agreement.json")
    arguments = parser.parse_args()
    chosen = networks(SPACES, arguments.seed)[:: arguments.every]
    summaries, details = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for runtime in arguments.runtime:
            target = Target("local", runtime, "cpu", threads=1)
            with Exports(ArtifactCache(folder / "artifacts"), os.cpu_count() or 1) as exports:
                futures = [exports.submit(ExportRequest(space, arch, target.format)) for space, arch in chosen]
                artifacts = [future.result() for future in futures]
            started = time.perf_counter()
            rows = compare(target, artifacts, arguments, folder / "worker")
            details[runtime] = [
                {"space": space, "arch": arch, **row} for (space, arch), row in zip(chosen, rows, strict=True)
            ]
            summaries.append(summary(runtime, rows, time.perf_counter() - started))
            show("", summaries[-1:])
    show("latlab / others: ratio of pooled medians over networks", summaries)
    options = {key: value for key, value in vars(arguments).items() if key not in ("out", "runtime")}
    save(arguments.out, {"options": options, "summary": summaries, "networks": details})


if __name__ == "__main__":
    main()
