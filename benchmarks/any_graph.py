"""Any operator graph: thirty operators are measured, then other models; predicted against measured.

    python benchmarks/any_graph.py --work FOLDER --prepare                                # exports the models
    python benchmarks/any_graph.py --work FOLDER [--runtime tflite] [--over ssh] [--wheels FOLDER]

It takes four minutes a runtime. With `--over ssh` this machine is measured through a real sshd.

On a machine that others use, call it again with --again: models are measured in one more session, and their shortest
labels count. The constants of the predictor were chosen with one half of the models, which a seed draws; the other half
is `blind`.

Models: standard networks built here (`any_graph_models.py`), the light models in the wheel of onnx, and with --wheels
those that benchmarks/model_zoo.py has fetched into FOLDER. Everything is measured on this machine by latlab itself, on
one thread. Nothing is fitted to the models: the predictor sees the operators only, and so does the line in MACs. For
comparison there is also what 20 cells of NAS-Bench-201 teach (--cells).
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from any_graph_models import NETWORKS
from common import RESULTS, save, show
from loopback import inventory
from scipy.optimize import nnls

from latlab.harness.active_learning.learnt_costs import LearntCosts, learn_costs
from latlab.harness.active_learning.model_prediction import work_of_artifact
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import ExportError, get_exporter
from latlab.harness.lab import Lab
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.own_model import own_model
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import USER_MODEL_SPACE
from latlab.harness.targets import RUNTIMES, Target
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.predictors.graph import CostPosterior, Work

GOALS = "goals: 75 % within 20 %, 50 % within 10 %, 85-95 % inside the 90 % interval"
SHAPES = {
    "320n": "1x3x320x320", "ch_PP-OCRv4_det_infer": "1x3x320x320", "ch_PP-OCRv4_rec_infer": "1x3x48x320",
    "en_PP-OCRv4_rec_infer": "1x3x48x320", "ch_ppocr_mobile_v2.0_cls_infer": "1x3x48x192", "melspectrogram": "1x16000",
}  # fmt: skip
"""Shapes of inputs that the files of the wheels leave open."""
SMALLEST = 30_000
"""Bytes: smaller files are single operators or toys."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="store, cache and models are kept there")
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "tflite", "torchscript"))
    parser.add_argument("--over", default="local", choices=("local", "ssh"))
    parser.add_argument("--prepare", action="store_true", help="only export the models: no clock is read")
    parser.add_argument("--again", action="store_true", help="measure models that have labels in one more session")
    parser.add_argument("--budget", type=int, default=30, help="operators to measure")
    parser.add_argument("--cells", type=int, default=0, help="also measure so many NAS-Bench-201 cells, to learn from")
    parser.add_argument("--wheels", type=Path, help="folder of benchmarks/model_zoo.py")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    work, runtime = arguments.work.resolve(), arguments.runtime
    work.mkdir(parents=True, exist_ok=True)

    if arguments.prepare:
        print(sum(1 for _ in models(work / "models", runtime, arguments.wheels)), "models")
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        evaluate(arguments, work, inventory(arguments.over, Path(folder) / "ssh", stack))


