"""Exports by both engines: how many a second, and what is left when workers, a node and the command itself are killed.

    python benchmarks/engines.py [--networks 40] [--killed 60]

It compares `latlab export-models --jobs N` with the same on a Ray cluster of this machine with N processors, on new
folders, in turns; then it exports on a cluster of two nodes and kills, one after the other, a worker, a node, and the
command, which is started again. Needs a clone with its tests, and `pip install latlab[ray]`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, save, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from peers.ray_cluster import Cluster
from waiting import wait_until

FORMATS = ("onnx", "tflite", "torchscript")


def command(to: Path, networks: int, *more: str) -> list[str]:
    words = ["export-models", "--space", "nasbench201", "--count", str(networks), "--format", ",".join(FORMATS)]
    return [sys.executable, "-m", "latlab.harness", *words, "--to", str(to), "--json", *more]


def rate(to: Path, networks: int, *more: str) -> dict[str, Any]:
    """Return how many files a command writes a second, its start included and left out."""
    began = time.monotonic()
    done = subprocess.run(command(to, networks, *more), stdout=subprocess.PIPE, text=True, check=True)
    wall_s = time.monotonic() - began
    found = json.loads(done.stdout)
    times = sorted(path.stat().st_mtime for path in (to / "entries").iterdir())
    return {
        "files": found["new"],
        "wall s": wall_s,
        "files a second": found["new"] / wall_s,
        "after the first file": (len(times) - 1) / (times[-1] - times[0]),
    }


def entries(to: Path) -> int:
    return len(list((to / "entries").glob("[!t]*.json"))) if to.exists() else 0


def killed(folder: Path, networks: int) -> dict[str, Any]:
    """Export while parts are killed, and return what is in the folder at the end."""
    cluster, to = Cluster.on_loopback(folder), folder / "networks"
    total = networks * len(FORMATS)
    begun = 0

    def start() -> subprocess.Popen[str]:
        nonlocal begun
        begun += 1
        pipe = subprocess.PIPE
        words = command(to, networks, "--engine", "ray")
        return subprocess.Popen(words, env=cluster.environment, stdout=pipe, stderr=pipe, text=True)

    try:
        cluster.start_nodes()
        running = start()
        for share, kill in ((0.15, "worker"), (0.3, "command"), (0.5, "node")):
            wait_until(lambda: entries(to) > share * total or running.poll() is not None, "it is stuck", 600)  # noqa: B023
            print(f"{entries(to)} of {total} files: the {kill} is killed", file=sys.stderr)
            if kill == "worker":
                wait_until(lambda: cluster.processes("ray::_call"), "no worker is busy", 60)
                os.kill(cluster.processes("ray::_call")[0], signal.SIGKILL)
            elif kill == "command":
                running.kill()
                running.communicate()
                running = start()
            else:
                os.kill(max(cluster.processes("raylet/raylet ")), signal.SIGKILL)
        said = running.communicate()[1]
        while running.returncode and begun < 5:  # the node may have been the one that the command stands on
            print(said.splitlines()[-2:], file=sys.stderr)
            running = start()
            said = running.communicate()[1]
    finally:
        cluster.stop()
    with (to / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    whole = sum(
        hashlib.sha256((to / row["file"]).read_bytes()).hexdigest() == row["sha256"] for row in rows if row["file"]
    )
    return {
        "asked for": total,
        "rows": len(rows),
        "different networks and formats": len({(row["arch"], row["format"]) for row in rows}),
        "whole files": whole,
        "commands": begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=40, help="networks of each timed export")
    parser.add_argument("--killed", type=int, default=60, help="networks of the export with kills")
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    jobs = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for turn in range(arguments.turns):
            for engine in ("local", "ray"):
                to = Path(name) / f"{engine}-{turn}"
                found = rate(to, arguments.networks, "--engine", engine, "--jobs", str(jobs))
                rows.append({"engine": engine, **found})
                print(rows[-1], file=sys.stderr)
        show(f"Exports by {jobs} processes", rows)
        after = killed(Path(name), arguments.killed)
    show("Worker, command and node killed", [after])
    save(RESULTS / "engines.json", {"rows": rows, "killed": after})


if __name__ == "__main__":
    main()
