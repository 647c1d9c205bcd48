"""Figure 6: how much rank correlation the noise of labels costs, on devices that others have measured.

    python benchmarks/noise_cost.py --data FOLDER [--seeds 10] [--jobs N]

FOLDER has the published tables. Their latencies stand for the truth (with whatever noise they have themselves), and
labels are made of them by log-normal noise of 1 to 30 %:

- `labels`: Spearman of all labels of the table with the truth: what a perfect predictor of the labels could reach;
- `middle`: the same for the fifth of the networks around the median latency, where a search under a latency
  constraint has to choose;
- `foretold`: the ceiling that `latlab quality` predicts for such labels, from the labels and their error bars alone;
- one column per predictor: trained on 20 such labels, Spearman with the truth of all other networks. Networks and
  the draws of the noise are the same at all levels. `told` is the default predictor, given the labels' standard errors.

The figures are written to `results/noise_cost.json`, and drawn as `results/noise_cost.png`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from latlab.harness.distributed.local import one_thread

one_thread()

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from common import RESULTS, save, show  # noqa: E402

from latlab import predictors  # noqa: E402
from latlab.harness.bench.tables import read_table  # noqa: E402
from latlab.harness.statistics.reliability import ceiling  # noqa: E402
from latlab.predictors.base import FloatArray  # noqa: E402
from latlab.predictors.common.metrics import spearman  # noqa: E402

LEVELS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30)
SHOWN = 0.10
TRAINED_ON = 20
PREDICTORS = ("ridge", predictors.DEFAULT)


class Device(NamedTuple):
    title: str
    file: str
    space: str
    column: str
    colour: str


DEVICES = (
    Device("NAS-Bench-201, Raspberry Pi 4", "nasbench201_latency_ms.parquet", "nasbench201", "raspi4", "#1b6ca8"),
    Device("NAS-Bench-201, Xeon Gold 6226", "nasbench201_latency_ms.parquet", "nasbench201", "gold_6226", "#5fa8d3"),
    Device("NAS-Bench-201, Titan RTX, batch 32", "nasbench201_latency_ms.parquet", "nasbench201", "titan_rtx_32",
           "#9fd0ec"),
    Device("OFA-MobileNetV3, Titan RTX, batch 64", "ofa_mobilenetv3_latency_ms.parquet", "ofa-mobilenetv3",
           "titan_rtx_64", "#2e8b57"),
    Device("OFA-MobileNetV3, V100, batch 32", "ofa_mobilenetv3_latency_ms.parquet", "ofa-mobilenetv3", "v100_32",
           "#8fcf9f"),
    Device("FBNet, Raspberry Pi 4", "fbnet_latency_ms.parquet", "fbnet", "raspi4", "#8c2f39"),
    Device("FBNet, GTX 1080 Ti, batch 64", "fbnet_latency_ms.parquet", "fbnet", "1080ti_64", "#d1495b"),
    Device("FBNet, Titan RTX, batch 1", "fbnet_latency_ms.parquet", "fbnet", "titan_rtx_1", "#f0a3ad"),
)  # fmt: skip


def noisy(truth: FloatArray, level: float, z: FloatArray) -> FloatArray:
    """Return labels with log-normal noise whose mean is the truth.

    Args:
        truth: latencies.
        level: standard deviation of the logarithm.
        z: standard normal draws, of the shape of `truth`.
    """
    return truth * np.exp(level * z - level**2 / 2)


def cost(device: Device, data: Path, seeds: int) -> dict[str, object]:
    """Return the correlations at all noise levels on one device: mean and standard deviation over seeds."""
    table = read_table(data / device.file, device.space)
    rows = table.measured(device.column)
    truth, genes = table.column(device.column)[rows], table.genes[rows]
    near = np.argsort(truth)
    near = near[round(0.4 * len(truth)) : round(0.6 * len(truth))]
    found: dict[str, list[list[float]]] = {
        name: [[] for _ in LEVELS] for name in ("labels", "middle", "foretold", *PREDICTORS, "told")
    }
    for seed in range(seeds):
        rng = np.random.default_rng((seed, len(truth)))
        z, chosen = rng.standard_normal(len(truth)), rng.permutation(len(truth))[:TRAINED_ON]
        others = np.setdiff1d(np.arange(len(truth)), chosen)
        models = {name: predictors.create(name, table.space, seed=seed) for name in PREDICTORS}
        for model in models.values():
            model.pretrain([])
        for at, level in enumerate(LEVELS):
            labels = noisy(truth, level, z)
            found["labels"][at].append(spearman(labels, truth))
            found["middle"][at].append(spearman(labels[near], truth[near]))
            if seed == 0:
                found["foretold"][at].append(ceiling(labels, level).spearman)
            for name, model in models.items():
                model.adapt(genes[chosen], labels[chosen])
                found[name][at].append(spearman(model.predict(genes[others]).mean_ms, truth[others]))
            told = models[predictors.DEFAULT]
            told.adapt(genes[chosen], labels[chosen], level * labels[chosen])
            found["told"][at].append(spearman(told.predict(genes[others]).mean_ms, truth[others]))
    return {
        "device": device.title,
        "networks": len(truth),
        "spread": float(np.std(np.log(truth))),
        "mean": {name: np.mean(values, axis=1).tolist() for name, values in found.items()},
        "std": {name: np.std(values, axis=1, ddof=1).tolist() for name, values in found.items() if name != "foretold"},
    }


def draw(results: Sequence[Mapping[str, object]], out: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.6), sharey=True, layout="constrained")
    percent = [100 * level for level in LEVELS]
    panels = (
        ("labels", "the labels themselves, all networks"),
        ("middle", "the labels, networks of middling latency"),
        ("told", f"{predictors.DEFAULT}, from {TRAINED_ON} such labels and their errors"),
    )
    for axis, (name, title) in zip(axes, panels, strict=True):
        axis.axvline(100 * SHOWN, color="#cccccc", linewidth=1, zorder=0)
        for device, result in zip(DEVICES, results, strict=True):
            label = f"{device.title} (spread {100 * result['spread']:.0f} %)"  # type: ignore[operator]
            axis.plot(percent, result["mean"][name], color=device.colour, marker=".", label=label)  # type: ignore[index]
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("noise of a label, %")
        axis.set_xticks([0, 5, 10, 15, 20, 30])
        axis.set_ylim(0, 1.01)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#eeeeee")
    axes[0].set_ylabel("Spearman's rank correlation\nwith the latencies without this noise")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "noise_cost.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data (or LATLAB_DATA) names the folder of the published tables")
    one = partial(cost, data=arguments.data, seeds=arguments.seeds)
    if arguments.jobs > 1:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            results = list(pool.map(one, DEVICES))
    else:
        results = list(map(one, DEVICES))
    for level in (0.01, 0.03, SHOWN, 0.30):
        at = LEVELS.index(level)
        show(
            f"Spearman with {level:.0%} noise (without: in brackets)",
            [
                {"device": one["device"], "spread": f"{one['spread']:.0%}"}
                | {name: f"{values[at]:.3f} ({values[0]:.3f})" for name, values in one["mean"].items()}
                for one in results
            ],
        )
    save(arguments.out, {"levels": LEVELS, "trained on": TRAINED_ON, "seeds": arguments.seeds, "devices": results})
    draw(results, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
