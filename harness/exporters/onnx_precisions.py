"""ONNX files in float16 and in int8, made from the float32 file by ONNX Runtime's own tools."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latlab.harness.exporters.base import ExportError

__all__ = ["to_float16", "to_int8"]

LARGEST_HALF = 65504.0
WARNINGS, ERRORS_ONLY = 2, 3  # ONNX Runtime's log levels; the first is its default


def to_float16(model: Any) -> Any:
    """Return `model` (an `onnx.ModelProto` in float32) with float16 weights and activations throughout.

    Inputs and outputs stay float32, with a Cast at each end: the file takes the same arrays as the fp32 file.

    Raises:
        ExportError: `unsupported_op`, if a weight is too large for float16.
    """
    from onnx import numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for weight in model.graph.initializer:
        largest = float(np.abs(numpy_helper.to_array(weight)).max(initial=0))
        if weight.data_type == weight.FLOAT and largest > LARGEST_HALF:
            raise ExportError("unsupported_op", f"a weight of {largest:.3g} is too large for float16")
    return convert_float_to_float16(model, keep_io_types=True, op_block_list=[], force_fp16_initializers=True)


def to_int8(model: Any, single: Callable[[], Any], images: Tensor, batch: int) -> Any:
    """Return `model` with 8-bit integers: QuantizeLinear and DequantizeLinear (QDQ) around every operator.

    Weights are int8 with a scale for each output channel, and only 7 of the bits are used: x86 processors with AVX2 and
    without VNNI add pairs of 8-bit products in 16 bits, which two full products exceed. Activations are uint8: on x86
    ONNX Runtime fuses a QDQ graph of int8 activations only in part (of a network of NAS-Bench-201, one of 47
    additions), one of uint8 whole; on Arm both. Inputs and outputs stay float32, as the tools leave them: the file
    takes the same arrays as the fp32 file.

    Args:
        model: an `onnx.ModelProto` in float32; it is changed.
        single: returns the same network at batch size 1, on which the ranges of activations are measured, so that a
            network has the same scales at every batch size.
        images: the calibration images.
        batch: the batch size of `model`.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    measured = single() if batch > 1 else model
    if [node.output for node in measured.graph.node] != [node.output for node in model.graph.node]:
        measured = model  # e.g. a module that mixes the rows of a batch
    operators = sorted(QDQRegistry)
    with _quiet():
        ranges = _activation_ranges(measured, images, batch if measured is model else 1, operators)
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=operators,
            extra_options={},
        )
        quantizer.quantize_model()
    return quantizer.model.model


def _activation_ranges(model: Any, images: Tensor, batch: int, operators: list[str]) -> Any:
    """Return the least and the greatest value of each activation over the images, as ONNX Runtime's tools keep them."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

    arrays = images.numpy()
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            starts = range(0, len(arrays), batch)
            self._feeds = iter([{name: arrays[np.arange(at, at + batch) % len(arrays)]} for at in starts])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        source, augmented = Path(folder) / "model.onnx", Path(folder) / "augmented.onnx"
        onnx.save_model(model, source)
        calibrator = create_calibrator(source, operators, augmented_model_path=str(augmented))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tools, which advise to prepare the model by hand: batch norms are folded and shapes fixed already."""
    import onnxruntime

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(ERRORS_ONLY)
    try:
        yield
    finally:
        logger.setLevel(level)
        onnxruntime.set_default_logger_severity(WARNINGS)
