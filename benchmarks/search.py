"""Latency-constrained search on published tables, whether limits are kept, and its speed.

    python benchmarks/search.py --data FOLDER [help] [limits] [speed] [--seeds 5]

`help`: HELP's Table 4 and C.1 (Lee et al., NeurIPS 2021). The candidates are MetaD2A's 500 for CIFAR-100, the sources
those of the task ND with 900 labels each, and 10 networks are measured, which here means that they are looked up: five
that the closed loop of `latlab onboard` chooses, then those of the rounds of `latlab search`. `limits`: the share of
answers within the limit without a measurement, over all columns of the NAS-Bench-201 and FBNet tables and five limits
each, from 20 labels that the closed loop chooses, with no source. `speed`: candidates scored per second of CPU, and a
whole evolution in OFA's space.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import RESULTS, save, show

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.search.accuracy import Proxy, Table, table_of
from latlab.harness.search.accuracy_models import accuracy_source
from latlab.harness.search.candidates import Evolved, Listed
from latlab.harness.search.limits import Constraints, Limit, Measured
from latlab.harness.search.result import SearchResult
from latlab.harness.search.rounds import Search, SearchPlan
from latlab.harness.search.scoring import Predict, Scorer
from latlab.harness.search.state import SearchFolder
from latlab.harness.store.vocabulary import Status
from latlab.predictors import Predictor, SourceDevice
from latlab.search_spaces import SearchSpace, get

HELP: Mapping[str, Mapping[float, float]] = {
    "pixel2": {14: 67.4, 18: 70.6, 22: 70.6, 34: 73.5},
    "titan_rtx_256": {18: 69.3, 21: 71.6, 25: 71.8},
    "gold_6226": {8: 66.6, 11: 70.6, 14: 72.1},
    "eyeriss": {5: 69.8, 7: 71.9, 9: 73.5},
    "fpga": {5: 71.8, 6: 72.4, 7: 73.5},
}
"""Limits in ms, and the accuracies that HELP reports under them."""
ND_SOURCES = (
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1",
    "samsung_s7",
)  # fmt: skip
SOURCE_LABELS, SAMPLES, FIRST = 900, 10, 5
CONFIDENCES = (0.5, 0.9, 0.99)
QUANTILES = (0.15, 0.3, 0.45, 0.6, 0.75)
LABELS = 20


class TableEvidence:
    """A column of a table in the place of a device (`search.rounds.Evidence`): measuring is looking up."""

    def __init__(self, space: SearchSpace, predictor: Predictor, latency: Mapping[str, float]) -> None:
        self._space, self._predictor, self._latency = space, predictor, latency
        self.known: dict[str, Measured] = {}

    def predicts(self) -> Sequence[Predict]:
        archs = [self._space.parse(text) for text in self.known]
        self._predictor.adapt(self._space.genes(archs), [one.latency_ms for one in self.known.values()])
        return [self._predictor.predict]

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        return [self.known]

    def spreads(self) -> Sequence[float]:
        return [0.0]

    def failed(self) -> set[str]:
        return set()

    def measure(self, archs: Sequence[str], again: bool) -> None:
        self.known.update({arch: Measured(self._latency[arch], 0.0) for arch in archs})

    def begin(self, count: int, seed: int) -> None:
        """Measure what the closed loop of `latlab onboard` chooses."""
        loop = ClosedLoop(self._space, self._predictor, budget=count, seed=seed, as_written=True)
        proposals = loop.proposals()
        while len(self.known) < count:
            arch = next(proposals)
            if not np.isfinite(self._latency.get(arch, np.nan)):
                loop.record(arch, "unknown", None, None)
                continue
            self.measure([arch], False)
            loop.record(arch, Status.OK, self._latency[arch], 0.0)


def _searched(
    space: SearchSpace, source: Table, evidence: TableEvidence, limit_ms: float, budget: int, seed: int
) -> SearchResult:
    constraints = Constraints((Limit("table", limit_ms),), 0.9)
    plan = SearchPlan(space, constraints, source, Listed(source.genes), "", budget, seed=seed, confirm=False)
    with tempfile.TemporaryDirectory() as folder:
        return Search(plan, evidence, SearchFolder(Path(folder), [], space)).run()


def compare_with_help(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Search under HELP's limits among MetaD2A's candidates, and compare the accuracies of what is found."""
    space = get("nasbench201")
    table = pd.read_parquet(data / "nasbench201_latency_ms.parquet")
    source = table_of(data / "nasbench201_metad2a_candidates.parquet", space)
    genes = space.genes([space.parse(text) for text in table["arch"]])
    sources = [SourceDevice(name, genes[:SOURCE_LABELS], table[name].to_numpy()[:SOURCE_LABELS]) for name in ND_SOURCES]
    rows = []
    for device, limits in HELP.items():
        latency = dict(zip(table["arch"], table[device].tolist(), strict=True))
        archs = [space.from_genes(row).text for row in source.genes]
        accuracies = source(source.genes)
        for limit_ms, published in limits.items():
            best = max(
                (accuracy for arch, accuracy in zip(archs, accuracies, strict=True) if latency[arch] <= limit_ms),
                default=float("nan"),
            )
            found, met, measured, seconds = [], [], [], []
            for seed in range(seeds):
                start = time.process_time()
                predictor = predictor_for(PredictorOptions(), space, seed=seed, sources=sources)
                evidence = TableEvidence(space, predictor, latency)
                evidence.begin(FIRST, seed)
                result = _searched(space, source, evidence, limit_ms, SAMPLES - FIRST, seed)
                seconds.append(time.process_time() - start)
                measured.append(len(evidence.known))
                winner = result.winner
                found.append(float("nan") if winner is None else winner.accuracy)
                met.append(winner is not None and latency[winner.arch] <= 1.02 * limit_ms)
            rows.append(
                {
                    "device": device,
                    "limit_ms": limit_ms,
                    "best_in_table": best,
                    "HELP": published,
                    "found_mean": float(np.mean(found)),
                    "found_least": float(np.min(found)),
                    "met": sum(met),
                    "measured_mean": float(np.mean(measured)),
                    "cpu_s": float(np.median(seconds)),
                }
            )
            print(rows[-1], flush=True)
    return rows


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
    parser.add_argument("parts", nargs="*", default=[], help="help, limits, speed; all by default")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "search.json")
    options = parser.parse_args()
    parts = options.parts or ["help", "limits", "speed"]
    figures: dict[str, Any] = {}
    if "speed" in parts:
        figures["speed"] = speed(options.data)
        show("Speed on one core", figures["speed"])
    if "help" in parts:
        figures["help"] = compare_with_help(options.data, options.seeds)
        show("HELP, Table 4 and C.1: accuracy under a limit, 10 samples", figures["help"])
    if "limits" in parts:
        rows = limits_kept(options.data, options.seeds)
        figures["limits"] = kept_by_confidence(rows)
        show("Limits kept without a measurement, 20 labels", figures["limits"])
    save(options.out, figures)


if __name__ == "__main__":
    main()
