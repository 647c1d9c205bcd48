"""The steps from a request to a compared file: build, export, compare. They run in the process that imports torch."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latlab import search_spaces
from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.exporters.base import Exporter, ExportError, ExportRequest, LayerParity, Parity, get_exporter
from latlab.harness.targets import AUTOREGRESSIVE

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Product", "export_and_compare", "export_with_inputs", "produce"]


@dataclass(frozen=True, slots=True)
class Product:
    """A written file's facts before it is in the cache. Fields that end in `_s` are durations in seconds."""

    input_shape: tuple[int, ...]
    """The input's shape in the file's layout."""
    parity: Parity
    build_s: float
    export_s: float
    parity_s: float
    operators: dict[str, int]
    """The number of each operator in the file."""


def produce(request: ExportRequest, path: Path) -> Product:
    """Build the requested network, export it to `path`, and compare the file with the network.

    Raises:
        ExportError: anything that is wrong with the network. `OSError`, `UnknownSpaceError`, `ArchitectureError`
            and `UnknownFormatError` pass through, because they say nothing about a network.
    """
    exporter = get_exporter(request.format)
    space = search_spaces.get(request.space)
    arch = space.parse(request.arch)
    if space.autoregressive:
        _check_autoregressive(space.name, exporter, request.precision)
    start = time.perf_counter()
    try:
        module = space.build(arch, seed=request.seed, as_written=request.as_written)
    except (RuntimeError, MemoryError) as error:
        raise _explained(error, "building") from error
    build_s = time.perf_counter() - start
    shape = (request.batch_size, *space.input_shape(arch))
    constant = space.is_constant(arch)
    return export_and_compare(
        module, exporter, shape, path, build_s, constant=constant, rows_independent=True, precision=request.precision
    )


def _check_autoregressive(space: str, exporter: Exporter, precision: str) -> None:
    """Raise `ExportError` if networks that generate a sequence are not written in this format and precision."""
    if not exporter.autoregressive:
        raise ExportError(
            "unsupported_op",
            f"networks of {space} generate a sequence step by step, and are not written as {exporter.name} files; "
            f"runtimes that they are exported for: {', '.join(AUTOREGRESSIVE)}",
        )
    if precision != "fp32":
        raise ExportError(
            "unsupported_op",
            f"networks of {space} are exported in fp32 only: in {precision} they would generate other sequences, "
            "and could not be compared",
        )


def export_and_compare(
    module: nn.Module,
    exporter: Exporter,
    shape: Sequence[int],
    path: Path,
    build_s: float,
    *,
    constant: bool,
    rows_independent: bool,
    precision: str = "fp32",
) -> Product:
    """Export `module` for inputs of `shape` (batch first) to `path`, and compare the file with the module.

    Raises:
        ExportError: `export_mismatch` if the file computes something else; or what exporter and runtime raise.
    """
    import torch

    from latlab.harness.exporters.parity import compare
    from latlab.harness.exporters.rounded_parity import compare_rounded

    if precision not in exporter.precisions:
        known = ", ".join(exporter.precisions)
        raise ExportError("unsupported_op", f"{exporter.name} is not written in {precision}, only in {known}")
    example = torch.zeros(*shape)
    how: dict[str, bool] = {"constant": constant, "rows_independent": rows_independent}
    start = time.perf_counter()
    with _explaining(f"exporting to {exporter.name}"):
        if precision == "fp32":
            operators = exporter.export(module, example, path)
        else:
            operators = exporter.export_in(precision, module, example, path)
    exported = time.perf_counter()
    with _explaining(f"comparing {exporter.name} with eager PyTorch"):
        if precision == "fp32":
            parity = compare(module, exporter, path, tuple(shape), **how)
        else:
            parity = compare_rounded(module, exporter, path, tuple(shape), precision, **how)
    _check(exporter, parity)
    end = time.perf_counter()
    shape_in_file = exporter.file_shape(tuple(shape))
    return Product(shape_in_file, parity, build_s, exported - start, end - exported, operators)


def _check(exporter: Exporter, parity: Parity) -> None:
    if parity.passed:
        return
    if parity.layers is not None:
        raise ExportError("export_mismatch", _why_layers_differ(exporter, parity, parity.layers))
    raise ExportError(
        "export_mismatch",
        f"{exporter.name} differs from eager PyTorch by {parity.max_abs_diff:.3g}; "
        f"at most {parity.tolerance:.3g} is allowed (the output changes by {parity.output_change:.3g})",
    )


def _why_layers_differ(exporter: Exporter, parity: Parity, layers: LayerParity) -> str:
    if not math.isfinite(layers.steps) or not math.isfinite(parity.max_abs_diff):
        return f"{exporter.name}: values of the network leave the range of the precision (at {layers.worst})"
    if layers.steps > layers.tolerance:
        return (
            f"{exporter.name}: the layer {layers.worst} differs from fp32 by {layers.steps:.3g} steps; "
            f"at most {layers.tolerance:g} are allowed"
        )
    return f"{exporter.name}: {layers.saturated:.0%} of a layer's outputs lie outside its int8 range"


def export_with_inputs(module: nn.Module, exporter: Exporter, inputs: Sequence[InputRequest], path: Path) -> Product:
    """Export a module of any inputs to `path`, and compare the file with the module on random ones.

    Args:
        inputs: shape, type and range of each input; None for the type means float32.

    Raises:
        ExportError: as `export_and_compare`; `unsupported_op` if the exporter takes one float32 input only.
    """
    import torch

    from latlab.harness.exporters.parity import compare_with_inputs, random_tensors

    if exporter.channels_last:
        raise ExportError("unsupported_op", f"{exporter.name} is written for modules with one float32 input")
    examples = random_tensors(inputs, 0)
    start = time.perf_counter()
    with _explaining(f"exporting to {exporter.name}"), torch.no_grad():
        operators = exporter.export(module, examples, path)
    exported = time.perf_counter()
    with _explaining(f"comparing {exporter.name} with eager PyTorch"):
        parity = compare_with_inputs(module, exporter, path, inputs)
    _check(exporter, parity)
    return Product((), parity, 0.0, exported - start, time.perf_counter() - exported, operators)


@contextmanager
def _explaining(doing: str) -> Iterator[None]:
    """Raise what a step raises unexpectedly as an `ExportError`; `doing` names the step."""
    try:
        yield
    except (ExportError, OSError):
        raise
    except Exception as error:
        raise _explained(error, doing) from error


def _explained(error: Exception, doing: str) -> ExportError:
    """Return an unexpected exception of torch or an exporter as an `ExportError`, with its message on one line.

    torch quotes the graph that it was working on: only what stands before it is kept.
    """
    message = re.split(r"\n\s*graph\(|(?i:\n\s*graph:)|\nInferred |\nTraceback ", f"\n{error}")[0]
    text = " ".join(message.split())[:300] or type(error).__name__
    out_of_memory = isinstance(error, MemoryError) or "can't allocate memory" in text or "bad_alloc" in text
    return ExportError("out_of_memory" if out_of_memory else "crash", f"{doing}: {text}")