def evaluate(arguments: argparse.Namespace, work: Path, devices: Path | None) -> None:
    """Measure what has no label yet, and show and save the figures."""
    over, runtime = arguments.over, arguments.runtime
    place = runtime if over == "local" else f"{over}_{runtime}"
    target = Target(over, runtime)
    options = TargetOptions(runtime=runtime, threads=1)
    lab = Lab(work / f"{place}.db", inventory=devices, cache=work / "cache")
    begin = time.perf_counter()
    lab.onboard(over, space="operators", budget=arguments.budget, options=options, out=work / f"report-{place}")
    onboarded_s = time.perf_counter() - begin
    costs = learn_costs(lab.store, lab.cache, target, "operators")
    models_lab = Lab(
        work / f"{place}-models.db", inventory=devices, cache=lab.cache.folder
    )  # in one store they would be learnt from
    posterior, labels = costs.posterior, dict(costs.labels)
    print(f"learnt from {labels}, {onboarded_s:.0f} s", file=sys.stderr)

    rows, works = [], []
    for name, path, shape in models(work / "models", runtime, arguments.wheels):
        try:
            row, graph = measured(models_lab, target, options, name, path, shape, arguments.again)
        except (LatlabError, ExportError) as error:
            print(f"{name}: {' '.join(str(error).split())[:160]}", file=sys.stderr)
            continue
        print(f"{name}: {row['measured_ms']:.3g} ms", file=sys.stderr)
        rows.append(row)
        works.append(graph)
    predict(posterior, rows, works)
    show(f"{place}: predicted from {arguments.budget} operators", rows)
    summaries = [summary(f"{arguments.budget} operators", rows), *lines(posterior, rows, works)]
    known, blind = halves(rows)
    for name, half in (("half of the models, for development", known), ("the other half, blind", blind)):
        summaries.append(summary(f"{arguments.budget} operators: {name}", [rows[at] for at in half]))
    summaries.append(with_models(costs, rows, works, known, blind))
    if arguments.cells:
        summaries.append(from_cells(lab, devices, target, options, arguments.cells, works, rows))
    show(f"{place}, {len(rows)} models; {GOALS}", summaries)
    figures = {
        "runtime": runtime,
        "over": over,
        "labels": labels,
        "onboarded_s": onboarded_s,
        **speed(posterior, works),
    }
    print(figures)
    out = arguments.out or RESULTS / f"any_graph_{place}.json"
    save(out, {**figures, "goals": GOALS, "summaries": summaries, "models": rows})


