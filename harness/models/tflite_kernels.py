"""The kernels of a TFLite file: its operators, whose activations are fused already."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.tflite_model import TFLiteReader
from latlab.predictors.graph import Kernel, convolution_kind

__all__ = ["tflite_kernels"]

_NAMES = {
    "pool": "AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D",
    "reduce": "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD ARG_MAX ARG_MIN TOPK_V2 CUMSUM REDUCE_ANY REDUCE_ALL",
    "elementwise": "ADD SUB MUL DIV MAXIMUM MINIMUM POW SELECT SELECT_V2 NEG ABS SQRT RSQRT SQUARE SQUARED_DIFFERENCE "
    "EQUAL NOT_EQUAL LESS GREATER LESS_EQUAL GREATER_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT FLOOR CEIL ROUND "
    "FLOOR_DIV FLOOR_MOD ADD_N SIGN",
    "clip": "RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LEAKY_RELU PRELU HARD_SWISH",
    "exponential": "LOGISTIC TANH EXP LOG ELU GELU SIN COS",
    "softmax": "SOFTMAX LOG_SOFTMAX",
    "norm": "L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION",
    "move": "TRANSPOSE CONCATENATION SLICE STRIDED_SLICE SPLIT SPLIT_V PAD PADV2 MIRROR_PAD TILE BROADCAST_TO GATHER "
    "GATHER_ND SCATTER_ND DEPTH_TO_SPACE SPACE_TO_DEPTH SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND REVERSE_V2 PACK UNPACK "
    "EMBEDDING_LOOKUP ONE_HOT RANGE",
    "resize": "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
    "cast": "CAST QUANTIZE DEQUANTIZE",
    "view": "RESHAPE SQUEEZE EXPAND_DIMS SHAPE FILL",
}
KIND_OF = {operator: kind for kind, operators in _NAMES.items() for operator in operators.split()}
RECURRENT = (
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "LSTM",
    "SVDF",
)
WIDTHS = {"int8": 1, "uint8": 1, "int16": 2, "float16": 2}


def tflite_kernels(path: Path) -> list[Kernel]:
    """Return the kernels of a TFLite file's main graph, in its order; open sides count as 1.

    Raises:
        BadInputError: the file cannot be read.
    """
    try:
        reader = TFLiteReader(path)
        found = [_kernel(reader, kind, operator) for kind, operator in reader.main_operators()]
        return [kernel for kernel in found if kernel is not None]
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    except Exception as error:  # the generated reader follows any offset
        raise BadInputError(f"{path} is not a TFLite file, or is damaged") from error


def _kernel(reader: TFLiteReader, kind: str, operator: Any) -> Kernel | None:
    inputs = [int(number) for number in operator.inputs if number >= 0]
    outputs = [int(number) for number in operator.outputs]
    data = [number for number in inputs if not reader.is_constant(number)]
    if not data:  # computed once, when the file is loaded: weights that are stored in fewer bits
        return None
    first = reader.dtype(data[0])
    suffix = " int8" if first in ("int8", "uint8") else ""
    common: dict[str, Any] = {
        "operator": kind,
        "params": _elements(reader, [number for number in inputs if number not in data]),
        "in_elements": _elements(reader, data),
        "out_elements": _elements(reader, outputs),
        "width": WIDTHS.get(first, 4),
    }
    macs, out = reader.macs_of(kind, operator), reader.shape(outputs[0])
    if kind in ("CONV_2D", "CONV_3D"):
        weight, into = reader.shape(inputs[1]), reader.shape(inputs[0])[-1]
        window = math.prod(weight[1:-1])
        groups = max(into // weight[-1], 1)
        name = convolution_kind(max(weight[-1], 2), groups, window)  # depthwise ones are another operator
        common |= {"in_channels": weight[-1], "out_channels": weight[0] // groups, "kernel": window}
        return Kernel(name + suffix, macs=macs, **common)
    if kind == "DEPTHWISE_CONV_2D":
        window = math.prod(reader.shape(inputs[1])[1:3])
        return Kernel("depthwise" + suffix, macs=macs, in_channels=1, out_channels=1, kernel=window, **common)
    if kind == "TRANSPOSE_CONV":
        weight = reader.shape(inputs[1])
        common |= {"in_channels": weight[-1], "out_channels": weight[0], "kernel": math.prod(weight[1:3])}
        return Kernel("deconv" + suffix, macs=macs, **common)
    if kind in ("FULLY_CONNECTED", "BATCH_MATMUL"):
        name = "linear" if kind == "FULLY_CONNECTED" and reader.is_constant(inputs[1]) else "matmul"
        into = macs // max(math.prod(out), 1)
        return Kernel(name + suffix, macs=macs, in_channels=into, out_channels=out[-1] if out else 1, **common)
    if kind in RECURRENT:
        shape = reader.shape(inputs[0])
        steps = shape[-2] if len(shape) > 2 else 1
        common |= {"in_channels": shape[-1], "out_channels": out[-1] if out else 1}
        return Kernel("rnn" + suffix, macs=common["params"] * steps, steps=steps, **common)
    found = KIND_OF.get(kind, "other")
    if found == "pool":
        options = operator.builtinOptions
        window = int(options.filterHeight) * int(options.filterWidth)
        return Kernel("pool", macs=common["out_elements"] * window, kernel=window, **common)
    return Kernel(found, **common)


def _elements(reader: TFLiteReader, numbers: list[int]) -> int:
    return sum(math.prod(reader.shape(number)) for number in numbers)
