"""Whether limits are kept on published tables, and the speed of a search.

    python benchmarks/search.py --data FOLDER [limits] [speed] [--seeds 5]

`limits`: the share of answers within the limit without a measurement, over all columns of the NAS-Bench-201 and FBNet
tables and five limits each, from 20 random labels, with no source. `speed`: candidates scored per second of CPU, and a
whole evolution in OFA's space. Searches under HELP's limits: `seeds_experiments.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import RESULTS, save, show

from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.search.accuracy import Proxy, table_of
from latlab.harness.search.accuracy_models import accuracy_source
from latlab.harness.search.candidates import Evolved
from latlab.harness.search.limits import Constraints, Limit
from latlab.harness.search.scoring import Scorer
from latlab.search_spaces import get

CONFIDENCES = (0.5, 0.9, 0.99)
QUANTILES = (0.15, 0.3, 0.45, 0.6, 0.75)
LABELS = 20


def limits_kept(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Count the answers without measurements that are within the limit, by confidence."""
    tables = {
        "nasbench201": (pd.read_parquet(data / "nasbench201_latency_ms.parquet"), "arch"),
        "fbnet": (pd.read_parquet(data / "fbnet_latency_ms.parquet"), "ops"),
    }
    rows = []
    for name, (table, key) in tables.items():
        space = get(name)
        archs = [space.parse(one) if isinstance(one, str) else space.from_genes(one) for one in table[key]]
        genes = space.genes(archs)
        accuracy: Any = Proxy(space, "macs")
        if name == "nasbench201":
            accuracy = table_of(data / "nasbench201_accuracy.parquet", space, "cifar100_accuracy_percent")
        for device in (column for column in table.columns if column != key):
            latency = table[device].to_numpy()
            for seed in range(seeds):
                predictor = predictor_for(PredictorOptions(), space, seed=seed, sources=[])
                support = np.random.default_rng(seed).choice(len(genes), LABELS, replace=False)
                predictor.adapt(genes[support], latency[support])
                for quantile in QUANTILES:
                    limit = float(np.quantile(latency, quantile))
                    scores = Scorer(space, accuracy, [predictor.predict], Constraints((Limit(device, limit),)))(genes)
                    for confidence in CONFIDENCES:
                        good = np.flatnonzero(scores.probability >= confidence)
                        winner = int(good[np.argmax(scores.accuracy[good])]) if len(good) else None
                        rows.append(
                            {
                                "space": name,
                                "device": device,
                                "seed": seed,
                                "quantile": quantile,
                                "confidence": confidence,
                                "kept": None if winner is None else bool(latency[winner] <= limit),
                                "stated": None if winner is None else float(scores.probability[winner]),
                                "over": None if winner is None else float(latency[winner] / limit),
                            }
                        )
    return rows


def kept_by_confidence(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the share of answers within the limit for each space and confidence."""
    frame = pd.DataFrame(rows)
    found = []
    for (space, confidence), part in frame.groupby(["space", "confidence"]):
        answered = part.dropna(subset=["kept"])
        found.append(
            {
                "space": space,
                "confidence": confidence,
                "searches": len(part),
                "answered": len(answered),
                "kept": float(answered["kept"].astype(bool).mean()),
                "stated": float(answered["stated"].mean()),
                "within_2_percent": float((answered["over"] <= 1.02).mean()),
            }
        )
    return found


def speed(data: Path) -> list[dict[str, Any]]:
    """Time scoring and evolution in OFA's space, on one core."""
    space = get("ofa-mobilenetv3")
    table = pd.read_parquet(data / "ofa_mobilenetv3_latency_ms.parquet")
    genes = np.array([[row.r, *row.d, *row.ks, *row.e] for row in table.itertuples()], np.int64)
    genes = space.canonical_genes(genes)
    latency = table["titan_rtx_64"].to_numpy()
    rows = []
    start = time.process_time()
    accuracy = accuracy_source(data / "ofa_accuracy_predictor.npz", space)
    predictor = predictor_for(PredictorOptions(), space, sources=[])
    made_s = time.process_time() - start
    start = time.process_time()
    predictor.adapt(genes[:LABELS], latency[:LABELS])
    adapted_s = time.process_time() - start
    scorer = Scorer(
        space, accuracy, [predictor.predict], Constraints((Limit("titan_rtx_64", float(np.quantile(latency, 0.3))),))
    )
    many = np.tile(genes, (10, 1))
    scorer(many[:1000])
    start = time.process_time()
    scorer(many)
    rows.append({"what": "candidates scored per second of CPU", "found": len(many) / (time.process_time() - start)})
    start = time.process_time()
    scores, _ = Evolved(space).look(scorer, 0, None, None)
    evolved_s = time.process_time() - start
    rows.append({"what": "500 generations of 100 on OFA, s of CPU", "found": evolved_s})
    rows.append({"what": "making the predictor, s of CPU", "found": made_s})
    rows.append({"what": "adapting it, s of CPU", "found": adapted_s})
    rows.append({"what": "estimator and search, s of CPU", "found": made_s + adapted_s + evolved_s})
    again, _ = Evolved(space).look(scorer, 0, None, None)
    rows.append({"what": "same seed, same networks (1: yes)", "found": float((again.genes == scores.genes).all())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="limits, speed; both by default")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    options = parser.parse_args()
    parts = options.parts or ["limits", "speed"]
    figures: dict[str, Any] = {}
    if "speed" in parts:
        figures["speed"] = speed(options.data)
        show("Speed on one core", figures["speed"])
    if "limits" in parts:
        rows = limits_kept(options.data, options.seeds)
        figures["limits"] = kept_by_confidence(rows)
        show("Limits kept without a measurement, 20 labels", figures["limits"])
    save(options.out, figures)


if __name__ == "__main__":
    main()
