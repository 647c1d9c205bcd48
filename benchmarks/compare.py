"""How often `latlab compare` errs on this machine: a network against itself, and against one with 3 % more work.

    python benchmarks/compare.py --same 200 --slower 100 --hand 3 --out benchmarks/results/compare.json

The networks are chains of 100 and 103 equal convolutions. `--hand` compares the ratio with that of ten alternating
rounds by hand: in each, both networks run in a fresh process with a bare loop around ONNX Runtime, and the shortest of
200 runs counts, as Python's timeit advises. Let other jobs run meanwhile: what matters is the error rate on a busy
machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from common import RESULTS, save, show
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from latlab.harness import Lab
from latlab.harness.compare.result import Question

LAYERS, CHANNELS, SIDE = 100, 16, 14
EXTRA = 3
ROUNDS = 10
BY_HAND = """
import sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)
x = numpy.random.default_rng(0).standard_normal(session.get_inputs()[0].shape).astype("float32")
best = float("inf")
for _ in range(200):
    start = time.perf_counter()
    session.run(None, {session.get_inputs()[0].name: x})
    best = min(best, time.perf_counter() - start)
print(best)
"""


def write_chain(path: Path, layers: int) -> Path:
    """Write a chain of equal convolutions as an ONNX file."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for number in range(layers):
        values = (0.08 * rng.standard_normal((CHANNELS, CHANNELS, 3, 3))).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("Conv", [f"x{number}", f"w{number}"], [f"x{number + 1}"], pads=[1, 1, 1, 1]))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])
        for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def runs(kind: str, files: Sequence[Path], count: int, question: Question, folder: Path) -> list[dict[str, Any]]:
    """Return the outcomes of `count` comparisons of two files, each with a seed of its own."""
    found = []
    for number in range(count):
        began = time.monotonic()
        (result,) = Lab(folder / f"{kind}.db").compare([str(one) for one in files], question=question, seed=number)
        (pair,) = result.pairs
        found.append(
            {
                "verdict": str(pair.outcome),
                "percent": pair.percent,
                "half_percent": pair.half_percent,
                "blocks": result.blocks,
                "spent_s": result.spent_s,
                "wall_s": time.monotonic() - began,
            }
        )
        one = found[-1]
        print(
            f"{kind} {number + 1}/{count}: {one['verdict']}, {one['percent']:+.2f} % +- {one['half_percent']:.2f} %, "
            f"{one['blocks']} blocks, {one['wall_s']:.1f} s",
            file=sys.stderr,
            flush=True,
        )
    return found


def by_hand(first: Path, second: Path) -> float:
    """Return percent by which the second file takes longer, by ten alternating rounds with fresh processes."""

    def best(path: Path) -> float:
        words = [sys.executable, "-c", BY_HAND, str(path)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    ratios = []
    for number in range(ROUNDS):
        order = (first, second) if number % 2 else (second, first)
        times = {path: best(path) for path in order}
        ratios.append(times[second] / times[first])
    return 100 * (median(ratios) - 1)


def rate(name: str, hits: int, of: int) -> dict[str, Any]:
    """Return a row with a share and its 95 % Wilson interval."""
    if not of:
        return {"": name, "runs": 0, "percent": None, "low": None, "high": None}
    interval = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return {
        "": name,
        "runs": of,
        "percent": 100 * hits / of,
        "low": 100 * float(interval.low),
        "high": 100 * float(interval.high),
    }


def main() -> None:
    """Run the comparisons, print the rates, and write them with all outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--same", type=int, default=60, help="comparisons of a network with itself")
    parser.add_argument("--slower", type=int, default=30, help="comparisons with 3 %% more work")
    parser.add_argument("--hand", type=int, default=3, help="repetitions of the ten rounds by hand")
    parser.add_argument("--ties", type=float, default=1.0)
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "compare.json")
    args = parser.parse_args()
    question = Question(ties_percent=args.ties, budget_s=args.budget)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        usual = write_chain(folder / f"chain{LAYERS}.onnx", LAYERS)
        slower = write_chain(folder / f"chain{LAYERS + EXTRA}.onnx", LAYERS + EXTRA)
        same = runs("same", (usual, usual), args.same, question, folder)
        more = runs("slower", (usual, slower), args.slower, question, folder)
        hand = [by_hand(usual, slower) for _ in range(args.hand)]
    wrong = sum(one["verdict"] in ("faster", "slower") for one in same)
    right = sum(one["verdict"] == "faster" for one in more)
    in_time = sum(one["verdict"] == "faster" and one["wall_s"] <= args.budget for one in more)
    table = [
        rate("the same network: called faster or slower", wrong, len(same)),
        rate("the same network: called a tie", sum(one["verdict"] == "tie" for one in same), len(same)),
        rate("3 % more work: called slower, rightly", right, len(more)),
        rate(f"3 % more work: rightly, within {args.budget:g} s", in_time, len(more)),
    ]
    show(f"latlab compare, ties {args.ties:g} %, budget {args.budget:g} s", table)
    seconds = {kind: median(one["wall_s"] for one in part) for kind, part in (("same", same), ("slower", more)) if part}
    ratio = median(one["percent"] for one in more) if more else None
    print(f"median seconds: {seconds}; percent by which 3 % more work takes longer: {ratio}, by hand {hand}")
    figures = {"rates": table, "median_s": seconds, "ratio_percent": ratio, "by_hand_percent": hand}
    save(args.out, {**figures, "ties_percent": args.ties, "budget_s": args.budget, "same": same, "slower": more})


if __name__ == "__main__":
    main()
