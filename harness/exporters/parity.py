"""The comparison of an exported file's outputs with eager PyTorch's.

The rule: on at least four images, no output element differs by more than 1e-4 of the largest change of any
output element between two images. Untrained networks hardly react to their input unless their batch norms are
calibrated; so the yardstick is that reaction, not the size of the outputs, and a graph that only returns its
bias fails. If the output cannot depend on the input (an unconnected cell), the rule does not apply: such a
network is exempt, is counted as exempt, and its constant output is compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.load_request import InputRequest
from latlab.agents.runtimes.base import random_arrays
from latlab.harness.exporters.base import Exporter, ExportError, Parity

if TYPE_CHECKING:
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]

__all__ = [
    "compare",
    "compare_with_inputs",
    "eager_outputs",
    "in_file_layout",
    "judge",
    "parity_images",
    "random_tensors",
    "run_file",
]

TOLERANCE = 1e-4
"""The tolerance as a share of the output's largest change."""

CONTRASTS = (0.8, 0.9, 1.1, 1.2, 1.0)
"""Standard deviations of the images: four images, and a fifth for larger batches.

They differ because all white noise of one contrast looks much the same to a classifier.
"""

DOUBT = 0.25
"""If eager PyTorch's own rounding error exceeds this share of the tolerance, a comparison proves nothing.

Behind the 45 convolutions in a row of some networks of NAS-Bench-201, each with a batch norm and a ReLU, rounding
errors have grown a thousandfold: eager PyTorch then disagrees with itself in double precision, or in another batch,
by more than the rule allows. Images of larger contrast move the output more than they move its rounding error.
"""

MAX_CONTRAST = 4.0
"""While a comparison proves nothing, the images' contrast is doubled, up to this factor."""


def parity_images(shape: Sequence[int], seed: int = 1) -> Tensor:
    """Return the images to compare on, shape (n, *shape[1:]): normal noise, each image with one of the `CONTRASTS`.

    There are four images, or five if the batch is larger; they are repeated to fill the batch, so that a large batch
    costs eager PyTorch no more than a small one. There are five because an exporter that mixes up rows of a batch
    usually swaps rows that lie a power of two apart: with five different images in turn, such rows always differ.
    """
    import torch

    contrasts = torch.tensor(CONTRASTS[: 4 if shape[0] <= 4 else 5])
    images = torch.randn(len(contrasts), *shape[1:], generator=torch.Generator().manual_seed(seed))
    return images * contrasts.view(-1, *(1 for _ in shape[1:]))


def compare(
    module: nn.Module,
    exporter: Exporter,
    path: Path,
    shape: Sequence[int],
    *,
    constant: bool = False,
    rows_independent: bool = True,
    seed: int = 1,
) -> Parity:
    """Run the file at `path` in its real runtime and compare its outputs with `module`'s.

    Args:
        module: the network in eval mode.
        exporter: the exporter that wrote the file.
        path: the file.
        shape: shape of the module's input, batch first.
        constant: true if the output is known not to depend on the input.
        rows_independent: true if each row of the output depends only on its row of the input; then eager PyTorch runs
            all images in one batch. False for modules that latlab knows nothing about.
        seed: seed of the images.

    Raises:
        ExportError: the runtime does not load or run the file; its kind is the runtime's.
    """
    images = parity_images(shape, seed)
    contrast = 1.0
    while True:
        parity = _compare_once(module, exporter, path, shape[0], images * contrast, constant, rows_independent)
        parity = replace(parity, contrast=contrast)
        if parity.passed or contrast >= MAX_CONTRAST:
            return parity
        if _rounding_error(module, images * contrast, shape[0]) <= DOUBT * parity.tolerance:
            return parity
        contrast *= 2


def _compare_once(
    module: nn.Module,
    exporter: Exporter,
    path: Path,
    batch: int,
    images: Tensor,
    constant: bool,
    rows_independent: bool,
) -> Parity:
    inputs, expected = eager_outputs(module, images, batch, rows_independent)
    actual = run_file(exporter, path, inputs)
    return judge(exporter, expected, actual, len(images), constant)


def eager_outputs(
    module: nn.Module, images: Tensor, batch: int, rows_independent: bool
) -> tuple[list[Array], list[list[Array]]]:
    """Return the images as whole batches, and eager PyTorch's outputs for each batch."""
    import torch

    from latlab.search_spaces.torch_modules import quick_pools

    rows = _rows(len(images), batch)
    inputs = [images[torch.from_numpy(part)] for part in rows]
    with torch.inference_mode(), quick_pools():
        if rows_independent:
            outputs = _arrays(module(images))
            expected = [[output[part] for output in outputs] for part in rows]
        else:
            expected = [_arrays(module(part)) for part in inputs]
    return [part.numpy() for part in inputs], expected


