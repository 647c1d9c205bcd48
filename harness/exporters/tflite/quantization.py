"""Post-training quantisation of a TFLite graph to int8, as TFLite's quantisation specification describes it.

https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec

Activations have one scale and one zero point for a tensor, weights of convolutions one scale for each output channel.
FULLY_CONNECTED has one scale for all of its weights: scales for each channel are version 12 of the operator, which
runtimes from before 2024 and the Edge TPU's compiler do not take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from latlab.harness.exporters.base import ExportError
from latlab.harness.exporters.tflite.graph import HAS_BIAS, Graph, Operator, Quantization

__all__ = ["quantize"]

INT8 = np.dtype(np.int8)
LOWEST, HIGHEST = -128, 127
CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
SAME_SCALE = frozenset({"CONCATENATION", "MAX_POOL_2D", "PAD", "PADV2", "RESHAPE", "SLICE", "TRANSPOSE"})
"""Operators whose int8 kernels copy or compare integers: their inputs and their output must share one scale."""
ARITHMETIC = frozenset({"ADD", "MUL", "SUB"})
SUPPORTED = HAS_BIAS | SAME_SCALE | ARITHMETIC | {"LOGISTIC", "MEAN"}
LOGISTIC = Quantization(np.array([1 / 256], np.float32), LOWEST)
"""The specification fixes the output of a LOGISTIC."""
MAX_BIAS = 2.0**30
MIN_MULTIPLIER = 2.0**-30
"""The least factor between a convolution's sums and its output; XNNPACK takes no less than 2^-32."""
FINER, COARSER = 1000.0, 200.0
"""An addition's operand may have at most so many times finer or coarser steps than its output. XNNPACK adds integers
if the factor is less than 1024 and at most 256. A network of NAS-Bench-201 whose cells add their input again and again
reaches 400000."""


def quantize(graph: Graph, ranges: Mapping[int, tuple[float, float]]) -> None:
    """Make `graph` an int8 graph, with int8 inputs and outputs.

    Args:
        graph: a float32 graph in integer form (`integer_form.py`).
        ranges: the least and the greatest value of each input and of each operator's output.

    Raises:
        ExportError: `unsupported_op`, for an operator without an int8 form.
    """
    for operator in graph.operators:
        if operator.code not in SUPPORTED:
            raise ExportError("unsupported_op", f"the TFLite writer has no int8 form of {operator.code}")
    for tensor, quantization in _activations(graph, ranges).items():
        graph.tensors[tensor].dtype, graph.tensors[tensor].quantization = INT8, quantization
    for operator in graph.operators:
        if operator.code in HAS_BIAS:
            _quantize_weights(graph, operator)
        elif operator.code in ARITHMETIC:
            operator.inputs = tuple(_operand(graph, operator, tensor) for tensor in operator.inputs)
        elif operator.code == "PADV2":
            x = graph.tensors[operator.inputs[0]].quantization
            assert x is not None
            operator.inputs = (*operator.inputs[:2], _constant(graph, operator.inputs[2], x))


def _activations(graph: Graph, ranges: Mapping[int, tuple[float, float]]) -> dict[int, Quantization]:
    """Return what the integers of each activation mean. Tensors that must share a scale get that of all together."""
    leader = {tensor: tensor for tensor in graph.activations()}

    def find(tensor: int) -> int:
        while leader[tensor] != tensor:
            tensor = leader[tensor]
        return tensor

    for operator in graph.operators:
        if operator.code in SAME_SCALE:
            for tensor in operator.inputs:
                if tensor in leader:
                    leader[find(tensor)] = find(operator.output)
    spans: dict[int, tuple[float, float]] = {}
    # PADV2 fills with the lowest number for a maximum that ignores it; that number needs no place in the range.
    filled = {operator.output for operator in graph.operators if operator.code == "PADV2"}
    for tensor in leader.keys() - filled:
        low, high = spans.get(find(tensor), (0.0, 0.0))
        spans[find(tensor)] = min(low, ranges[tensor][0]), max(high, ranges[tensor][1])
    _widen_outputs(graph, {tensor: find(tensor) for tensor in leader}, spans)
    _bring_together([tuple(find(t) for t in (*o.inputs, o.output) if t in leader) for o in _additions(graph)], spans)
    chosen = {group: _asymmetric(*span) for group, span in spans.items()}
    for operator in graph.operators:
        if operator.code == "LOGISTIC":
            low, high = spans[find(operator.output)]
            if low < 0.0 or high > 1.0:
                raise ExportError("unsupported_op", "the TFLite writer cannot join a LOGISTIC with other int8 values")
            chosen[find(operator.output)] = LOGISTIC
    return {tensor: chosen[find(tensor)] for tensor in leader}


def _widen_outputs(graph: Graph, group: Mapping[int, int], spans: dict[int, tuple[float, float]]) -> None:
    """Widen outputs whose steps would be more than `COARSER` times finer than those of the sums behind them.

    XNNPACK refuses such operators. They are dead or nearly dead: a ReLU that let nothing through when it was measured.
    """
    for operator in graph.operators:
        if operator.code not in {*HAS_BIAS, "MEAN", "MUL"}:
            continue
        sums = 1.0
        for tensor in operator.inputs[:2] if operator.code != "MEAN" else operator.inputs[:1]:
            data = graph.tensors[tensor].data
            low, high = spans[group[tensor]] if data is None else (0.0, 2.0 * float(np.abs(data).max()))
            sums *= (high - low) / (HIGHEST - LOWEST)
        _widen(spans, group[operator.output], (HIGHEST - LOWEST) * sums / COARSER)


