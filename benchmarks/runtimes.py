"""The same networks in every runtime of this machine: latencies in turns, and their ratios to ONNX Runtime's.

    python benchmarks/runtimes.py --networks 10

Each network is exported once for each format (CPU seconds are noted) and stays loaded in all runtimes. In each round,
every runtime runs every network a few times, so that what else happens on the machine reaches all of them alike. A
latency is the median of the rounds; the value of a round is its lower quartile, which a busy neighbour moves least.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import RESULTS, save, show
from scipy.stats import gmean, spearmanr

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.harness.exporters import get_exporter
from latlab.harness.targets import DEFAULT_RUNTIME, RUNTIMES
from latlab.search_spaces import get


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10, metavar="N", help="random networks of NAS-Bench-201")
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="inferences of a network in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    parser.add_argument("--out", type=Path, default=RESULTS / "runtimes.json")
    arguments = parser.parse_args()

    names = [name for name in runtimes.NAMES if is_installed(name)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        files, export_s = export(arguments.networks, arguments.seed, {RUNTIMES[name].format for name in names}, folder)
        sessions = {
            name: [stack.enter_context(open_session(name, path, arguments.threads)) for path in files[name]]
            for name in names
        }
        latency_ms = measure(sessions, arguments.rounds, arguments.runs)
    rows = [row(name, latency_ms, sessions[name], export_s[RUNTIMES[name].format]) for name in names]
    show(f"NAS-Bench-201, {arguments.networks} networks, {arguments.threads} threads", rows)
    save(arguments.out, {"rows": rows, "latency_ms": latency_ms, "threads": arguments.threads})


def is_installed(name: str) -> bool:
    """Say whether a runtime can be imported here."""
    try:
        runtimes.load_runtime(name)
    except AgentError as error:
        print(f"left out: {error}")
        return False
    return True


def export(
    networks: int, seed: int, formats: set[str], folder: str
) -> tuple[dict[str, list[Path]], dict[str, list[float]]]:
    """Return the files by runtime, and by format the CPU seconds of each export."""
    space = get("nasbench201")
    torch.set_num_threads(1)
    written: dict[str, list[Path]] = {kind: [] for kind in formats}
    seconds: dict[str, list[float]] = {kind: [] for kind in formats}
    for number, arch in enumerate(space.sample(networks, seed)):
        module = space.build(arch)
        for kind in sorted(formats):
            exporter = get_exporter(kind)
            path = Path(folder) / f"{number}{exporter.suffix}"
            start = time.process_time()
            exporter.export(module, torch.zeros(1, *space.input_shape(arch)), path)
            seconds[kind].append(time.process_time() - start)
            written[kind].append(path)
    return {name: written[spec.format] for name, spec in RUNTIMES.items() if spec.format in formats}, seconds


def open_session(name: str, path: Path, threads: int) -> runtimes.Session:
    """Return a network loaded in a runtime, with inputs."""
    image = get_exporter(RUNTIMES[name].format).file_shape((1, 3, 32, 32))
    session = runtimes.open(name, path, threads, inputs=[runtimes.InputRequest(shape=image)])
    session.set_inputs(session.random_inputs(0))
    return session


def measure(sessions: dict[str, list[runtimes.Session]], rounds: int, runs: int) -> dict[str, list[float]]:
    """Return the latency in ms of each network in each runtime."""
    values: dict[str, list[list[float]]] = {name: [[] for _ in own] for name, own in sessions.items()}
    for _ in range(rounds):
        for number in range(len(next(iter(sessions.values())))):
            for name, own in sessions.items():
                values[name][number].append(time_once(own[number], runs))
    return {name: [median(one) for one in own] for name, own in values.items()}


def time_once(session: runtimes.Session, runs: int) -> float:
    """Return the lower quartile in ms of some inferences, after a few that are not counted."""
    taken = []
    with session.running() as infer:
        for _ in range(max(3, runs // 10)):
            infer()
        for _ in range(runs):
            start = time.perf_counter_ns()
            infer()
            taken.append(time.perf_counter_ns() - start)
    return float(np.quantile(taken, 0.25)) / 1e6


def row(
    name: str, latency_ms: dict[str, list[float]], own: list[runtimes.Session], export_s: list[float]
) -> dict[str, Any]:
    """Return a row of the table: ratios to ONNX Runtime, and how alike the two rank the networks."""
    usual, mine = np.array(latency_ms[DEFAULT_RUNTIME]), np.array(latency_ms[name])
    ratios = mine / usual
    return {
        "runtime": name,
        "version": own[0].version,
        "provider": own[0].provider,
        "ms, middle": float(np.median(mine)),
        "ratio, mean": float(gmean(ratios)),
        "least": float(ratios.min()),
        "most": float(ratios.max()),
        "Spearman": float(spearmanr(usual, mine).statistic),
        "export, CPU s": median(export_s),
    }


if __name__ == "__main__":
    main()
