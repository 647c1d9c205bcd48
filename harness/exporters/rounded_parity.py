"""The comparison of an fp16, bf16 or int8 file with eager PyTorch.

Three steps. The fp32 file of the same network must agree with eager PyTorch by the rule of `parity.py`. Every layer of
the file must agree with that of the fp32 file, up to rounding (`layers/comparison.py`, which says why not end to end).
And the file itself must run in its runtime, give outputs of eager PyTorch's shapes, and no infinite ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlab.agents.protocol.errors import AgentError
from latlab.harness.exporters.base import Exporter, ExportError, LayerParity, Parity
from latlab.harness.exporters.layers.base import LayeredFile
from latlab.harness.exporters.layers.comparison import TOLERANCES, LayerError, layer_errors
from latlab.harness.exporters.parity import compare, eager_outputs, in_file_layout, judge, parity_images, run_file

if TYPE_CHECKING:
    from torch import nn

    Array = np.ndarray[Any, Any]

__all__ = ["compare_rounded"]


def compare_rounded(
    module: nn.Module,
    exporter: Exporter,
    path: Path,
    shape: Sequence[int],
    precision: str,
    *,
    constant: bool = False,
    rows_independent: bool = True,
    seed: int = 1,
) -> Parity:
    """Compare the file at `path`, written in `precision`, with `module`. Other arguments are those of `compare`.

    Raises:
        ExportError: the runtime does not load or run the file; its kind is the runtime's.
    """
    import torch

    kind = _cutter(exporter)
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / f"fp32{exporter.suffix}"
        with torch.no_grad():
            exporter.export(module, torch.zeros(*shape), reference)
        exact = compare(
            module, exporter, reference, shape, constant=constant, rows_independent=rows_independent, seed=seed
        )
        if not exact.passed:
            return exact
        images = parity_images(shape, seed) * exact.contrast
        inputs, expected = eager_outputs(module, images, shape[0], rows_independent)
        try:
            errors = layer_errors(kind, precision, reference, path, [in_file_layout(exporter, one) for one in inputs])
        except AgentError as error:
            raise ExportError(
                "crash", f"{exporter.runtime} does not run a layer of the {precision} file: {error}"
            ) from error
    file = kind(path, precision)
    actual = [
        file.decoded_outputs(row)
        for row in run_file(exporter, path, inputs, lambda array: file.encoded(file.source, array))
    ]
    whole = judge(exporter, expected, actual, len(images), constant)
    finite = bool(np.isfinite(whole.max_abs_diff))
    worst = max(errors, key=_gravity)
    layers = LayerParity(
        layers=len(errors),
        worst=worst.name,
        steps=worst.steps,
        tolerance=TOLERANCES[precision],
        saturated=max(error.saturated for error in errors),
        sqnr_db=_sqnr_db(exporter, expected, actual) if finite else None,
    )
    passed = finite and all(error.passes(precision) for error in errors)
    return replace(whole, passed=passed, contrast=exact.contrast, layers=layers)


def _cutter(exporter: Exporter) -> type[LayeredFile]:
    module, _, name = exporter.layered.partition(":")
    if not name:
        raise ExportError(
            "unsupported_op", f"the exporter {exporter.name} cannot compare files of other precisions than fp32"
        )
    kind: type[LayeredFile] = getattr(import_module(module), name)
    return kind


def _gravity(error: LayerError) -> float:
    """Return the error for sorting, with NaN above everything."""
    return error.steps if np.isfinite(error.steps) else float("inf")


def _sqnr_db(exporter: Exporter, expected: list[list[Array]], actual: list[list[Array]]) -> float | None:
    """Return the outputs' change between images over their error, both as powers over all outputs, in dB."""
    signal = noise = 0.0
    for output in range(len(expected[0])):
        wanted = np.concatenate([np.atleast_1d(row[output]) for row in expected]).astype(np.float64)
        got = np.concatenate([np.atleast_1d(row[output]) for row in actual]).astype(np.float64)
        if exporter.channels_last and got.ndim == 4:
            got = np.moveaxis(got, -1, 1)
        signal += float(np.square(wanted - wanted.mean(0)).sum())
        noise += float(np.square(wanted - got).sum())
    return float(10 * np.log10(signal / noise)) if signal and noise else None
