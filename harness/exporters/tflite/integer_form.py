"""The rewriting of a float graph into operators that also run on integers, before it is quantised.

XNNPACK has no int8 kernels for AVERAGE_POOL_2D, HARD_SWISH, RELU and RELU6 (they are not in the list of its README,
"Quantized operators"), and one operator that a delegate lacks cuts the graph into pieces: a network of NAS-Bench-201
became 33 of them. The Edge TPU has no HARD_SWISH either. So these are written with operators that all of them have. The
results are the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from latlab.harness.exporters.tflite.graph import Graph, Operator

__all__ = ["to_integer_form"]

RELU, RELU6 = 1, 3  # schema.ActivationFunctionType


def to_integer_form(graph: Graph) -> None:
    """Replace the operators that delegates lack in int8; every tensor of the graph that remains keeps its values."""
    rewritten = []
    for operator in graph.operators:
        rewrite = _REWRITES.get(operator.code)
        rewritten += [operator] if rewrite is None else rewrite(graph, operator)
    graph.operators = rewritten


def _scalar(graph: Graph, value: float) -> int:
    return graph.constant(np.array(value, np.float32))


def _activation(graph: Graph, operator: Operator) -> list[Operator]:
    """Return an addition of 0 that applies the ReLU or ReLU6 to its output."""
    fused = {"RELU": RELU, "RELU6": RELU6}[operator.code]
    inputs = (operator.inputs[0], _scalar(graph, 0.0))
    return [Operator("ADD", inputs, operator.output, {"fusedActivationFunction": fused})]


def _hard_swish(graph: Graph, operator: Operator) -> list[Operator]:
    """Return relu6(x + 3) * (1 / 6) * x."""
    (x,) = operator.inputs
    shape = graph.tensors[x].shape
    shifted, gate = graph.tensor(shape), graph.tensor(shape)
    return [
        Operator("ADD", (x, _scalar(graph, 3.0)), shifted, {"fusedActivationFunction": RELU6}),
        Operator("MUL", (shifted, _scalar(graph, 1 / 6)), gate),
        Operator("MUL", (x, gate), operator.output),
    ]


def _average_pool(graph: Graph, operator: Operator) -> list[Operator]:
    """Return a depthwise convolution with equal weights.

    At the border the pool divides by the number of elements that are in the image; there the sum is multiplied by the
    rest of the factor.
    """
    x = operator.inputs[0]
    channels = graph.tensors[x].shape[3]
    options = dict(operator.options)
    kernel = int(options.pop("filterHeight")), int(options.pop("filterWidth"))
    fused = {name: options.pop(name) for name in ("fusedActivationFunction",) if name in options}
    weights = graph.constant(np.full((1, *kernel, channels), 1 / (kernel[0] * kernel[1]), np.float32))
    bias = graph.constant(np.zeros(channels, np.float32))
    options |= {"dilationHFactor": 1, "dilationWFactor": 1, "depthMultiplier": 1}
    factors = _border_factors(graph, operator, kernel)
    if (factors == 1.0).all():
        return [Operator("DEPTHWISE_CONV_2D", (x, weights, bias), operator.output, options | fused)]
    means = graph.tensor(graph.tensors[operator.output].shape)
    return [
        Operator("DEPTHWISE_CONV_2D", (x, weights, bias), means, options),
        Operator("MUL", (means, graph.constant(factors)), operator.output, fused),
    ]


def _border_factors(graph: Graph, operator: Operator, kernel: tuple[int, int]) -> np.ndarray:
    """Return (elements of a window) / (elements of it in the image) at each place, as 1 x height x width x 1."""
    size, out = graph.tensors[operator.inputs[0]].shape[1:3], graph.tensors[operator.output].shape[1:3]
    strides = int(operator.options["strideH"]), int(operator.options["strideW"])
    inside = []
    for n, m, k, s in zip(size, out, kernel, strides, strict=True):
        before = max((m - 1) * s + k - n, 0) // 2  # both paddings: VALID never reaches over the border
        first = np.arange(m) * s - before
        inside.append(np.minimum(first + k, n) - np.maximum(first, 0))
    counts = inside[0][:, None] * inside[1][None, :]
    factors: np.ndarray = kernel[0] * kernel[1] / counts
    return factors.astype(np.float32).reshape(1, *out, 1)


_REWRITES: dict[str, Callable[[Graph, Operator], list[Operator]]] = {
    "AVERAGE_POOL_2D": _average_pool,
    "HARD_SWISH": _hard_swish,
    "RELU": _activation,
    "RELU6": _activation,
}
