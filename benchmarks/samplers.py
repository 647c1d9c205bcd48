"""Samplers of the first five measurements: NASFLAT's Table 3 with `roost` and `ridge`, and its Table 9.

    python benchmarks/samplers.py --data DATA [--tasks F1,F2] [--encodings zcp,cate] [--seeds 3]

Every sampler chooses the samples of the same pre-trained predictors, for every target of the published tasks; scores
are Spearman on all architectures that were not paid for, protocol `latlab`. The proxies of FBNet are those of
`fbnet_zcp.parquet`; those of NAS-Bench-201 come from `latlab encode`, and samplers that read them choose from its
architectures only. CAZ is CATE, Arch2Vec and these proxies. Results are added to `results/samplers.json` task by task.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from latlab.harness.distributed.local import one_thread

one_thread()

import numpy as np  # noqa: E402
from common import RESULTS, save  # noqa: E402

from latlab import predictors  # noqa: E402
from latlab.harness.bench.evaluate import adapt  # noqa: E402
from latlab.harness.bench.protocols import PROTOCOLS  # noqa: E402
from latlab.harness.bench.tables import LatencyTable  # noqa: E402
from latlab.harness.bench.tasks import published_task  # noqa: E402
from latlab.harness.encoding.tables import read_encoding_table  # noqa: E402
from latlab.harness.paths import cache_folder  # noqa: E402
from latlab.predictors.common.metrics import spearman  # noqa: E402
from latlab.predictors.encodings.encode import Encoder, columns_of  # noqa: E402
from latlab.predictors.encodings.table import EncodingTable  # noqa: E402

TASKS = ("F1", "F2", "F3", "F4", "FA", "FD", "N1", "N2", "N3", "N4", "NA", "ND")
PLAIN = ("random", "params", "latency-oracle", "latency-quantiles", "designed")
ENCODINGS = ("costs", "arch2vec", "cate", "zcp", "caz")
METHODS = ("cosine", "kmeans", "diverse")
SAMPLES = 5


def encodings_of(table: LatencyTable, zcp: EncodingTable | None, wanted: list[str]) -> dict[str, EncodingTable]:
    """Return the encodings of a table's architectures by name; scaled, so that CAZ's parts count alike."""
    found = {}
    for name in [one for one in ("costs", "arch2vec", "cate") if one in wanted or "caz" in wanted]:
        vectors = Encoder(table.space, name)(table.genes).astype(np.float64)
        found[name] = EncodingTable(name, columns_of(table.space, name), table.genes, vectors)
    if zcp is not None and "zcp" in wanted:
        found["zcp"] = zcp
    if zcp is not None and "caz" in wanted:
        rows = zcp.rows(table.genes) >= 0
        genes = table.genes[rows]
        parts = [found["cate"](genes), found["arch2vec"](genes), Encoder(table.space, "zcp", table=zcp)(genes)]
        vectors = np.concatenate(parts, axis=1).astype(np.float64)
        found["caz"] = EncodingTable("caz", [f"caz_{i}" for i in range(vectors.shape[1])], genes, vectors)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LATLAB_DATA", "data")))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--predictors", default="roost,ridge")
    parser.add_argument("--encodings", default=",".join(ENCODINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--zcp-nasbench201", type=Path)
    given = parser.parse_args()
    predictors.keep_in(cache_folder)
    protocol = PROTOCOLS["latlab"]
    path = RESULTS / "samplers.json"
    records = json.loads(path.read_text())["records"] if path.exists() else []
    for name in given.tasks.split(","):
        task = published_task(name, given.data)
        table, split = task.table(), task.splits[0]
        if task.space == "fbnet":
            zcp = read_encoding_table(given.data / "fbnet_zcp.parquet", table.space, table.genes)
        else:
            own = given.zcp_nasbench201
            zcp = None if own is None else read_encoding_table(own, table.space)
        tables = encodings_of(table, zcp, given.encodings.split(","))
        samplers = [*PLAIN, *(f"{method}:{one}" for one in ENCODINGS if one in tables for method in METHODS)]
        for kind in given.predictors.split(","):
            rho: dict[str, list[list[float]]] = {sampler: [] for sampler in samplers}
            for seed in range(given.seeds):
                sources = protocol.sources(table, split.sources, protocol.source_samples(task.space), seed)
                predictor = predictors.create(kind, table.space, seed=seed)
                predictor.pretrain(sources)
                for sampler in samplers:
                    encodings = tables.get(sampler.partition(":")[2])
                    own_rho = []
                    for device in split.targets:
                        spent = adapt(
                            predictor, table, device, SAMPLES, protocol, sampler, seed,
                            sources=sources, encodings=encodings,
                        )  # fmt: skip
                        assert spent is not None
                        test = protocol.test(table, device, spent.paid)
                        mean = predictor.predict(table.genes[test]).mean_ms
                        own_rho.append(spearman(mean, table.column(device)[test]))
                    rho[sampler].append(own_rho)
            again = {(name, kind, sampler) for sampler in rho}
            records = [one for one in records if (one["task"], one["predictor"], one["sampler"]) not in again]
            for sampler, values in rho.items():
                by_seed = np.mean(values, axis=1)
                records.append(
                    {
                        "task": name,
                        "predictor": kind,
                        "sampler": sampler,
                        "samples": SAMPLES,
                        "seeds": given.seeds,
                        "candidates": len(tables[sampler.partition(":")[2]].genes) if ":" in sampler else None,
                        "spearman_mean": float(by_seed.mean()),
                        "spearman_std": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
                    }
                )
            save(path, {"records": records})
            best = sorted(rho, key=lambda one: -np.mean(rho[one]))
            print(name, kind, *(f"{one} {np.mean(rho[one]):.3f}" for one in best), flush=True)


if __name__ == "__main__":
    main()
