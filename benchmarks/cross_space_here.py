"""What twenty cells of NAS-Bench-201 say of other spaces and of one's own models: for real, on this machine.

    python benchmarks/cross_space_here.py --work FOLDER --runtime tflite --prepare     # exports, reads no clock
    python benchmarks/cross_space_here.py --work FOLDER --runtime tflite               # two to four minutes

It onboards this machine on NAS-Bench-201, predicts random networks of FBNet and of OFA and a dozen standard networks
(`any_graph_models.py`) without any label there, and then measures them. Beside it stands what is predicted without the
cells: from the prior alone, and for models a line in multiply-accumulates through the same cells. Each runtime is
measured by itself; the figures of all go into `results/cross_space_here.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from any_graph import models
from common import RESULTS, save, show

from latlab.harness.active_learning.learnt_costs import learn_costs
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import ArtifactCache, ExportError, ExportRequest
from latlab.harness.lab import Lab
from latlab.harness.models.input_options import InputOptions
from latlab.harness.targets import RUNTIMES, Target
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.search_spaces import get

CELLS, SPACES = "nasbench201", ("fbnet", "ofa-mobilenetv3")
BUDGET, NETWORKS, SEED = 20, 25, 11
MODELS = (
    "resnet18", "resnet50", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "efficientnet_b0", "squeezenet",
    "inception", "vit_tiny", "mixer", "super_resolution", "encoder small",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="store, cache and models are kept there")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "tflite", "torchscript"))
    parser.add_argument("--prepare", action="store_true", help="only export: no clock is read")
    parser.add_argument("--out", type=Path, default=RESULTS / "cross_space_here.json")
    arguments = parser.parse_args()
    work, runtime = arguments.work.resolve(), arguments.runtime
    work.mkdir(parents=True, exist_ok=True)
    own = [one for one in models(work / "models", runtime, None) if one[0] in MODELS]
    if arguments.prepare:
        prepare(work / "cache", RUNTIMES[runtime].format)
        return

    target, options = Target("local", runtime), TargetOptions(runtime=runtime, threads=1)
    lab = Lab(work / f"cross-{runtime}.db", cache=work / "cache")
    lab.onboard("local", space=CELLS, budget=BUDGET, options=options, out=work / f"cross-{runtime}")
    found = {}
    rows: list[dict[str, Any]] = []
    for space in SPACES:
        archs = [arch.text for arch in get(space).sample(NETWORKS, SEED)]
        tables = {
            name: lab.predict(target, space=space, archs=archs, predictor=PredictorOptions(spaces_from=which)).table
            for name, which in (("from cells", "all"), ("alone", "none"))
        }
        found[space] = archs, tables
    macs, costs = [], learn_costs(lab.store, lab.cache, target)
    predictions = []
    for name, path, shape in own:
        inputs = InputOptions(() if shape is None else ("x".join(map(str, shape)),))
        predictions.append((name, path, inputs, lab.predict_model(target, path, inputs=inputs)))
    slope = line(costs.posterior)

    for space, (archs, tables) in found.items():  # nothing is predicted from here on
        measured = lab.measure("local", space=space, archs=archs, options=options, raw=False).rows
        label = (
            measured[measured["status"] == "ok"].drop_duplicates("arch", keep="last").set_index("arch")["latency_ms"]
        )
        for name, table in tables.items():
            table = table[table["arch"].isin(label.index)]
            truth = label.loc[table["arch"]].to_numpy(float)
            rows.append({"runtime": runtime, "of": space, "learnt": name, **figures(table, truth)})
    truth, kept = [], []
    for name, path, inputs, one in predictions:
        try:
            measured = lab.measure("local", model=path, inputs=inputs, options=options, raw=False).rows
        except LatlabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        truth.append(float(measured["latency_ms"].iloc[-1]))
        kept.append({"latency_ms": one.latency_ms, "lower_ms": one.lower_ms, "upper_ms": one.upper_ms})
        macs.append(one.macs)
    columns = {key: np.array([one[key] for one in kept]) for key in kept[0]}
    labels = np.array(truth)
    rows.append({"runtime": runtime, "of": "own models", "learnt": "from cells", **figures(columns, labels)})
    by_line = {"latency_ms": slope[0] + slope[1] * np.array(macs, float)}
    rows.append({"runtime": runtime, "of": "own models", "learnt": "a line in MACs", **figures(by_line, labels)})
    show(f"{runtime}: after {BUDGET} cells", rows)
    earlier = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    save(arguments.out, {"rows": [one for one in earlier if one["runtime"] != runtime] + rows})


def prepare(cache_folder: Path, format_: str) -> None:
    """Export all networks, so that nothing is exported while the clock runs."""
    cache = ArtifactCache(cache_folder)
    texts = [(space, arch.text) for space in SPACES for arch in get(space).sample(NETWORKS, SEED)]
    for number, (space, text) in enumerate(texts, 1):
        try:
            cache.ensure(ExportRequest(space, text, format_))
        except ExportError as error:
            print(f"{text}: {error}", file=sys.stderr)
        print(f"{number} of {len(texts)}", end="\r", file=sys.stderr)


def line(posterior: Any) -> np.ndarray:
    """Return intercept and slope of latency over multiply-accumulates, of the least squared relative error."""
    works, latency = posterior.measured()
    macs = np.array([work.macs for work in works], float)
    return np.linalg.lstsq(np.stack([1 / latency, macs / latency], axis=1), np.ones(len(latency)), rcond=None)[0]


def figures(table: Any, truth: np.ndarray) -> dict[str, Any]:
    """Return how good predictions are."""
    predicted = np.asarray(table["latency_ms"], float)
    error = np.abs(predicted / truth - 1)
    inside = None
    if "lower_ms" in table:
        inside = float(
            100 * ((np.asarray(table["lower_ms"]) <= truth) & (truth <= np.asarray(table["upper_ms"]))).mean()
        )
    return {
        "n": len(truth),
        "spearman": spearman(predicted, truth),
        "mape_percent": mape_percent(predicted, truth),
        "bias_percent": float(100 * np.median(predicted / truth - 1)),
        "within_20_percent": float(100 * (error <= 0.2).mean()),
        "coverage_percent": inside,
    }


if __name__ == "__main__":
    main()
