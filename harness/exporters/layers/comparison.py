"""The comparison of a file in low precision with the fp32 file of the same network, layer by layer.

End to end such a comparison proves little. Untrained networks are chaotic: each layer amplifies the rounding errors of
those before. The outputs of correct int8 files of FBNet are as far from eager PyTorch's as the outputs for two images
are from each other, and doubling the weights of one layer makes no difference that stands out. So every layer gets the
inputs that it has in the fp32 network, rounded to the file's precision, and its output is compared with that of the
fp32 layer on the same inputs. So the error of a correct layer is that of rounding its weights and its output: a step of
the output or less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlab.harness.exporters.layers.base import Grid, LayeredFile

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

__all__ = ["TOLERANCES", "LayerError", "layer_errors"]

TOLERANCES = {"int8": 2.5, "fp16": 1.0, "bf16": 1.0}
"""The largest error of a layer that passes: the root of the mean square, in steps of the layer's output."""
STEPS = {"fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 2.0**-7}
"""The step between two neighbouring numbers as a share of the power of two below them, at a tensor's largest value.

In an int8 file this concerns operators that stay float32 between their quantised inputs and outputs.
"""
SATURATED = 0.25
"""The largest share of a layer's outputs that may lie outside the range which an int8 tensor can hold.

The images of a comparison are not those of the calibration, and a mean over an image or a classifier has few outputs.
"""
FILLING = 1e38
"""What is larger is no value: a padding that is never the maximum."""
GROUP_BYTES = 2**30
"""The most bytes of float32 tensors, as estimated, that are held at a time."""
TENSOR_PER_INPUT = 4
"""The size of the average tensor of a network over that of its input. It is 3.1 in NAS-Bench-201, less elsewhere."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """The error of one layer."""

    name: str
    """The name of its output in the file."""
    steps: float
    """The root of its mean square, in steps of the output."""
    saturated: float
    """The share of its outputs that an int8 tensor cannot hold."""

    def passes(self, precision: str) -> bool:
        """Return true if it is no larger than rounding explains."""
        return self.steps <= TOLERANCES[precision] and self.saturated <= SATURATED


def layer_errors(
    kind: type[LayeredFile], precision: str, reference: Path, path: Path, inputs: Sequence[Array]
) -> list[LayerError]:
    """Return the error of each layer of the file at `path`, in order of execution.

    Args:
        kind: the format's cutter.
        precision: the precision of `path`; not fp32.
        reference: the fp32 file of the same network in the same format.
        path: the file.
        inputs: float32 inputs in the file's layout, each a whole batch.

    Raises:
        AgentError: the runtime does not take a part of a file.
    """
    exact, rounded = kind(reference, "fp32"), kind(path, precision)
    known = set(rounded.tensors)
    common = [name for name in exact.tensors if name in known]
    errors: list[LayerError] = []
    size = max(1, GROUP_BYTES // (TENSOR_PER_INPUT * inputs[0].nbytes))
    for names in _groups(common, size):
        reads, run_rounded = rounded.part(names, {exact.source, *common})
        exact_reads, run_layers = exact.part(names, {exact.source, *common})
        reads = tuple(dict.fromkeys((*reads, *exact_reads)))
        computed = [name for name in reads if name != exact.source]
        run_exact = exact.part(computed, {exact.source})[1] if computed else lambda _: []
        grids = {name: rounded.grid(name) for name in reads}
        sums = {name: _Sum(rounded.grid(name), precision) for name in names}
        for array in inputs:
            values = dict(zip(computed, run_exact({exact.source: array}), strict=True)) | {exact.source: array}
            held = {name: _held(value, grids[name], rounded.holds) for name, value in values.items()}
            for name, expected, actual in zip(names, run_layers(held), run_rounded(held), strict=True):
                sums[name].add(expected, actual)
        errors += [LayerError(name, one.steps(), one.saturated / one.count) for name, one in sums.items()]
    return errors


def _groups(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), size):
        yield names[first : first + size]


def _held(array: Array, grid: Grid | None, holds: str) -> Array:
    """Return the values that a tensor of the file holds in place of `array`."""
    if grid is not None:
        places = np.round((np.clip(array, grid.low, grid.high) - grid.low) / grid.step)
        return np.asarray(places * grid.step + grid.low, np.float32)
    if holds == "fp32":
        return array
    import torch

    dtype = torch.bfloat16 if holds == "bf16" else torch.float16
    return np.asarray(torch.from_numpy(np.ascontiguousarray(array)).to(dtype).float().numpy())


class _Sum:
    """The sum of a layer's squared errors over all images."""

    def __init__(self, grid: Grid | None, precision: str) -> None:
        self._grid = grid
        self._precision = precision
        self._squares = self._largest = 0.0
        self.count = self.saturated = 0

    def add(self, expected: Array, actual: Array) -> None:
        """Add the errors for one batch. What an int8 tensor cannot hold is expected to be its nearest number."""
        if self._grid is not None:
            held = np.clip(expected, self._grid.low - self._grid.step / 2, self._grid.high + self._grid.step / 2)
            self.saturated += int(((held != expected) & (np.abs(expected) < FILLING)).sum())
            expected = held
        with np.errstate(invalid="ignore", over="ignore"):  # infinite outputs give NaN, which passes nowhere
            self._squares += float(np.square(expected - actual, dtype=np.float64).sum())
        self._largest = max(self._largest, float(np.abs(expected).max()))
        self.count += expected.size

    def steps(self) -> float:
        """Return the root of the mean square in steps of the output; NaN and infinity pass nowhere."""
        if self._grid is not None:
            step = self._grid.step
        elif self._largest:
            step = float(2.0 ** np.floor(np.log2(self._largest))) * STEPS[self._precision]
        else:
            step = 0.0
        error = float(np.sqrt(self._squares / self.count))
        return error / step if step else (0.0 if error == 0.0 else float("inf"))
