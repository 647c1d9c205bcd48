"""Do the operators of a profile add up to an inference? Networks of two spaces, in every runtime that has a profiler.

On a machine that does something else, too, both the operators' means and the passes are disturbed. So there are two
comparisons: the means of the best round with the fastest pass, and typical times with an undisturbed inference.

python benchmarks/profiles.py               # some ten minutes on an idle machine
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from common import RESULTS, save, show

from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.lab import Lab
from latlab.harness.profiling.summary import AGREES, NetworkProfile
from latlab.search_spaces import get

SPACES = ("nasbench201", "fbnet")
RUNTIMES = ("onnxruntime", "tflite", "torchscript")


def profiles(lab: Lab, runtime: str, count: int, seed: int) -> list[NetworkProfile]:
    """Return profiles of `count` random networks, half of them of each space."""
    found = []
    for space in SPACES:
        for arch in get(space).sample(count // len(SPACES), seed):
            options = TargetOptions(runtime)
            found.append(lab.profile(arch.text, "local", space=space, options=options))
    return found


def row(runtime: str, found: list[NetworkProfile]) -> dict[str, Any]:
    """Return the figures of one runtime."""
    ratios = sorted(100 * one.ratio for one in found)
    slowdowns = [100 * (one.best.inference_ms / one.latency_ms - 1) for one in found]
    return {
        "runtime": runtime,
        "networks": len(found),
        "within 10 %": sum(one.agrees for one in found),
        "median sum, %": median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "typical, %": median(100 * one.quiet_ratio for one in found),
        "typical within 10 %": sum(abs(one.quiet_ratio - 1) <= AGREES for one in found),
        "latency, ms": median(one.latency_ms for one in found),
        "operators": median(len(one.operators) for one in found),
        "taken out, %": 100 * median(one.best.overhead_ms / one.latency_ms for one in found),
        "slower under it, %": median(slowdowns),
        "disturbed": sum(one.disturbed for one in found),
    }


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=20, help="networks of each runtime")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "profile.json")
    options = parser.parse_args()
    rows, details = [], {}
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder) / "store.db")
        for runtime in options.runtimes:
            found = profiles(lab, runtime, options.networks, options.seed)
            rows.append(row(runtime, found))
            details[runtime] = [
                {
                    "network": one.network,
                    "latency_ms": one.latency_ms,
                    "sum_percent": 100 * one.ratio,
                    "typical_ms": one.typical_ms,
                    "quiet_ms": one.quiet_ms,
                    "disturbed": one.disturbed,
                    "profiled_ms": one.best.inference_ms,
                    "passes_ms": one.passes_ms,
                    "explanation": one.explanation(),
                }
                for one in found
            ]
            show(f"Sum over the operators, in per cent of an inference (agreement: within {100 * AGREES:.0f} %)", rows)
    save(options.out, {"summary": rows, "networks": details})


if __name__ == "__main__":
    main()
