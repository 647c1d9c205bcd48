"""Figure 4: the latency that latlab reports is the network's.

    python benchmarks/bare_loop.py

Random NAS-Bench-201 networks, timed by latlab's worker and by a bare loop over the same runtime in a process of its own
(`bare_process.py`), on the same CPU with the same threads. The two take turns, because the machine's speed wanders:
a turn is short (a few warm-up runs and ten samples, some milliseconds), so that what disturbs one side soon
disturbs the other, and who goes first changes every round. For each network the medians of all samples of each side
are compared. The same ratio between latlab's own even and odd rounds shows what the machine's noise alone does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, save, show

from latlab.agents.statistics import quantile
from latlab.harness.exporters import Artifact, ArtifactCache, ExportPool, ExportRequest
from latlab.harness.targets import RUNTIME_FORMATS
from latlab.harness.transports.local import LocalTransport
from latlab.search_spaces import get

ACCEPTED = (0.97, 1.03)
REQUEST_S = 120.0


class Latlab:
    """Through the worker, the protocol and the local transport."""

    def __init__(self, runtime: str, threads: int, cpus: list[int], work: Path) -> None:
        self._load = {"runtime": runtime, "accelerator": "cpu", "threads": threads, "affinity": cpus, "seed": 0}
        self._transport = LocalTransport(work=work)
        self._transport.start()
        self._transport.request("hello", REQUEST_S, protocol=1)

    def load(self, artifact: Artifact) -> int:
        sha256, suffix = artifact.sha256, artifact.path.suffix
        self._transport.push(artifact.path, sha256, suffix)
        shape = list(artifact.input_shape)
        reply = self._transport.request(
            "load", REQUEST_S, sha256=sha256, suffix=suffix, input_shape=shape, **self._load
        )
        return int(reply["handle"])

    def time(self, handle: int, warmup: int, runs: int) -> list[int]:
        reply = self._transport.request(
            "time", REQUEST_S, handle=handle, warmup=warmup, runs=runs, deadline_s=REQUEST_S
        )
        return list(reply["samples_ns"])

    def close(self) -> None:
        self._transport.close()


class Bare:
    """Without latlab."""

    def __init__(self, runtime: str, threads: int, cpus: list[int]) -> None:
        program = Path(__file__).with_name("bare_process.py")
        command = [sys.executable, str(program), runtime, str(threads), ",".join(map(str, cpus))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return reply

    def load(self, artifact: Artifact) -> int:
        return int(self._ask({"path": str(artifact.path), "shape": artifact.input_shape, "seed": 0})["handle"])

    def time(self, handle: int, warmup: int, runs: int) -> list[int]:
        return list(self._ask({"handle": handle, "warmup": warmup, "runs": runs})["samples_ns"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def compare(runtime: str, artifacts: list[Artifact], arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """One row per network: pooled medians in ms of both sides, and their ratio."""
    cpus = sorted(os.sched_getaffinity(0))[-arguments.threads :]
    sides = {"latlab": Latlab(runtime, arguments.threads, cpus, work), "bare": Bare(runtime, arguments.threads, cpus)}
    rng = random.Random(arguments.seed)
    try:
        handles = {name: [side.load(artifact) for artifact in artifacts] for name, side in sides.items()}
        rounds: dict[str, list[list[list[int]]]] = {name: [[] for _ in artifacts] for name in sides}
        for number in range(arguments.rounds):
            for index in rng.sample(range(len(artifacts)), len(artifacts)):
                for name in sorted(sides, reverse=number % 2 == 1):
                    samples = sides[name].time(handles[name][index], arguments.warmup, arguments.runs)
                    rounds[name][index].append(samples)
    finally:
        for side in sides.values():
            side.close()
    rows = []
    for index, artifact in enumerate(artifacts):
        mine = rounds["latlab"][index]
        latlab, bare = pooled_median(mine), pooled_median(rounds["bare"][index])
        itself = pooled_median(mine[::2]) / pooled_median(mine[1::2])
        row = {"latlab_ms": latlab / 1e6, "bare_ms": bare / 1e6, "ratio": latlab / bare, "against_itself": itself}
        rows.append({"artifact": artifact.sha256[:12], **row})
    return rows


def pooled_median(rounds: list[list[int]]) -> float:
    return median(sample for samples in rounds for sample in samples)


def summary(runtime: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ratios, own = [row["ratio"] for row in rows], [row["against_itself"] for row in rows]
    middle = median(ratios)
    return {
        "runtime": runtime,
        "networks": len(rows),
        "median_ms": median(row["latlab_ms"] for row in rows),
        "ratio": middle,
        "ratio_quartiles": f"{quantile(ratios, 0.25):.4f} .. {quantile(ratios, 0.75):.4f}",
        "ratio_range": f"{min(ratios):.4f} .. {max(ratios):.4f}",
        "itself_quartiles": f"{quantile(own, 0.25):.4f} .. {quantile(own, 0.75):.4f}",
        "accepted": ACCEPTED[0] <= middle <= ACCEPTED[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", nargs="+", choices=sorted(RUNTIME_FORMATS), default=sorted(RUNTIME_FORMATS))
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each side with each network")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10, help="samples a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "bare_loop.json")
    arguments = parser.parse_args()
    space = get("nasbench201")
    archs = space.sample(arguments.networks, arguments.seed)
    summaries, details = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for runtime in arguments.runtime:
            with ExportPool(ArtifactCache(folder / "artifacts"), workers=os.cpu_count() or 1) as pool:
                requests = [ExportRequest(space.name, arch.text, RUNTIME_FORMATS[runtime]) for arch in archs]
                artifacts = [future.result() for future in [pool.submit(request) for request in requests]]
            rows = compare(runtime, artifacts, arguments, folder / "worker")
            details[runtime] = [{"arch": arch.text, **row} for arch, row in zip(archs, rows, strict=True)]
            summaries.append(summary(runtime, rows))
    show("latlab / bare loop: ratio of pooled medians over networks", summaries)
    options = {key: value for key, value in vars(arguments).items() if key not in ("out", "runtime")}
    save(arguments.out, {"options": options, "summary": summaries, "networks": details})


if __name__ == "__main__":
    main()
