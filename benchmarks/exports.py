"""Figure 2: exported files agree with eager PyTorch, and how many exports an hour of one core gives.

    python benchmarks/exports.py --per-space 200 --speed 100

Agreement: random architectures of each space are exported to each format. Each export is compared as always
(`parity.py`). Then this script compares the files that passed with other images: a file that disagrees now would be a
silent failure. It also enlarges one layer's weights, which the comparison must notice: by 1 %, or by 50 % for a layer
that contributes too little to the output (next to skip connections that add up).

Speed: CPU seconds of one core for building, calibrating, exporting and comparing NAS-Bench-201 networks. For
comparison, torch's dynamo exporter (needs onnxscript) and litert-torch, which only convert, are timed if they are
installed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, save, show
from litert_reference import convert, quiet
from torch import nn

from latlab.harness.exporters import Exporter, ExportError, ExportRequest, get_exporter
from latlab.harness.exporters.parity import compare
from latlab.harness.exporters.pipeline import produce
from latlab.search_spaces import SearchSpace, get
from latlab.search_spaces import names as space_names

FORMATS = ("onnx", "torchscript", "tflite")
TARGETS = {"onnx": 8_000, "torchscript": 6_000, "tflite": 20_000}
"""Exports per core-hour that the project asks for."""

WARM_UP = 5
"""Exports before the clock starts: imports, caches, pools of random numbers."""

OTHER_IMAGES = 2
"""Seed of the images of the second comparison; the exporters' own uses 1."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-space", type=int, default=200, metavar="N", help="architectures for agreement")
    parser.add_argument("--perturbed", type=int, default=50, metavar="N", help="of which with changed weights")
    parser.add_argument("--speed", type=int, default=100, metavar="N", help="architectures for speed")
    parser.add_argument("--reference", type=int, default=3, metavar="N", help="of which to the other exporters")
    parser.add_argument(
        "--spaces",
        nargs="+",
        default=[name for name in space_names(buildable=True) if not get(name).autoregressive],
        metavar="SPACE",
    )
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS, metavar="FORMAT")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    parser.add_argument("--as-written", action="store_true", help="published forms, dead edges kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "exports.json", help="parts not run are kept in it")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.speed:
        figures["speed"] = speed(arguments.speed, arguments.reference, arguments.formats, arguments.seed)
        show("NAS-Bench-201, one core; the three exporters with building and comparison", figures["speed"])
        save(arguments.out, figures)
    if arguments.per_space:
        rows = []
        for name in arguments.spaces:
            archs = [arch.text for arch in get(name).sample(arguments.per_space, arguments.seed)]
            for file_format in arguments.formats:
                rows.append(agreement(get(name), archs, file_format, arguments.as_written, arguments.perturbed))
                print(rows[-1], file=sys.stderr, flush=True)
                # Kept at once: all of it takes an hour. Rows of other spaces and formats stay.
                figures["agreement"] = merged(figures.get("agreement"), rows, arguments.seed, arguments.as_written)
                save(arguments.out, figures)
        shown = [{key: value for key, value in row.items() if key != "failures"} for row in rows]
        show("Agreement with eager PyTorch", shown)


def merged(
    before: dict[str, Any] | None, rows: Sequence[dict[str, Any]], seed: int, as_written: bool
) -> dict[str, Any]:
    """Return these rows, and the earlier ones with the same settings that they do not replace."""
    settings = {"seed": seed, "as_written": as_written}
    old = before["rows"] if before and {key: before[key] for key in settings} == settings else []
    done = {(row["space"], row["format"]) for row in rows}
    kept = [row for row in old if (row["space"], row["format"]) not in done]
    return {**settings, "rows": sorted([*kept, *rows], key=lambda row: (row["space"], row["format"]))}


def agreement(
    space: SearchSpace, archs: Sequence[str], file_format: str, as_written: bool, perturbed: int
) -> dict[str, Any]:
    """Count the networks that agree, the wrong files that pass, and the changed weights that are noticed."""
    counts: Counter[str] = Counter()
    failures = []
    largest = 0.0
    exporter = get_exporter(file_format)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{exporter.suffix}"
        for text in archs:
            request = ExportRequest(space.name, text, file_format, as_written=as_written)
            try:
                parity = produce(request, path).parity
            except ExportError as error:
                counts[error.kind] += 1
                failures.append({"arch": text, "kind": error.kind, "message": error.message})
                continue
            arch = space.parse(text)
            module = space.build(arch, as_written=as_written)
            shape, constant = (1, *space.input_shape(arch)), space.is_constant(arch)
            counts["agree"] += 1
            counts["exempt"] += parity.exempt is not None
            counts["enlarged"] += parity.contrast > 1.0
            if not constant:
                largest = max(largest, parity.max_abs_diff / parity.tolerance)
            again = compare(module, exporter, path, shape, constant=constant, seed=OTHER_IMAGES)
            if not again.passed or (again.exempt is not None) != constant:
                counts["silent"] += 1
                failures.append({"arch": text, "kind": "silent", "message": str(again)})
            if not constant and counts["perturbed"] < perturbed:
                counts["perturbed"] += 1
                noticed = [perturbation_noticed(module, factor, text, exporter, path, shape) for factor in (1.01, 1.5)]
                counts["noticed at 1 %"] += noticed[0]
                counts["noticed at 50 %"] += noticed[1]
    return {
        "space": space.name,
        "format": file_format,
        "networks": len(archs),
        "agree": counts["agree"],
        "exempt (constant)": counts["exempt"],
        "images enlarged": counts["enlarged"],
        "silent failures": counts["silent"],
        "perturbed layers": counts["perturbed"],
        "noticed at 1 %": counts["noticed at 1 %"],
        "noticed at 50 %": counts["noticed at 50 %"],
        "largest difference / tolerance": largest,
        "CPU s": time.process_time() - start,
        "failures": failures,
    }


def perturbation_noticed(
    module: nn.Module, factor: float, text: str, exporter: Exporter, path: Path, shape: tuple[int, ...]
) -> bool:
    """Return whether the comparison fails if the weights of one layer, drawn by the architecture's name, are scaled."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    layer = random.Random(text).choice(layers)
    kept = layer.weight.clone()
    layer.weight.mul_(factor)
    try:
        return not compare(module, exporter, path, shape).passed
    finally:
        layer.weight.copy_(kept)


def speed(count: int, reference: int, formats: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Return CPU seconds and exports per core-hour on NAS-Bench-201."""
    space = get("nasbench201")
    archs = space.sample(WARM_UP + count, seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for file_format in formats:
            path = Path(folder) / "net"
            parts: list[tuple[float, float, float]] = []
            for index, arch in enumerate(archs):
                if index == WARM_UP:
                    start = time.process_time()
                product = produce(ExportRequest(space.name, arch.text, file_format), path)
                if index >= WARM_UP:
                    parts.append((product.build_s, product.export_s, product.parity_s))
            cpu_s = (time.process_time() - start) / count
            row = _row(file_format, count, cpu_s, TARGETS[file_format])
            for name, values in zip(("build", "export", "parity"), zip(*parts, strict=True), strict=True):
                row[f"{name} wall ms"] = 1e3 * sum(values) / count
            rows.append(row)
        for name, package, way in (
            ("onnx, torch's dynamo exporter", "onnxscript", _dynamo),
            ("tflite, litert-torch", "litert-torch", convert),
        ):
            if reference:
                rows.append(_reference(name, package, way, archs[: 1 + reference], Path(folder) / "net.tflite"))
    return rows


def _row(name: str, networks: int, cpu_s: float | None, target: int | None) -> dict[str, Any]:
    return {
        "exporter": name,
        "networks": networks,
        "CPU s": cpu_s,
        "exports per core-hour": None if cpu_s is None else round(3600 / cpu_s),
        "target": target,
        "build wall ms": None,
        "export wall ms": None,
        "parity wall ms": None,
    }


def _reference(
    name: str,
    package: str,
    way: Callable[[nn.Module, tuple[int, ...], Path], None],
    archs: Sequence[Any],
    path: Path,
) -> dict[str, Any]:
    """Time another exporter on the same networks, conversion only; the first network warms it up."""
    try:
        version(package)
    except PackageNotFoundError:
        return _row(f"{name} ({package} is not installed)", 0, None, None)
    taken = []
    for arch in archs:
        module = get("nasbench201").build(arch)
        start = time.process_time()
        way(module, (1, 3, 32, 32), path)
        taken.append(time.process_time() - start)
    return _row(name, len(taken) - 1, sum(taken[1:]) / (len(taken) - 1), None)


def _dynamo(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, (torch.zeros(*shape),), dynamo=True)
        assert program is not None
        program.save(io.BytesIO())


if __name__ == "__main__":
    main()
