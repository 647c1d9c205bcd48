"""Reads a model file into the kernels that its runtime executes, for predictions of its latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.harness.models.read import format_of
from latlab.predictors.graph import Work, work_of

__all__ = ["kernels_of"]


def kernels_of(path: Path, inputs: Sequence[InputRequest] = (), only_shape: tuple[int, ...] | None = None) -> Work:
    """Return the kernels of a model file.

    Args:
        path: the file.
        inputs: the inputs' settled shapes; those that are left out are as the file declares them.
        only_shape: instead, the shape of the file's only input.

    Raises:
        BadInputError: the file cannot be read, or its format is not one whose kernels latlab knows.
    """
    kind = format_of(path)
    shapes: Mapping[str, tuple[int, ...]] = {
        one.name: one.shape for one in inputs if one.name is not None and one.shape is not None
    }
    if kind == "onnx":
        from latlab.harness.models.onnx_kernels import onnx_kernels

        return work_of(onnx_kernels(path, shapes, only_shape))
    if kind == "tflite":
        from latlab.harness.models.tflite_kernels import tflite_kernels

        return work_of(tflite_kernels(path))
    if kind == "torchscript":
        from latlab.harness.models.torch_kernels import torch_kernels  # torch is heavy

        given = inputs if only_shape is None else [InputRequest(shape=only_shape)]
        return work_of(torch_kernels(path, given))
    raise BadInputError(
        f"{path} is a {kind} file, whose kernels latlab cannot read",
        "It predicts ONNX, TFLite and TorchScript files: export it to one of these, or measure it (latlab measure).",
    )
