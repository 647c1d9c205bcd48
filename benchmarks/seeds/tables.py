"""HELP's tables of searches: Table 4 and C.1 on NAS-Bench-201, Table 5 on OFA, and Table 6's layout on HAT.

Source: Lee et al., HELP, NeurIPS 2021. Where the papers search among networks that no table has, the networks of the
table are the candidates here, so that what is found can be looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from latlab.harness.bench.tasks import published_task
from latlab.harness.search.accuracy import Proxy, table_of
from latlab.harness.search.accuracy_models import accuracy_source
from seeds.by_samples import Case, searched_rows
from seeds.methods import Options

__all__ = ["table4", "table5", "table6"]

HELP: Mapping[str, Mapping[float, float]] = {
    "pixel2": {14: 67.4, 18: 70.6, 22: 70.6, 34: 73.5},
    "titan_rtx_256": {18: 69.3, 21: 71.6, 25: 71.8},
    "gold_6226": {8: 66.6, 11: 70.6, 14: 72.1},
    "eyeriss": {5: 69.8, 7: 71.9, 9: 73.5},
    "fpga": {5: 71.8, 6: 72.4, 7: 73.5},
}
"""Limits in ms, and the accuracies (CIFAR-100, percent) that HELP reports under them."""
OFA_DEVICE, OFA_LIMITS = "titan_rtx_64", (20.0, 23.0, 28.0)
HAT_QUANTILES = (0.25, 0.5, 0.75)


def table4(options: Options) -> list[dict[str, Any]]:
    """Search among MetaD2A's 500 candidates for CIFAR-100, with the sources of the task ND."""
    task = published_task("ND", options.data)
    table = task.table()
    source = table_of(options.data / "nasbench201_metad2a_candidates.parquet", table.space)
    candidates = table.rows_of(table.space.architectures(source.genes))
    accuracy = source(table.genes)
    cases = [Case(device, 0, list(limits), candidates, accuracy) for device, limits in HELP.items()]
    rows = searched_rows(task, cases, options)
    return [{**row, "HELP's": HELP[row["device"]][row["limit ms"]]} for row in rows]


def table5(options: Options) -> list[dict[str, Any]]:
    """Search OFA's networks with OFA's accuracy predictor."""
    task = published_task("OFA", options.data)
    table = task.table()
    source = accuracy_source(options.data / "ofa_accuracy_predictor.npz", table.space)
    accuracy = source(table.genes)
    return searched_rows(task, [Case(OFA_DEVICE, 0, OFA_LIMITS, table.measured(OFA_DEVICE), accuracy)], options)


def table6(options: Options) -> list[dict[str, Any]]:
    """Search HAT's decoders. Parameters stand for the BLEU score, which nobody published for the networks."""
    task = published_task("HAT", options.data)
    table = task.table()
    accuracy = Proxy(table.space, "params")(table.genes) / 1e6
    cases = []
    for split, one in enumerate(task.splits):
        (device,) = one.targets
        rows = table.measured(device)
        limits = np.quantile(table.column(device)[rows], HAT_QUANTILES)
        cases.append(Case(device, split, limits.tolist(), rows, accuracy))
    return searched_rows(task, cases, options)
