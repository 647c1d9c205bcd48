"""Exports and times HAT's decoders, and compares the ranks of their latencies with those of HAT's published table.

    python benchmarks/hat.py --data FOLDER --count 12

FOLDER holds `hat_latency.parquet`. Networks are drawn from the rows of one device: the decoders that were timed on it,
an equal number of each depth. Each is exported to both formats and runs on one thread. Times are CPU seconds of this
process, the least of a few calls, so that a busy machine disturbs them less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import RESULTS, save, show
from scipy.stats import spearmanr

from latlab.agents import runtimes
from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.exporters import get_exporter
from latlab.harness.importers.hat import SPACES
from latlab.search_spaces import Architecture, get

FORMATS = ("torchscript", "onnx")
SPACE = "hat-decoder"
CALLS = 3
"""Timed calls of a file, after one that is not."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LATLAB_DATA"), help="published tables")
    parser.add_argument("--task", default="wmt14ende", help="of HAT's table")
    parser.add_argument("--device", default="cpu_xeon", help="of HAT's table")
    parser.add_argument("--count", type=int, default=12, metavar="N", help="decoders")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--out", type=Path, default=RESULTS / "hat.json")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("--data (or the environment variable LATLAB_DATA) must name the folder of published tables")
    torch.set_num_threads(1)
    rows = []
    for arch, published in drawn(arguments.data, arguments.task, arguments.device, arguments.count, arguments.seed):
        rows.append({"arch": arch.text, "published_ms": published, **timed(arch)})
        print(rows[-1], flush=True)
        figures: dict[str, Any] = {"task": arguments.task, "device": arguments.device, "networks": rows}
        if len(rows) > 2:
            for name in FORMATS:
                ours = [row[f"{name}_ms"] for row in rows]
                figures[f"spearman_{name}"] = float(spearmanr(ours, [row["published_ms"] for row in rows]).statistic)
        save(arguments.out, figures)
    show("HAT's decoders", rows)
    print({key: value for key, value in figures.items() if key.startswith("spearman")})


def drawn(data: Path, task: str, device: str, count: int, seed: int) -> list[tuple[Architecture, float]]:
    """Return decoders of the published table with their latencies in ms, as many of each depth as possible."""
    table = pd.read_parquet(data / "hat_latency.parquet")
    table = table[(table["task"] == task) & (table["device"] == device)]
    (latency,), fields = SPACES[SPACE]
    order = table.sample(frac=1, random_state=seed)
    depths = "decoder_layer_num"
    order = order.assign(turn=order.groupby(depths).cumcount()).sort_values(["turn", depths]).head(count)
    found = []
    for _, row in order.iterrows():
        genes = [round(row[column] * (row[depth] if depth else 1)) for column, depth in fields]
        found.append((get(SPACE).from_genes(genes), float(row[latency])))
    return found


def timed(arch: Architecture) -> dict[str, float]:
    """Return seconds of CPU time for the export, megabytes, and milliseconds of CPU time for a call, by format."""
    space = get(SPACE)
    module, shape = space.build(arch), (1, *space.input_shape(arch))
    found = {}
    for name in FORMATS:
        exporter = get_exporter(name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"net{exporter.suffix}"
            start = time.process_time()
            exporter.export(module, torch.zeros(shape), path)
            found[f"{name}_export_s"] = round(time.process_time() - start, 2)
            found[f"{name}_mb"] = round(path.stat().st_size / 1e6, 1)
            with runtimes.open(exporter.runtime, path, threads=1, inputs=[InputRequest(shape=shape)]) as session:
                session.set_inputs([np.random.default_rng(0).standard_normal(shape).astype(np.float32)])
                calls = []
                for _ in range(1 + CALLS):
                    start = time.process_time()
                    session.invoke()
                    calls.append(time.process_time() - start)
            found[f"{name}_ms"] = round(1e3 * min(calls[1:]), 1)
    return found


if __name__ == "__main__":
    main()