def _rows(images: int, batch: int) -> Array:
    """Return which image is which row of which batch, as an array of batches x batch."""
    batches = -(-images // batch)
    return (np.arange(batches * batch) % images).reshape(batches, batch)


def _rounding_error(module: nn.Module, images: Tensor, batch: int) -> float:
    """Return how far eager PyTorch is from its own result in double precision, or 0 if it cannot run in that."""
    import torch

    rows = torch.from_numpy(_rows(len(images), batch)[0])
    with torch.inference_mode():
        try:
            exact = _arrays(copy.deepcopy(module).double()(images[rows].double()))
        except (RuntimeError, TypeError):  # e.g. `forward` casts to single precision
            return 0.0
        single = _arrays(module(images[rows]))
    return max(float(np.abs(a - b).max()) for a, b in zip(exact, single, strict=True))


def _arrays(output: Any) -> list[Array]:
    outputs = output if isinstance(output, tuple | list) else [output]
    return [tensor.numpy() for tensor in outputs]


def in_file_layout(exporter: Exporter, array: Array) -> Array:
    """Return an input of the module as an input of the file: NHWC for TFLite."""
    last = exporter.channels_last and array.ndim == 4
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if last else array


def run_file(
    exporter: Exporter, path: Path, inputs: Sequence[Array], encoded: Callable[[Array], Array] = lambda array: array
) -> list[list[Array]]:
    """Return the outputs for each input, in the file's layout.

    Args:
        encoded: turns a float32 input into one of the file's type.
    """
    shape = exporter.file_shape(inputs[0].shape)
    results = []
    try:
        with runtimes.open(
            exporter.runtime, path, threads=1, inputs=[runtimes.InputRequest(shape=tuple(shape))]
        ) as session:
            for array in inputs:
                session.set_inputs([encoded(in_file_layout(exporter, array))])
                session.invoke()
                results.append(session.outputs())
    except AgentError as error:
        kind = error.kind if error.kind in ("unsupported_op", "out_of_memory") else "crash"
        raise ExportError(kind, f"{exporter.runtime} does not run the exported file: {error}") from error
    return results


def random_tensors(inputs: Sequence[InputRequest], seed: int) -> tuple[Tensor, ...]:
    """Return seeded random tensors for a module's inputs: the same values that a device draws."""
    import torch

    return tuple(torch.from_numpy(array) for array in random_arrays(_specs(inputs), seed))


def _specs(inputs: Sequence[InputRequest]) -> list[runtimes.TensorSpec]:
    return [
        runtimes.TensorSpec(one.name or "", one.shape or (), one.dtype or "float32", one.low, one.high)
        for one in inputs
    ]


def compare_with_inputs(module: nn.Module, exporter: Exporter, path: Path, inputs: Sequence[InputRequest]) -> Parity:
    """Compare the file at `path` with `module` on four draws of random inputs of any types.

    Raises:
        ExportError: the runtime does not load or run the file.
    """
    import torch

    draws = [random_arrays(_specs(inputs), seed) for seed in range(1, 5)]
    with torch.inference_mode():
        expected = [_arrays(module(*(torch.from_numpy(array) for array in draw))) for draw in draws]
    positional = [replace(one, name=None) for one in inputs]
    actual = []
    try:
        with runtimes.open(exporter.runtime, path, threads=1, inputs=positional) as session:
            for draw in draws:
                session.set_inputs(draw)
                session.invoke()
                actual.append(session.outputs())
    except AgentError as error:
        kind = error.kind if error.kind in ("unsupported_op", "out_of_memory") else "crash"
        raise ExportError(kind, f"{exporter.runtime} does not run the exported file: {error}") from error
    if any(one.dtype in ("float16", "bfloat16") for one in inputs):
        expected, actual = ([[np.asarray(a, np.float32) for a in r] for r in results] for results in (expected, actual))
    return judge(exporter, expected, actual, len(draws), False)


def judge(
    exporter: Exporter, expected: list[list[Array]], actual: list[list[Array]], images: int, constant: bool
) -> Parity:
    """Return the comparison of the file's outputs with eager PyTorch's by the rule for fp32."""
    difference = change = size = 0.0
    for output in range(len(expected[0])):
        wanted = np.stack([result[output] for result in expected])
        if any(len(result) != len(expected[0]) for result in actual):
            return Parity(images, float("inf"), change, 0.0, passed=False)
        got = np.stack([result[output] for result in actual])
        if exporter.channels_last and wanted.ndim == 5:  # batches x NHWC
            got = np.moveaxis(got, -1, 2)
        if wanted.shape != got.shape:
            return Parity(images, float("inf"), change, 0.0, passed=False)
        rows = wanted.reshape(-1, *wanted.shape[2:]) if wanted.ndim > 1 else wanted
        change = max(change, float(np.ptp(rows, axis=0).max()))
        size = max(size, float(np.abs(wanted).max()))
        # fmax would hide a NaN; max keeps it.
        difference = float(np.max([difference, np.abs(wanted - got).max()]))
    exempt = "the output does not depend on the input" if constant or change == 0.0 else None
    tolerance = TOLERANCE * (size if exempt else change)
    return Parity(images, difference, change, tolerance, passed=difference <= tolerance, exempt=exempt)
