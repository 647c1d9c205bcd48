"""HELP's Figure 6: Pareto fronts of NAS-Bench-201 from predicted latencies and oracle accuracies, on unseen devices.

Each method predicts the latency of all 15,625 networks from the same samples of a device. With the true accuracies
(CIFAR-100) that gives a predicted Pareto front, whose networks are then looked up:

* hypervolume: the area below the true latencies and above the accuracies of the predicted front's networks, as a share
  of that of the true front. The reference point is the slowest network of the true front and the median accuracy.
* regret: under each of 50 limits, the most accurate network that is predicted to keep it is compared with the most
  accurate one that is as fast as that network really is; mean difference of accuracies, in points.
* kept: share of those networks that keep the limit.

Source: Lee et al., HELP, NeurIPS 2021, Figure 6. The devices are the targets of the task ND, the sources its sources.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from latlab.harness.bench.tasks import published_task
from seeds.methods import RANDOM, Options, pretrained, runs, samples

__all__ = ["figure6", "hypervolume", "pareto", "regret"]

Floats = NDArray[np.float64]

BUDGETS = (10, 20)
LIMITS = 50
ACCURACY = "cifar100_accuracy_percent"


def pareto(latency: Floats, accuracy: Floats) -> NDArray[np.intp]:
    """Return the rows of the Pareto front of n networks, the fastest first."""
    order = np.lexsort((-accuracy, latency))
    best = np.maximum.accumulate(accuracy[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])]


def hypervolume(latency: Floats, accuracy: Floats, slowest: float, least: float) -> float:
    """Return the area that points dominate, up to the latency `slowest` and down to the accuracy `least`."""
    inside = (latency < slowest) & (accuracy > least)
    front = pareto(latency[inside], accuracy[inside]) if inside.any() else np.array([], np.intp)
    steps = np.append(latency[inside][front], slowest)
    return float((np.diff(steps) * (accuracy[inside][front] - least)).sum())


def regret(
    predicted: Floats, latency: Floats, accuracy: Floats, limits: Floats
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.intp]]:
    """Return what choosing by predicted latencies loses under each limit that some network is predicted to keep.

    Args:
        predicted, latency, accuracy: of n networks; the first may be infinite for networks that are out of question.
        limits: in ms.

    Returns:
        The accuracy that is lost to the best network which is as fast as the chosen one really is, whether the chosen
        one keeps the limit, and its row; one for each limit that was answered.
    """
    chosen = []
    answered = []
    for limit in limits:
        able = np.flatnonzero(predicted <= limit)
        if len(able):
            chosen.append(able[np.argmax(accuracy[able])])
            answered.append(limit)
    rows = np.array(chosen, np.intp)
    front = pareto(latency, accuracy)
    best = accuracy[front][np.searchsorted(latency[front], latency[rows], side="right") - 1]
    return best - accuracy[rows], latency[rows] <= np.array(answered), rows


def figure6(options: Options) -> list[dict[str, Any]]:
    """Return a row for each device, method and number of samples: means over the seeds."""
    task = published_task("ND", options.data)
    table = task.table()
    column = pd.read_parquet(options.data / "nasbench201_accuracy.parquet").set_index("arch")[ACCURACY]
    accuracy = column.loc[[table.space.from_genes(row).text for row in table.genes]].to_numpy(np.float64)
    ready = {name: pretrained(name, task, 0, options) for name in options.predictors}
    rows = []
    for device in task.splits[0].targets:
        latency = table.column(device)
        front = pareto(latency, accuracy)
        least, slowest = float(np.median(accuracy)), float(latency[front[-1]])
        first = latency[front][accuracy[front] > least][0]
        limits = np.geomspace(first, slowest, LIMITS)
        whole = hypervolume(latency, accuracy, slowest, least)
        for method in (*options.predictors, RANDOM):
            for budget in BUDGETS:
                found = []
                for seed in range(runs(table, device, budget, options.seeds)):
                    support = samples(table, device, budget, seed)
                    if method == RANDOM:
                        predicted = np.full(len(latency), np.inf)
                        predicted[support] = latency[support]
                    else:
                        predictor = ready[method]
                        predictor.adapt(table.genes[support], latency[support])
                        predicted = predictor.predict(table.genes).mean_ms
                        predicted[support] = latency[support]
                    lost, kept, _ = regret(predicted, latency, accuracy, limits)
                    shown = pareto(predicted, accuracy)
                    share = hypervolume(latency[shown], accuracy[shown], slowest, least) / whole
                    found.append((share, lost.mean(), kept.mean(), len(lost) / LIMITS))
                mean = np.mean(found, axis=0)
                rows.append(
                    {
                        "device": device,
                        "method": method,
                        "samples": budget,
                        "hypervolume": float(mean[0]),
                        "least hypervolume": float(np.min(found, axis=0)[0]),
                        "regret, points": float(mean[1]),
                        "kept": float(mean[2]),
                        "answered": float(mean[3]),
                    }
                )
        print(*rows[-2 * (len(options.predictors) + 1) :], sep="\n", flush=True)
    return rows
