"""Exports in fp16, bf16 and int8: do random networks of each space pass the comparison, and how fast are they?

Four tables: exports, comparisons and XNNPACK partitions of random networks; what a changed layer does to the
comparison; latency over that of the fp32 file (alternating rounds, 1 thread); and int8 TFLite files beside those of
Google's ai-edge-quantizer (`pip install ai-edge-quantizer==0.10.0`, left out if it is missing).

    python benchmarks/precision.py --networks 100 --formats tflite
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from common import RESULTS, save, show
from litert_reference import alternate, quiet
from torch import nn

from latlab import search_spaces
from latlab.agents import runtimes
from latlab.agents.runtimes import InputRequest
from latlab.harness.exporters import ExportError, ExportRequest, get_exporter
from latlab.harness.exporters.calibration import calibration_images
from latlab.harness.exporters.layers.comparison import layer_errors
from latlab.harness.exporters.layers.tflite import LayeredTFLite
from latlab.harness.exporters.parity import in_file_layout, parity_images
from latlab.harness.exporters.pipeline import produce
from latlab.harness.exporters.rounded_parity import compare_rounded
from latlab.search_spaces import Architecture, SearchSpace

SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3", "nasbench201-blocks", "fbnet-blocks", "ofa-mobilenetv3-blocks")
PERTURBED = ("nasbench201", "fbnet", "ofa-mobilenetv3")
FACTORS = (1.1, 1.25, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=100, metavar="N", help="random networks of each space")
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), metavar="SPACE")
    parser.add_argument("--formats", nargs="+", default=["tflite", "onnx", "torchscript"], metavar="FORMAT")
    parser.add_argument("--perturbed", type=int, default=3, metavar="N", help="networks of each space to change")
    parser.add_argument("--latency", type=int, default=5, metavar="N", help="networks of each space to time")
    parser.add_argument("--rounds", type=int, default=10, help="alternating rounds per network")
    parser.add_argument("--reference", type=int, default=10, metavar="N", help="networks for ai-edge-quantizer")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    parser.add_argument("--out", type=Path, default=RESULTS / "precision.json", help="JSON of all figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    figures: dict[str, Any] = {
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name != "out"}
    }
    for title, part in (
        ("exports", exports), ("perturbed", perturbed), ("latency", latency), ("reference", reference)
    ):  # fmt: skip
        figures[title] = []
        with suppress(KeyboardInterrupt):  # Ctrl-C ends a part; what it has is kept
            for row in part(arguments):
                figures[title].append(row)
        save(arguments.out, figures)
    for title, summary in (
        ("Random networks that pass the comparison", exports_summary(figures["exports"])),
        ("Largest error of a layer after one layer's weights were multiplied", figures["perturbed"]),
        ("Latency over that of fp32", latency_summary(figures["latency"])),
        ("int8 TFLite beside ai-edge-quantizer's", figures["reference"]),
    ):
        if summary:
            show(title, summary)


def sampled(
    arguments: argparse.Namespace, count: int, spaces: Sequence[str]
) -> Iterator[tuple[SearchSpace, Architecture]]:
    for name in arguments.spaces:
        if name in spaces:
            space = search_spaces.get(name)
            most = min(count, space.size)  # NAS-Bench-201 has 19 blocks
            for arch in space.sample(most, arguments.seed):
                yield space, arch


def precisions(format: str) -> tuple[str, ...]:
    return tuple(one for one in get_exporter(format).precisions if one != "fp32")


def exports(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Export and compare each network in each precision."""
    networks = {name: [arch for _, arch in sampled(arguments, arguments.networks, [name])] for name in arguments.spaces}
    for turn in range(arguments.networks):  # one of each space in turn, so that a run that is stopped has some of all
        for name, own in networks.items():
            if turn >= len(own):
                continue
            arch = own[turn]
            for format in arguments.formats:
                for precision in precisions(format):
                    row = {"space": name, "arch": arch.text, "format": format, "precision": precision}
                    yield row | export(ExportRequest(name, arch.text, format, 1, precision))
            print(f"{turn:4d} {name:24s} {arch.text}", file=sys.stderr, flush=True)


def export(request: ExportRequest) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        try:
            product = produce(request, path)
        except ExportError as error:
            return {"passed": False, "why": f"{error.kind}: {error}"}
        layers = product.parity.layers
        assert layers is not None
        row = {"passed": True, "export_s": product.export_s, "parity_s": product.parity_s, "steps": layers.steps}
        row |= {"saturated": layers.saturated, "sqnr_db": layers.sqnr_db, "bytes": path.stat().st_size}
        if request.format == "tflite":
            with runtimes.open("tflite", path) as session:
                found = session.delegation
                assert found is not None
                row["whole"] = found.partitions == 1 and found.delegated == found.operators
        return row