def halves(rows: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Return the places of the models that constants were chosen with, and of the others."""
    names = sorted(row["model"] for row in rows)
    chosen = set(random.Random(13).sample(names, len(names) // 2))
    known = [at for at, row in enumerate(rows) if row["model"] in chosen]
    return known, [at for at in range(len(rows)) if at not in known]


def models(folder: Path, runtime: str, wheels: Path | None) -> Iterator[tuple[str, Path, tuple[int, ...] | None]]:
    """Yield each model's name, file, and shape of its input where the file does not keep it."""
    folder.mkdir(exist_ok=True)
    exporter = get_exporter(RUNTIMES[runtime].format)
    for name, (make, shape) in NETWORKS.items():
        path = folder / f"{re.sub('[^a-z0-9.]+', '_', name)}{exporter.suffix}"
        if not path.exists():
            torch.manual_seed(0)
            try:
                exporter.export(make().eval().requires_grad_(False), torch.zeros(1, *shape), path)
            except ExportError as error:
                print(f"{name} cannot be exported: {error}", file=sys.stderr)
                continue
        yield name, path, (1, *shape) if runtime == "torchscript" else None
    files = []
    if runtime == "onnxruntime":
        files += sorted(Path(onnx.__file__).parent.glob("backend/test/data/light/light_*.onnx"))
    if wheels is not None:
        files += sorted((wheels / "models").rglob(f"*{exporter.suffix}"))
    for path in files:
        if path.stat().st_size >= SMALLEST and "/own/" not in str(path):
            given = SHAPES.get(path.stem)
            yield path.stem, path, None if given is None else tuple(map(int, given.split("x")))


def measured(
    lab: Lab,
    target: Target,
    options: TargetOptions,
    name: str,
    path: Path,
    shape: tuple[int, ...] | None,
    again: bool,
) -> tuple[dict[str, Any], Work]:
    """Return a model's row of the table and its kernels; it is measured if it has no label, or `again`.

    The shortest label of all sessions in the store counts: other programs can only make a model slower.
    """
    inputs = InputOptions(() if shape is None else ("x".join(map(str, shape)),))
    own = own_model(path, inputs, target)
    graph = work_of_artifact(own.artifact(lab.cache.folder), lab.cache)
    lab.measure(target.device, model=path, inputs=inputs, options=options, raw=False, new_session=again)
    table = lab.store.table(target=str(target), space=USER_MODEL_SPACE, only=LABELS)
    table = table[(table["status"] == "ok") & (table["arch"] == own.name)]
    if table.empty:
        raise LatlabError(f"{name} has no label")
    label = table.loc[table["latency_ms"].idxmin()]
    row = {"model": name, "MMACs": graph.macs / 1e6, "measured_ms": float(label["latency_ms"])}
    return {**row, "stderr_ms": float(label["stderr_ms"])}, graph


def predict(posterior: CostPosterior, rows: list[dict[str, Any]], works: list[Work]) -> None:
    """Add predictions to rows."""
    for row, found in zip(rows, posterior.predict(works), strict=True):
        row.update(predicted_ms=found.latency_ms, lower_ms=found.lower_ms, upper_ms=found.upper_ms)
        row["error_percent"] = 100 * (found.latency_ms / row["measured_ms"] - 1)
        row["unseen"] = " ".join(found.unseen)


def summary(
    name: str, rows: list[dict[str, Any]], predicted: np.ndarray | None = None, intervals: bool = True
) -> dict[str, Any]:
    """Return the figures of predictions: those of the rows, or `predicted` in ms."""
    truth = np.array([row["measured_ms"] for row in rows])
    got = np.array([row["predicted_ms"] for row in rows]) if predicted is None else predicted
    error = np.abs(got / truth - 1)
    inside = [row["lower_ms"] <= row["measured_ms"] <= row["upper_ms"] for row in rows] if intervals else []
    width = [np.sqrt(row["upper_ms"] / row["lower_ms"]) for row in rows] if intervals else []
    return {
        "learnt from": name,
        "spearman": spearman(got, truth),
        "mape_percent": mape_percent(got, truth),
        "median_error_percent": float(100 * np.median(error)),
        "within_10_percent": float(100 * (error <= 0.1).mean()),
        "within_20_percent": float(100 * (error <= 0.2).mean()),
        "coverage_percent": float(100 * np.mean(inside)) if inside else None,
        "interval_factor": float(np.median(width)) if width else None,
    }


def with_models(
    costs: LearntCosts, rows: list[dict[str, Any]], works: list[Work], known: list[int], blind: list[int]
) -> dict[str, Any]:
    """Return the figures of the blind half if the labels of the other half are learnt from, too."""
    measured, latency = costs.posterior.measured()
    more = [rows[at]["measured_ms"] for at in known]
    posterior = CostPosterior([*measured, *(works[at] for at in known)], [*latency, *more])
    mine = [{"measured_ms": rows[at]["measured_ms"]} for at in blind]
    predict(posterior, mine, [works[at] for at in blind])
    return summary(f"operators and {len(known)} models: the other half", mine)


def lines(posterior: CostPosterior, rows: list[dict[str, Any]], works: list[Work]) -> list[dict[str, Any]]:
    """Return the figures of latency as a line in MACs: fitted to the same operators, and to the other models.

    Both minimise the squared relative error, with an intercept and a slope that are not negative.
    """
    known, latency = posterior.measured()
    macs = np.array([work.macs for work in works], float)
    truth = np.array([row["measured_ms"] for row in rows])

    def line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return nnls(np.stack([1 / y, x / 1e9 / y], axis=1), np.ones(len(y)))[0]

    def at(fit: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.asarray(fit[0] + fit[1] * x / 1e9)

    operators = at(line(np.array([work.macs for work in known], float), latency), macs)
    others = np.array([at(line(np.delete(macs, i), np.delete(truth, i)), macs[i]) for i in range(len(rows))])
    return [
        summary("a line in MACs, the same operators", rows, operators, intervals=False),
        summary("a line in MACs, all other models", rows, others, intervals=False),
    ]


def from_cells(
    lab: Lab,
    devices: Path | None,
    target: Target,
    options: TargetOptions,
    count: int,
    works: list[Work],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the figures of what cells of NAS-Bench-201 alone teach."""
    path = lab.store.path.with_name(f"cells-{lab.store.path.name}")
    cells = Lab(path, inventory=devices, cache=lab.cache.folder)
    cells.measure(target.device, space="nasbench201", count=count, options=options, raw=False)
    posterior = learn_costs(cells.store, cells.cache, target).posterior
    mine = [{"measured_ms": row["measured_ms"], "model": row["model"]} for row in rows]
    predict(posterior, mine, works)
    return summary(f"{count} cells of NAS-Bench-201", mine)


def speed(posterior: CostPosterior, works: list[Work]) -> dict[str, float]:
    """Return milliseconds of an adaptation, and predictions per second from parsed graphs."""
    known, latency = posterior.measured()
    begin = time.perf_counter()
    CostPosterior(known, latency)
    adapted = time.perf_counter()
    posterior.predict(works * 4)
    return {"adapt_ms": 1e3 * (adapted - begin), "graphs_per_s": 4 * len(works) / (time.perf_counter() - adapted)}


if __name__ == "__main__":
    main()
