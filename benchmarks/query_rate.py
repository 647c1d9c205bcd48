"""How many networks a fitted predictor answers for in a second, from Python and from a saved folder, on each space.

    python benchmarks/query_rate.py

The labels are made up (latency linear in multiply-accumulates), because rates do not depend on them. Single questions
are for networks that were not asked for before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import RESULTS, save, show

import latlab
from latlab.harness.lab import Lab
from latlab.search_spaces import SearchSpace, get

SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3")
BATCH, SINGLES = 100_000, 3000
ROUNDS = 5


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spaces", nargs="+", default=list(SPACES))
    parser.add_argument("--out", type=Path, default=RESULTS / "query_rate.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: pi4, pace: 0}\n")
        lab = Lab(Path(folder) / "latlab.db", inventory=Path(folder) / "inventory.yaml", cache=Path(folder) / "cache")
        for name in options.spaces:
            lab.measure("toy", space=name, count=20, policy="quick")
            rows += rates(lab, get(name), Path(folder) / name)
    show("Networks a second, and milliseconds of Lab.predict", rows)
    save(options.out, {"batch": BATCH, "rates": rows})


def rates(lab: Lab, space: SearchSpace, folder: Path) -> list[dict[str, Any]]:
    """Return the rates of a predictor in a space, from the store and then from a folder."""
    archs = space.sample(min(SINGLES, space.size), 7)
    genes = space.genes(archs)
    texts = [arch.text for arch in archs]
    many = np.concatenate([genes] * (BATCH // len(genes) + 1))[:BATCH]

    def first() -> object:
        return lab.predict("toy", space=space.name, archs=texts[:1])

    first_s = seconds(first)
    again_s = median(
        seconds(lambda text=text: lab.predict("toy", space=space.name, archs=[text])) for text in texts[:200]
    )
    held = lab.predictor("toy", space=space.name)
    held.save(folder)
    load_s = seconds(lambda: latlab.load_predictor(folder))
    loaded = latlab.load_predictor(folder)
    rows = []
    for where, predictor in (("Lab.predictor", held), ("load_predictor", loaded)):
        row: dict[str, Any] = {"space": space.name, "from": where}
        row["genes, batch"] = BATCH / min(seconds(partial(predictor.predict, many)) for _ in range(ROUNDS))
        row["strings, batch"] = len(texts) / min(seconds(partial(predictor.predict, texts)) for _ in range(ROUNDS))
        for kind, questions in (("genes", genes), ("architecture", archs), ("string", texts)):
            row[f"{kind}, single"] = 1 / one_s(predictor.predict, questions)
        row["first, ms"] = 1000 * (first_s if where == "Lab.predictor" else load_s)
        row["Lab.predict again, ms"] = 1000 * again_s if where == "Lab.predictor" else None
        rows.append(row)
    return rows


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def one_s(predict: Callable[[Any], object], questions: Sequence[Any]) -> float:
    """Return the mean seconds of a question that is asked alone, in the best of `ROUNDS` parts."""
    part = len(questions) // ROUNDS

    def ask(number: int) -> None:
        for one in questions[number * part : (number + 1) * part]:
            predict(one)

    return min(seconds(lambda number=number: ask(number)) for number in range(ROUNDS)) / part


if __name__ == "__main__":
    main()
