"""Compares the search spaces with the published ones (indices, classes, parameters, MACs), and times them.

    python benchmarks/spaces.py --data FOLDER --out benchmarks/results/spaces.json

FOLDER holds the published tables. Counts are analytic (`SearchSpace.layers`); "executed" are counts of the
operators that the built module sends to torch's dispatcher (`op_counter`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from latlab.search_spaces import Architecture, Layer, SearchSpace, get, names
from latlab.search_spaces.nasbench201.cell import to_unique_str
from latlab.search_spaces.nasbench201.space import NASBench201
from latlab.search_spaces.op_counter import count_operators

PUBLISHED_OFA_MACS_MILLION = {
    "cpu_gold6226": [336, 375],
    "gpu_titan_rtx_64": [230, 268, 346],
    "jetson_agx_xavier": [243, 279],
}
"""As HELP prints them, for the architectures in the order of their file."""


def total(layers: Sequence[Layer], field: str) -> int:
    return sum(getattr(layer, field) for layer in layers)


def executes_what_is_counted(space: SearchSpace, arch: Architecture, *, as_written: bool) -> bool:
    """Return whether the built module executes exactly the layers counted: kinds, MACs, parameters, activations."""
    executed = count_operators(space.build(arch, as_written=as_written), space.input_shape(arch))
    layers = space.layers(arch, live=not as_written)
    rows = [(row.kind, row.macs, row.params, row.activations) for row in executed]
    counted = [(layer.kind, layer.macs, layer.params, layer.activations) for layer in layers]
    if as_written and space.name.startswith("ofa"):
        # The published h_swish and means are several operators each: compare what has parameters.
        rows, counted = [row for row in rows if row[2]], [row for row in counted if row[2]]
    return rows == counted


def check_nasbench201(data: Path) -> dict[str, Any]:
    space = NASBench201()
    published = pd.read_parquet(data / "nasbench201_latency_ms.parquet", columns=["arch"])["arch"]
    archs = list(space.enumerate())
    return {
        "architectures": len(set(archs)),
        "at_the_official_index": sum(str(a) == b for a, b in zip(archs, published, strict=True)),
        "classes_of_to_unique_str": len({to_unique_str(arch.genes) for arch in archs}),
        "connected": sum(not space.is_constant(arch) for arch in archs),
        "distinct_pruned_graphs": len({space.canonical(arch) for arch in archs}),
    }


def published_flops(layers: Sequence[Layer]) -> int:
    """Return the operations that the published `flops` column counts in addition to MACs.

    These are two operations per element for each batch norm, one for each ReLU (but none for a block's first), and the
    elements that the global mean reads. Additions and biases are not counted.
    """
    flops = total(layers, "macs")
    for layer in layers:
        if layer.kind in {"conv", "pointwise", "grouped", "depthwise"}:
            flops += 2 * layer.activations
        elif layer.kind == "relu" and not layer.name.endswith("expand.relu"):
            flops += layer.activations
        elif layer.kind == "mean":
            flops += layer.in_elements
    return flops


def check_fbnet(data: Path) -> dict[str, Any]:
    space = get("fbnet")
    ops = pd.read_parquet(data / "fbnet_latency_ms.parquet", columns=["ops"])["ops"]
    published = pd.read_parquet(data / "fbnet_zcp.parquet", columns=["params", "flops"])
    counted = [space.layers(space.from_genes(genes)) for genes in ops]
    params = np.array([total(layers, "params") for layers in counted])
    macs = np.array([total(layers, "macs") for layers in counted])
    explained = np.array([published_flops(layers) for layers in counted])
    flops = published["flops"].to_numpy()
    return {
        "architectures": len(ops),
        "params_equal": int((params == published["params"].to_numpy()).sum()),
        "macs_spearman_with_flops": float(spearmanr(macs, flops).statistic),
        "flops_over_macs_min": float((flops / macs).min()),
        "flops_over_macs_max": float((flops / macs).max()),
        "flops_explained_exactly": int((explained == flops).sum()),
        "explanation": " ".join((published_flops.__doc__ or "").split()),
    }


def check_ofa(data: Path) -> dict[str, Any]:
    space = get("ofa-mobilenetv3-w1.2")
    rows = []
    for entry in json.loads((data / "help_ofa_published_architectures.json").read_text()):
        config = entry["config"]
        arch = space.from_genes([config["r"], *config["d"], *config["ks"], *config["e"]])
        executed = count_operators(space.build(arch), space.input_shape(arch))
        rows.append(
            {
                "device": entry["device"],
                "macs": total(space.layers(arch), "macs"),
                "macs_executed": sum(row.macs for row in executed),
            }
        )
    found = {
        device: [round(row["macs"] / 1e6) for row in rows if row["device"] == device]
        for device in PUBLISHED_OFA_MACS_MILLION
    }
    return {
        "macs_million": found,
        "as_published": found == PUBLISHED_OFA_MACS_MILLION,
        "executed_equal": sum(row["macs"] == row["macs_executed"] for row in rows),
        "each": rows,
    }


def check_modules(space: SearchSpace, count: int) -> dict[str, int]:
    """Count the networks, of `count` random ones, that execute exactly the layers counted, live and as written."""
    archs = space.sample(count, seed=0)
    return {
        "networks": count,
        "live_equal": sum(executes_what_is_counted(space, arch, as_written=False) for arch in archs),
        "as_written_equal": sum(executes_what_is_counted(space, arch, as_written=True) for arch in archs),
    }


def rate(count: int, work: Callable[[], object]) -> float:
    """Return items per CPU second."""
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def speeds(space: SearchSpace) -> dict[str, float]:
    """Return architectures per CPU second on one thread, for each operation of the space."""
    many, few = space.sample(5000, seed=1), space.sample(20, seed=1)
    space.build(few[0])
    return {
        "sampled_per_s": rate(5000, lambda: space.sample(5000, seed=2)),
        "parsed_per_s": rate(5000, lambda: [space.parse(str(arch)) for arch in many]),
        "counted_per_s": rate(5000, lambda: [total(space.layers(arch), "macs") for arch in many]),
        "encoded_per_s": rate(5000, lambda: space.encode(many, "one-hot")),
        "built_per_s": rate(20, lambda: [space.build(arch) for arch in few]),
    }


def table(title: str, rows: dict[str, dict[str, Any]]) -> Table:
    out = Table(title=title)
    out.add_column("")
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    for column in columns:
        out.add_column(column, justify="right")
    for name, row in rows.items():
        out.add_row(name, *(_text(row.get(column, "")) for column in columns))
    return out


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"), help="published tables")
    parser.add_argument("--built", type=int, default=100, help="random networks of each space to build")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.data is None or not Path(arguments.data).is_dir():
        parser.error("--data (or the environment variable LATLAB_DATA) must name the folder of published tables")
    data = Path(arguments.data)
    torch.set_num_threads(1)

    spaces = {name: get(name) for name in names(buildable=True) if not get(name).autoregressive}
    ofa = check_ofa(data)
    figures: dict[str, Any] = {
        "nasbench201": check_nasbench201(data),
        "fbnet": check_fbnet(data),
        "ofa": ofa,
        "built_modules": {name: check_modules(space, arguments.built) for name, space in spaces.items()},
        "speed": {name: speeds(space) for name, space in spaces.items()},
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "machine": platform.machine(),
        },
    }
    console = Console(width=140)
    shown = {key: value for key, value in figures["fbnet"].items() if key != "explanation"}
    console.print(table("NAS-Bench-201", {"": figures["nasbench201"]}))
    console.print(table("FBNet, 5,000 published architectures", {"": shown}))
    console.print(
        table(
            "OFA x1.2, MACs of HELP's architectures in millions",
            {
                device: {"published": PUBLISHED_OFA_MACS_MILLION[device], "counted": counted}
                for device, counted in ofa["macs_million"].items()
            },
        )
    )
    console.print(table("Random networks that execute exactly what is counted", figures["built_modules"]))
    console.print(table("Speed: architectures a CPU second", figures["speed"]))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
