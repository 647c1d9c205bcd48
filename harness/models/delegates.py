"""Which delegates and accelerators would take a model, by their published rules."""

from __future__ import annotations

from collections.abc import Sequence

from latlab.harness.models.description import ModelDescription

__all__ = ["delegates_of"]

XNNPACK = frozenset(
    {
        *("ABS", "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CEIL", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D"),
        *("DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "ELU", "EXP", "EXPAND_DIMS", "FLOOR", "FULLY_CONNECTED", "GELU"),
        *("HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MAXIMUM", "MEAN", "MINIMUM", "MUL", "NEG", "PAD"),
        *("PRELU", "QUANTIZE", "READ_VARIABLE", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR"),
        *("ROUND", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE"),
        *("STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV", "VAR_HANDLE", "ASSIGN_VARIABLE"),
    }
)
"""Operators of TFLite that XNNPACK has, by its README in TensorFlow (tensorflow/lite/delegates/xnnpack)."""
GPU = frozenset(
    {
        *("ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CONCATENATION", "CONV_2D", "CUMSUM", "DEPTHWISE_CONV_2D"),
        *("DEPTH_TO_SPACE", "DEQUANTIZE", "DIV", "EQUAL", "ELU", "EXP", "FLOOR", "FLOOR_DIV", "FLOOR_MOD"),
        *("FULLY_CONNECTED", "GATHER", "GREATER", "HARD_SWISH", "LESS", "LOGICAL_AND", "LOGISTIC", "LSTM"),
        *("MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NOT_EQUAL", "ONE_HOT", "PAD", "POW"),
        *("PRELU", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT"),
        *("SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE"),
        *("SUB", "SUM", "TANH", "TILE", "TRANSPOSE", "TRANSPOSE_CONV", "UNPACK", "ABS", "COS", "SIN", "LOG", "NEG"),
    }
)
"""Operators of TFLite's GPU delegate, by ai.google.dev/edge/litert/performance/gpu."""
EDGE_TPU = frozenset(
    {
        *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED"),
        *("L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PACK", "PAD", "PRELU"),
        *("QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR"),
        *("RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQUEEZE"),
        *("STRIDED_SLICE", "SUB", "SUM", "SQUARED_DIFFERENCE", "TANH", "TRANSPOSE", "TRANSPOSE_CONV"),
    }
)
"""Operators of the Edge TPU, by coral.ai/docs/edgetpu/models-intro."""
FREE = frozenset({"DEQUANTIZE"})


def delegates_of(description: ModelDescription) -> list[str]:
    """Return which delegates would take a model, in words; empty for formats without delegates.

    This goes by the lists of operators that the delegates publish: a delegate may still refuse a shape or a parameter.
    """
    if description.format != "tflite":
        return []
    kinds = list(description.operators)
    verdicts = [_verdict("XNNPACK (CPU)", kinds, XNNPACK), _verdict("GPU delegate", kinds, GPU)]
    if description.precision == "int8" and description.precision_detail == "int8":
        open_sides = any(side is None for one in description.inputs for side in one.sides or ())
        tpu = _verdict("Edge TPU", kinds, EDGE_TPU)
        verdicts.append("Edge TPU: no, it takes no open shapes" if open_sides else tpu)
    else:
        verdicts.append("Edge TPU: no, it takes models that are int8 throughout")
    return verdicts


def _verdict(name: str, kinds: Sequence[str], known: frozenset[str]) -> str:
    lacking = [kind for kind in kinds if kind not in known and kind not in FREE and kind != "DELEGATE"]
    if not lacking:
        return f"{name}: all operators"
    shown = ", ".join(lacking[:6]) + (f" and {len(lacking) - 6} more" if len(lacking) > 6 else "")
    return f"{name}: all but {shown}"
