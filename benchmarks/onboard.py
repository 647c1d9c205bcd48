"""Figure 5: how well 20 measured networks predict a space, how long that takes, and what noise permits.

    python benchmarks/onboard.py

For each case the script runs the README's command with a hold-out of 200 random networks that are measured in two
sessions. Store and cache are empty, so that the time includes every export. Then it runs the loop with other seeds and
scores each on the labels of that same hold-out, without the networks that the seed happened to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, save, show

from latlab.harness.store.store import Store
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent
from latlab.predictors.ridge import Ridge
from latlab.search_spaces import get

CASES = (
    ("nasbench201", "onnxruntime"),
    ("nasbench201", "tflite"),
    ("fbnet", "onnxruntime"),
    ("ofa-mobilenetv3", "onnxruntime"),
)


def onboard(folder: Path, space: str, runtime: str, budget: int, holdout: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "latlab.harness", "onboard", "local", "--space", space, "--budget", str(budget)]
    command += ["--holdout", str(holdout), "--runtime", runtime, "--threads", "1", "--seed", str(seed), "--json"]
    command += ["--store", str(folder / "latlab.db"), "--out", str(folder / f"out-{seed}")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LATLAB_CACHE": str(folder)})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def score(folder: Path, space: str, seed: int, measured: set[str]) -> dict[str, float]:
    """Return the scores of one seed's predictor on the hold-out of seed 0.

    Args:
        measured: architectures that this seed measured, which are left out.
    """
    table = Store(folder / "latlab.db").table()
    table = table[(table["role"] == "holdout") & (table["status"] == "ok") & (table["seed"] == 0)]
    labels = table.groupby("arch")["latency_ms"].mean()
    labels = labels[[arch for arch in labels.index if arch not in measured]]
    chosen = get(space)
    predictor = Ridge.load(folder / f"out-{seed}" / "predictor", chosen)
    prediction = predictor.predict([chosen.canonical(chosen.parse(arch)) for arch in labels.index])
    truth = np.asarray(labels, dtype=np.float64)
    return {
        "spearman": spearman(prediction.mean_ms, truth),
        "mape_percent": mape_percent(prediction.mean_ms, truth),
        "within_10_percent": within_percent(prediction.mean_ms, truth),
        "coverage_90_percent": coverage_percent(prediction, truth),
        "networks": len(truth),
    }


def case(space: str, runtime: str, budget: int, holdout: int, seeds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [onboard(folder, space, runtime, budget, holdout if seed == 0 else 0, seed) for seed in range(seeds)]
        table = Store(folder / "latlab.db").table()
        scores = []
        for seed in range(seeds):
            own = table[(table["role"] == "train") & (table["seed"] == seed)]
            canonical = {get(space).canonical(get(space).parse(arch)).text for arch in own["arch"]}
            held = table[table["role"] == "holdout"]["arch"]
            met = {arch for arch in held if get(space).canonical(get(space).parse(arch)).text in canonical}
            scores.append(score(folder, space, seed, met))
    return {"space": space, "runtime": runtime, "budget": budget, "holdout": holdout, "runs": runs, "scores": scores}


def summary(figures: dict[str, Any]) -> dict[str, Any]:
    rho = [one["spearman"] for one in figures["scores"]]
    first = figures["runs"][0]
    return {
        "space": figures["space"],
        "runtime": figures["runtime"],
        "Spearman": f"{statistics.mean(rho):.3f} +- {statistics.stdev(rho) if len(rho) > 1 else 0:.3f}",
        "seed 0": first["holdout_spearman"],
        "test-retest": first["holdout_retest_spearman"],
        "MAPE %": statistics.mean(one["mape_percent"] for one in figures["scores"]),
        "within 10 %": statistics.mean(one["within_10_percent"] for one in figures["scores"]),
        "coverage %": statistics.mean(one["coverage_90_percent"] for one in figures["scores"]),
        "s without hold-out": max(run["onboard_s"] for run in figures["runs"]),
        "s with": first["wall_s"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--holdout", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--case", nargs="*", help="SPACE/RUNTIME; default: all four")
    parser.add_argument("--out", type=Path, default=RESULTS / "onboard.json")
    arguments = parser.parse_args()
    cases = [tuple(text.split("/")) for text in arguments.case] if arguments.case else CASES
    results = []
    for space, runtime in cases:
        results.append(case(space, runtime, arguments.budget, arguments.holdout, arguments.seeds))
        show("", [summary(results[-1])])
    show(f"Predicting a space from {arguments.budget} measured networks", [summary(one) for one in results])
    save(arguments.out, {"cases": results, "summary": [summary(one) for one in results]})


if __name__ == "__main__":
    main()