def exports_summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for key in dict.fromkeys((row["space"], row["format"], row["precision"]) for row in rows):
        own = [row for row in rows if (row["space"], row["format"], row["precision"]) == key]
        good = [row for row in own if row["passed"]]
        sqnr = [row["sqnr_db"] for row in good if row["sqnr_db"] is not None]
        table.append(
            {
                "space": key[0],
                "file": f"{key[1]} {key[2]}",
                "passed": f"{len(good)}/{len(own)}",
                "one partition": f"{sum(row['whole'] for row in good)}/{len(good)}" if key[1] == "tflite" else None,
                "worst layer, steps": max((row["steps"] for row in good), default=None),
                "saturated": max((row["saturated"] for row in good), default=None),
                "SQNR, dB": f"{statistics.median(sqnr):.1f} ({min(sqnr):.1f}..{max(sqnr):.1f})" if sqnr else None,
                "export, s": statistics.median(row["export_s"] for row in good) if good else None,
                "compare, s": statistics.median(row["parity_s"] for row in good) if good else None,
            }
        )
    return table


def perturbed(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Multiply the weights of one layer, of three places in the network, and compare with the file of before."""
    for format in arguments.formats:
        for precision in precisions(format):
            found: dict[float, list[float]] = {factor: [] for factor in FACTORS}
            for space, arch in sampled(arguments, arguments.perturbed, PERTURBED):
                for factor, steps in changes(space, arch, format, precision):
                    found[factor].append(steps)
            row: dict[str, Any] = {"file": f"{format} {precision}", "layers": len(found[FACTORS[0]])}
            yield row | {f"x {factor:g}: least (median)": _least(steps) for factor, steps in found.items()}


def _least(values: Sequence[float]) -> str | None:
    return f"{min(values):.3g} ({statistics.median(values):.3g})" if values else None


def changes(space: SearchSpace, arch: Architecture, format: str, precision: str) -> Iterator[tuple[float, float]]:
    module = space.build(arch)
    shape = (1, *space.input_shape(arch))
    exporter = get_exporter(format)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net"
        exporter.export_in(precision, module, torch.zeros(shape), path)
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer in (layers[0], layers[len(layers) // 2], layers[-1]):
            kept = layer.weight.data.clone()
            for factor in FACTORS:
                layer.weight.data.mul_(factor)
                parity = compare_rounded(module, exporter, path, shape, precision)
                layer.weight.data.copy_(kept)
                assert parity.layers is not None
                yield factor, parity.layers.steps


def latency(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time all precisions of a network in alternating rounds."""
    for space, arch in sampled(arguments, arguments.latency, PERTURBED):
        module = space.build(arch)
        shape = (1, *space.input_shape(arch))
        for format in arguments.formats:
            exporter = get_exporter(format)
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                sessions = {}
                for precision in exporter.precisions:
                    path = Path(folder) / precision
                    if precision == "fp32":
                        exporter.export(module, torch.zeros(shape), path)
                    else:
                        exporter.export_in(precision, module, torch.zeros(shape), path)
                    inputs = [InputRequest(shape=exporter.file_shape(shape))]
                    sessions[precision] = stack.enter_context(runtimes.open(exporter.runtime, path, inputs=inputs))
                found = alternate(sessions, arguments.rounds)
            yield {"space": space.name, "arch": arch.text, "runtime": exporter.runtime, "latency_ms": found}


def latency_summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    table = []
    for space, runtime in dict.fromkeys((row["space"], row["runtime"]) for row in rows):
        own = [row["latency_ms"] for row in rows if (row["space"], row["runtime"]) == (space, runtime)]
        line: dict[str, Any] = {"space": space, "runtime": runtime, "networks": len(own)}
        line["fp32, ms"] = statistics.median(one["fp32"] for one in own)
        for precision in ("fp16", "bf16", "int8"):
            ratios = sorted(one[precision] / one["fp32"] for one in own if precision in one)
            shown = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}..{ratios[-1]:.3f})" if ratios else None
            line[f"{precision} / fp32"] = shown
        table.append(line)
    return table


