"""Draws `results/predictors.png` from the results of `predictors.py`: Spearman by number of measurements and task.

python benchmarks/predictors_plot.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from common import RESULTS

from latlab.harness.bench.published import CEILINGS, PUBLISHED_SPEARMAN

TASKS = ("ND", "N1", "N2", "N3", "N4", "NA", "FD", "F1", "F2", "F3", "F4", "FA")
LINES = (
    ("roost", "sequential", "roost, chosen samples", "#1b6ca8", "-"),
    ("roost", "random", "roost, random samples", "#1b6ca8", ":"),
    ("ridge", "random", "ridge on analytic features", "#d1495b", ":"),
    ("stacking", "random", "stacking of the sources", "#8d8d8d", ":"),
)
MARKS = (("HELP", "x", "#555555"), ("MultiPredict", "^", "#b8860b"), ("NASFLAT", "o", "#2e8b57"))


def main(source: Path = RESULTS / "predictors.jsonl", out: Path = RESULTS / "predictors.png") -> None:
    records = [json.loads(line) for line in source.read_text().splitlines()]
    figure, axes = plt.subplots(3, 4, figsize=(11, 7.2), sharex=True, layout="constrained")
    for task, axis in zip(TASKS, axes.flat, strict=True):
        for predictor, selection, label, colour, style in LINES:
            found = sorted(
                (record["samples"], record["spearman_mean"], record["spearman_std"])
                for record in records
                if (record["task"], record["predictor"], record["selection"]) == (task, predictor, selection)
                and record["protocol"] == "latlab" and record["samples"] >= 3 and record["source_samples"] >= 100
                and record["spearman_mean"] is not None
            )  # fmt: skip
            if found:
                n, mean, deviation = zip(*found, strict=True)
                axis.errorbar(n, mean, deviation, color=colour, linestyle=style, marker=".", label=label, capsize=2)
        for name, marker, colour in MARKS:
            known = next((row for key, row in PUBLISHED_SPEARMAN.items() if key.startswith(name)), {})
            if task in known:
                axis.plot(20, known[task], marker, color=colour, label=f"{name}, published", linestyle="none")
        axis.axhline(CEILINGS[task], color="#cccccc", linewidth=1, label="ceiling (noise of the labels)")
        axis.set_title(task, loc="left", fontsize=10, fontweight="bold")
        axis.set_xticks([3, 5, 10, 20])
        axis.set_ylim(max(0.3, min(0.9, axis.get_ylim()[0])), 1.005)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    for axis in axes[-1]:
        axis.set_xlabel("measurements of the new device", fontsize=9)
    figure.supylabel("Spearman's rank correlation on all other networks")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
