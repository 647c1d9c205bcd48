"""Searches on this machine for real: does the winner keep its limit when it is measured again in new sessions?

    python benchmarks/search_here.py ofa_accuracy_predictor.npz [--runtimes onnxruntime tflite torchscript]
        [--over local ssh] [--quantiles 0.15 0.35 0.6] [--confidence 0.9] [--budget 30] [--checks 3]

Each target starts in an empty store, as an unknown device. It is onboarded first; the limits are quantiles of the
latencies that are then predicted for random networks of OFA-MobileNetV3. Each winner is measured again in new sessions,
which the search does not know. `ssh` is this machine, too, through a real sshd that the script starts; it needs a clone
of the repository. Figures of targets that are not run are kept in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, save, show
from loopback import inventory

from latlab.harness import Lab
from latlab.harness.search.result import SearchResult
from latlab.search_spaces import get

SPACE = "ofa-mobilenetv3"
ONBOARDING = 15


def checked(lab: Lab, target: str, arch: str, checks: int) -> list[float]:
    """Return the latency of a network in each of so many new sessions, in ms."""
    found = []
    for _ in range(checks):
        rows = lab.measure(target, space=SPACE, archs=[arch], new_session=True).rows
        found.append(float(rows["latency_ms"].iloc[0]))
    return found


def row_of(result: SearchResult, limit: float, wall_s: float, again: list[float]) -> dict[str, Any]:
    winner = result.winner
    latency = winner.latencies[0] if winner is not None else None
    return {
        "limit ms": limit,
        "found": str(result.found),
        "accuracy": winner.accuracy if winner is not None else None,
        "predicted ms": latency.predicted_ms if latency is not None else None,
        "measured ms": latency.measured_ms if latency is not None else None,
        "again ms": ", ".join(f"{one:.2f}" for one in again),
        "kept again": f"{sum(one <= limit for one in again)} of {len(again)}",
        "measured networks": result.costs.measured,
        "measuring s": result.costs.measuring_s,
        "wall s": wall_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accuracy", type=Path, help="the weights of OFA's accuracy predictor")
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "tflite", "torchscript"])
    parser.add_argument("--over", nargs="+", choices=["local", "ssh"], default=["local"])
    parser.add_argument("--quantiles", nargs="+", type=float, default=[0.15, 0.35, 0.6])
    parser.add_argument("--confidence", type=float, default=0.9)
    parser.add_argument("--budget", type=int, default=30)
    parser.add_argument("--checks", type=int, default=3, help="new sessions in which each winner is measured")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_here.json")
    arguments = parser.parse_args()
    accuracy, out = arguments.accuracy.absolute(), arguments.out.absolute()
    targets = [f"{over}/{runtime}/cpu/fp32/t1/b1" for over in arguments.over for runtime in arguments.runtimes]
    rows = json.loads(out.read_text())["rows"] if out.exists() else []
    rows = [row for row in rows if row["target"] not in targets]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        os.chdir(name)
        files = {over: inventory(over, Path(name) / over, stack) for over in arguments.over}
        for target in targets:
            place = target.replace("/", "-")
            lab = Lab(f"{place}.db", inventory=files[target.split("/")[0]])
            began = time.monotonic()
            lab.onboard(target, space=SPACE, budget=ONBOARDING, out=f"{place}-onboarding")
            onboarding_s = time.monotonic() - began
            predictor = lab.predictor(target, space=SPACE)
            drawn = get(SPACE).sample(1000, 0)
            limits = np.quantile(predictor.predict(drawn).mean_ms, arguments.quantiles).round(1).tolist()
            for limit in limits:
                began = time.monotonic()
                result = lab.search(
                    target,
                    space=SPACE,
                    max_latency_ms=limit,
                    accuracy=accuracy,
                    confidence=arguments.confidence,
                    budget=arguments.budget,
                    out=f"{place}-{limit}",
                )
                wall_s = time.monotonic() - began
                again = checked(lab, target, result.winner.arch, arguments.checks) if result.winner else []
                row = row_of(result, limit, wall_s, again)
                rows.append({"target": target, "confidence": arguments.confidence, "onboarding s": onboarding_s, **row})
                show("Searches on this machine", rows)
                save(out, {"rows": rows})


if __name__ == "__main__":
    main()
