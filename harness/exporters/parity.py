"""Whether an exported file computes what eager PyTorch computes.

The rule: on at least four images, no output element differs by more than 1e-4 of the largest change of any
output element between two images. Untrained networks hardly react to their input unless their batch norms are
calibrated; so the yardstick is that reaction, not the size of the outputs, and a graph that only returns its
bias fails. Where the output cannot depend on the input (an unconnected cell) the rule says nothing:
such a network is exempt, counted, and held to its constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlab.agents import runtimes
from latlab.agents.errors import AgentError
from latlab.harness.exporters.base import Exporter, ExportError, Parity

if TYPE_CHECKING:
    from torch import Tensor, nn

    Array = np.ndarray[Any, Any]

__all__ = ["compare", "parity_images"]

TOLERANCE = 1e-4
"""Of the output's largest change."""

IMAGES = 4
"""Different images, at least."""


def parity_images(shape: Sequence[int], seed: int = 1) -> Tensor:
    """The images compared: n x `shape[1:]`, standard normal, for an input of `shape` (batch first).

    Four; or five where the batch is larger, repeated to fill it, so that a large batch costs eager PyTorch no
    more than a small one. Five, because rows that trade places do so at distances that are powers of two.
    """
    import torch

    count = IMAGES if shape[0] <= IMAGES else IMAGES + 1
    return torch.randn(count, *shape[1:], generator=torch.Generator().manual_seed(seed))


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
    """Runs the file at `path` in its real runtime beside `module`.

    Args:
        shape: of the module's input, batch first.
        constant: the output is known not to depend on the input.
        rows_independent: each row of the output depends on its row of the input alone, so eager PyTorch may
            take the images in one batch of its own; false for modules that we know nothing of.
        seed: of the images.

    Raises:
        ExportError: the runtime does not load or run the file, in its kind.
    """
    import torch

    images = parity_images(shape, seed)
    batch = shape[0]
    batches = -(-len(images) // batch)
    rows = torch.arange(batches * batch) % len(images)
    inputs = [images[rows[i * batch : (i + 1) * batch]] for i in range(batches)]
    with torch.inference_mode():
        if rows_independent:
            expected = [_arrays(module(images))]
            expected = [[output[part] for output in expected[0]] for part in rows.numpy().reshape(batches, batch)]
        else:
            expected = [_arrays(module(part)) for part in inputs]
    actual = _run(exporter, path, [part.numpy() for part in inputs])
    return _judge(exporter, expected, actual, len(images), constant)


def _arrays(output: Any) -> list[Array]:
    outputs = output if isinstance(output, tuple | list) else [output]
    return [tensor.numpy() for tensor in outputs]


def _run(exporter: Exporter, path: Path, inputs: Sequence[Array]) -> list[list[Array]]:
    """Outputs of each input, in the layout of the file."""
    shape = exporter.file_shape(inputs[0].shape)
    results = []
    try:
        with runtimes.open(exporter.runtime, path, threads=1, input_shape=shape) as session:
            for array in inputs:
                last = exporter.channels_last and array.ndim == 4
                session.set_inputs([np.ascontiguousarray(np.moveaxis(array, 1, -1)) if last else array])
                session.invoke()
                results.append(session.outputs())
    except AgentError as error:
        kind = error.kind if error.kind in ("unsupported_op", "out_of_memory") else "crash"
        raise ExportError(kind, f"{exporter.runtime} does not run the exported file: {error}") from error
    return results


def _judge(
    exporter: Exporter, expected: list[list[Array]], actual: list[list[Array]], images: int, constant: bool
) -> Parity:
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