def reference(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare with ai-edge-quantizer, applied to latlab's fp32 file and calibrated on the same images."""
    try:
        import ai_edge_quantizer  # noqa: F401
    except ImportError:
        print("ai-edge-quantizer is not installed: its comparison is left out", file=sys.stderr)
        return
    if "tflite" not in arguments.formats:
        return
    for name in PERTURBED:
        rows = [
            beside(space, arch, arguments.rounds) for space, arch in sampled(arguments, arguments.reference, [name])
        ]
        if rows:
            ratios = sorted(row["ratio"] for row in rows)

            def most(what: str, rows: Sequence[dict[str, Any]] = rows) -> tuple[float, float]:
                return max(row[what][0] for row in rows), max(row[what][1] for row in rows)

            yield {
                "space": name,
                "networks": len(rows),
                "partitions (theirs)": "{} ({})".format(*most("partitions")),
                "worst layer, steps (theirs)": "{:.2f} ({:.2f})".format(*most("steps")),
                "layers within one step of theirs": f"{min(r['alike'] for r in rows):.1%}",
                "latency / theirs": f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}..{ratios[-1]:.3f})",
                "theirs in one piece": _in_one_piece(rows),
                "quantise, s (theirs)": f"{statistics.median(r['seconds'][0] for r in rows):.2f} "
                f"({statistics.median(r['seconds'][1] for r in rows):.2f})",
            }


def _in_one_piece(rows: Sequence[dict[str, Any]]) -> str:
    ratios = [row["ratio"] for row in rows if row["partitions"][1] == 1]
    return f"{len(ratios)}: {statistics.median(ratios):.3f}" if ratios else "0"


def beside(space: SearchSpace, arch: Architecture, rounds: int) -> dict[str, Any]:
    """Return both int8 files' partitions, largest errors of a layer and latencies."""
    module = space.build(arch)
    shape = (1, *space.input_shape(arch))
    exporter = get_exporter("tflite")
    inputs = [in_file_layout(exporter, image[None].numpy()) for image in parity_images(shape)]
    with tempfile.TemporaryDirectory() as folder:
        plain, ours, theirs = (Path(folder) / f"{name}.tflite" for name in ("plain", "ours", "theirs"))
        exporter.export(module, torch.zeros(shape), plain)
        start = time.perf_counter()
        exporter.export_in("int8", module, torch.zeros(shape), ours)
        between = time.perf_counter()
        calibration = calibration_images(shape).permute(0, 2, 3, 1).contiguous().numpy()
        quantize(plain, theirs, [image[None] for image in calibration])
        seconds = between - start, time.perf_counter() - between
        errors = [
            {error.name: error.steps for error in layer_errors(LayeredTFLite, "int8", plain, path, inputs)}
            for path in (ours, theirs)
        ]
        with runtimes.open("tflite", ours) as a, runtimes.open("tflite", theirs) as b:
            assert a.delegation is not None
            assert b.delegation is not None
            found = alternate({"ours": a, "theirs": b}, rounds)
            partitions = a.delegation.partitions, b.delegation.partitions
    # Two files whose layers are both within half a step of the fp32 layer are within one step of each other.
    common = [name for name in errors[0] if name in errors[1]]
    alike = statistics.mean(errors[0][name] + errors[1][name] <= 1.0 for name in common)
    return {
        "partitions": partitions,
        "steps": (max(errors[0].values()), max(errors[1].values())),
        "alike": alike,
        "ratio": found["ours"] / found["theirs"],
        "seconds": seconds,
    }


def quantize(plain: Path, path: Path, images: Sequence[np.ndarray]) -> None:
    """Quantise a TFLite file by ai-edge-quantizer, int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe

    signed = path.with_suffix(".signed.tflite")
    signed.write_bytes(with_signature(plain))
    logging.disable(logging.WARNING)
    with quiet():
        one = quantizer.Quantizer(str(signed), recipe.static_wi8_ai8())
        result = one.quantize(one.calibrate({"serving_default": [{"input_0": image} for image in images]}))
        result.export_model(str(path), overwrite=True)
    path.write_bytes(with_constants_inside(path))


def with_signature(path: Path) -> bytes:
    """Return a TFLite file with the signature that ai-edge-quantizer asks for; latlab's files have none."""
    model = read(path)
    graph = model.subgraphs[0]
    model.signatureDefs = [
        schema.SignatureDefT(
            signatureKey=b"serving_default",
            subgraphIndex=0,
            inputs=[schema.TensorMapT(name=b"input_0", tensorIndex=int(graph.inputs[0]))],
            outputs=[schema.TensorMapT(name=b"output_0", tensorIndex=int(graph.outputs[0]))],
        )
    ]
    return packed(model)


def with_constants_inside(path: Path) -> bytes:
    """Return a TFLite file with all constants in its buffers; ai-edge-quantizer appends the large ones to the file."""
    content, model = path.read_bytes(), read(path)
    for buffer in model.buffers:
        if buffer.offset > 1:
            data = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(data, np.uint8), 0, 0
    return packed(model)


def read(path: Path) -> Any:
    return schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    main()
