"""A lookup table measured block by block against whole networks measured on the same machine.

    python benchmarks/lookup.py [--space fbnet] [--networks 30] [--folder DIR]

Measures all blocks of the space and random networks, then predicts each network three ways: the plain sum of its
blocks, and `lookup` with and without the measured blocks, fitted to the first n networks and tested on the others. Run
it again with the same --folder and it goes on where it was. A latency here is the quickest run of each network: unlike
the mean it is much the same on a machine that is busy with other things, and this one is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, save, show

from latlab.harness import Lab
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman
from latlab.predictors.lookup_table import Lookup
from latlab.search_spaces import blocks_of, get

SAMPLES = (1, 3, 5, 10)
SPLITS = 20


def measure(lab: Lab, space: str, networks: int, again: bool) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Milliseconds of the blocks by name; genes and milliseconds of the networks."""
    lab.measure("local", space=space, blocks=True, new_session=again)
    lab.measure("local", space=space, count=networks, new_session=again)
    blocks, whole = quickest(lab, f"{space}-blocks"), quickest(lab, space)
    chosen = get(space)
    genes = chosen.genes([chosen.parse(arch) for arch in whole])
    return blocks, genes, np.array(list(whole.values()))


def quickest(lab: Lab, space: str) -> dict[str, float]:
    """Milliseconds of the quickest run of each architecture that was measured, over all sessions."""
    rows = lab.store.table(space=space, raw=True)
    found: dict[str, float] = {}
    for arch, passes in zip(rows["arch"], rows["passes"], strict=True):
        samples = [sample / 1e6 for one in passes for sample in one]
        found[arch] = min([*samples, found.get(arch, np.inf)])
    return found


def figures(space: str, blocks: dict[str, float], genes: np.ndarray, latency: np.ndarray) -> list[dict[str, Any]]:
    """A row per way and number of networks that it was fitted to, averaged over random choices of these."""
    made_of = blocks_of(get(space))
    assert made_of is not None
    table = np.array([*(blocks.get(name, 0.0) for name in made_of.block_names), 0.0])
    plain = table[made_of.ids(genes)] @ made_of.repeats
    names = ("spearman", "mape_percent", "coverage_90")
    plain_scores = (spearman(plain, latency), mape_percent(plain, latency), None)
    rows: list[dict[str, Any]] = [{"way": "sum of blocks", "n": 0, **dict(zip(names, plain_scores, strict=True))}]
    for way, known, samples in (("measured blocks", blocks, (0, *SAMPLES)), ("fitted only", {}, SAMPLES)):
        predictor = Lookup(get(space))
        predictor.use_blocks(known)
        for n in samples:
            scores = []
            for seed in range(SPLITS):
                order = np.random.default_rng(seed).permutation(len(latency))
                support, test = order[:n], order[n:]
                predictor.adapt(genes[support], latency[support])
                prediction, truth = predictor.predict(genes[test]), latency[test]
                mean = prediction.mean_ms
                scores.append((spearman(mean, truth), mape_percent(mean, truth), coverage_percent(prediction, truth)))
            rows.append({"way": way, "n": n, **dict(zip(names, np.mean(scores, axis=0).tolist(), strict=True))})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="fbnet")
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where the store is kept; a temporary one by default")
    parser.add_argument("--again", action="store_true", help="measure once more, beside what --folder holds")
    parser.add_argument("--out", type=Path, default=RESULTS / "lookup.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab((arguments.folder or Path(scratch)) / "lookup.db")
        blocks, genes, latency = measure(lab, arguments.space, arguments.networks, arguments.again)
    rows = figures(arguments.space, blocks, genes, latency)
    show(f"{len(blocks)} blocks and {len(latency)} networks of {arguments.space}, onnxruntime on this machine", rows)
    save(arguments.out, {"space": arguments.space, "blocks": len(blocks), "networks": len(latency), "rows": rows})


if __name__ == "__main__":
    main()