def _widen(spans: dict[int, tuple[float, float]], group: int, least: float) -> bool:
    """Widen the span of a group to `least`, and return whether that was necessary."""
    low, high = spans[group]
    if high - low >= 0.999 * least:
        return False
    spans[group] = (low * least / (high - low), high * least / (high - low)) if high > low else (0.0, least)
    return True


def _additions(graph: Graph) -> list[Operator]:
    """Return the additions and subtractions, the last one first."""
    return [operator for operator in reversed(graph.operators) if operator.code in ("ADD", "SUB")]


def _bring_together(additions: Sequence[tuple[int, ...]], spans: dict[int, tuple[float, float]]) -> None:
    """Widen the spans of operands and outputs of additions until all factors between their scales are allowed.

    What a finer operand loses is less than a quarter of a step of the output.
    """
    for _ in range(len(additions)):  # what one addition widens, another may read
        changed = False
        for *operands, output in additions:
            for operand in operands:
                fine, coarse = (spans[group][1] - spans[group][0] for group in (operand, output))
                changed |= _widen(spans, operand, coarse / FINER) | _widen(spans, output, fine / COARSER)
        if not changed:
            return


def _asymmetric(low: float, high: float) -> Quantization:
    """Return the scale and the zero point for values from `low` to `high`, among which 0 is exact."""
    if not np.isfinite([low, high]).all():
        raise ExportError("unsupported_op", "int8 has no infinite values: an activation is not finite")
    scale = np.float32((high - low) / (HIGHEST - LOWEST) or 1 / (HIGHEST - LOWEST))
    zero_point = int(np.clip(np.round(LOWEST - low / float(scale)), LOWEST, HIGHEST))
    return Quantization(np.array([scale], np.float32), zero_point)


def _quantize_weights(graph: Graph, operator: Operator) -> None:
    """Quantise the weights of a convolution or linear layer symmetrically, and its bias to int32 in their scale."""
    x, weight_tensor, bias_tensor = operator.inputs
    weights, bias = graph.tensors[weight_tensor].data, graph.tensors[bias_tensor].data
    assert weights is not None
    assert bias is not None
    x_scale, out_scale = (float(_scale(graph, tensor)) for tensor in (x, operator.output))
    axis = CHANNEL_AXIS.get(operator.code)
    others = tuple(dim for dim in range(weights.ndim) if dim != axis)
    greatest = np.abs(weights).max(others, keepdims=True).astype(np.float64)
    least = np.abs(bias.astype(np.float64)) / x_scale / MAX_BIAS  # so that the bias fits into its 32 bits
    least = least.max() if axis is None else least.reshape(greatest.shape)
    scales = np.maximum(np.maximum(greatest / HIGHEST, least), MIN_MULTIPLIER * out_scale / x_scale).astype(np.float32)
    integers = np.clip(np.round(weights / scales), -HIGHEST, HIGHEST).astype(np.int8)
    flat = scales.reshape(-1)
    bias_scales = (np.float32(x_scale) * flat).astype(np.float32)
    bias_integers = np.round(bias.astype(np.float64) / bias_scales).astype(np.int32)
    quantized = (
        _add(graph, integers, Quantization(flat, 0, axis or 0)),
        _add(graph, bias_integers, Quantization(bias_scales)),
    )
    operator.inputs = (x, *quantized)


def _scale(graph: Graph, tensor: int) -> np.float32:
    quantization = graph.tensors[tensor].quantization
    assert quantization is not None
    return np.float32(quantization.scales[0])


def _operand(graph: Graph, operator: Operator, tensor: int) -> int:
    """Return an operand of arithmetic, quantised if it is a constant."""
    data = graph.tensors[tensor].data
    if data is None:
        return tensor
    low, high = min(float(data.min()), 0.0), max(float(data.max()), 0.0)
    least = float(_scale(graph, operator.output)) / FINER
    if operator.code != "MUL" and high - low < (HIGHEST - LOWEST) * least:
        # A constant near 0, such as the shift of a batch norm whose mean was 0: as `_bring_together` for activations.
        zero_point = 0 if high == low else _asymmetric(low, high).zero_point
        return _constant(graph, tensor, Quantization(np.array([least], np.float32), zero_point))
    if not data.any():
        return _constant(graph, tensor, Quantization(np.array([_scale(graph, operator.output)], np.float32)))
    if (data >= 0.0).all() and len(levels := np.unique(data)) <= 16:
        return _constant(graph, tensor, _exact(levels))
    return _constant(graph, tensor, _asymmetric(low, high))


def _exact(levels: np.ndarray) -> Quantization:
    """Return the scale, with zero point 0, by which a few positive values change least.

    The factors 1, 1.5 and 2.25 at the border of a 3 x 3 pool are exact as 56, 84 and 126.
    """
    scales = levels.max() / np.arange(HIGHEST, HIGHEST // 2, -1)
    errors = [np.abs(np.round(levels / scale) * scale - levels).max() for scale in scales]
    return Quantization(np.array([scales[int(np.argmin(np.round(errors, 9)))]], np.float32))


def _constant(graph: Graph, tensor: int, quantization: Quantization) -> int:
    data = graph.tensors[tensor].data
    assert data is not None
    real = data.astype(np.float64) / quantization.scales[0] + quantization.zero_point
    return _add(graph, np.clip(np.round(real), LOWEST, HIGHEST).astype(np.int8), quantization)


def _add(graph: Graph, integers: np.ndarray, quantization: Quantization) -> int:
    tensor = graph.tensor(integers.shape, integers)
    graph.tensors[tensor].quantization = quantization
    return tensor
