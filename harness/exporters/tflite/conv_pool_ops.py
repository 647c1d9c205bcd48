"""Lowerings of convolutions, pools and linear layers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.harness.exporters.tflite.graph import Graph, Value, channels_last
from latlab.harness.exporters.tflite.registry import lowers, lowers_layer, unsupported
from latlab.harness.exporters.tflite.trace import folded

__all__ = ["conv2d_layer"]

Pair = tuple[int, int]
NHWC = channels_last(4)
SAME, VALID = 0, 1  # schema.Padding
LOWEST = float(np.finfo(np.float32).min)


def _pair(value: int | tuple[int, ...] | list[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _window(size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Pair, int | None]:
    """Return the output's (height, width), and the TFLite padding that equals PyTorch's, or None if none does.

    PyTorch pads both sides alike. If the total is odd, TFLite's SAME pads the end more, so for stride 2
    they often differ although the sizes agree. Then a PAD operator is needed.
    """
    out, same, valid = [], True, True
    for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True):
        extent = (k - 1) * d + 1
        if n + 2 * p < extent:
            unsupported(f"a window of {extent} over {n} elements padded by {p}")
        out.append((n + 2 * p - extent) // s + 1)
        total = max((-(-n // s) - 1) * s + extent - n, 0)
        same &= out[-1] == -(-n // s) and total // 2 == p
        valid &= p == 0
    return (out[0], out[1]), VALID if valid else SAME if same else None


def _pad(graph: Graph, x: Value, padding: Pair, fill: float = 0.0) -> Value:
    """Pad height and width by `padding` on both sides, and return the NHWC result."""
    (h, w), (n, c, height, width) = padding, x.shape
    shape = (n, c, height + 2 * h, width + 2 * w)
    amounts = graph.constant(np.array([[0, 0], [h, h], [w, w], [0, 0]], np.int32))
    stored = (n, shape[2], shape[3], c)
    if fill == 0.0:
        return Value(graph.emit("PAD", [x.tensor, amounts], stored), shape, NHWC)
    value = graph.constant(np.array([fill], np.float32))
    return Value(graph.emit("PADV2", [x.tensor, amounts, value], stored), shape, NHWC)


@lowers(F.conv2d, torch.conv2d)
def conv2d(
    graph: Graph,
    input: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Value:
    """Lower a dense, grouped or depthwise convolution. `weight`: out x in/groups x height x width."""
    if not isinstance(weight, Tensor) or len(input.shape) != 4:
        unsupported("a convolution whose weights are computed or whose input is not 4-D")
    x = graph.reorder(input, NHWC)
    out_channels, channels_per_group, *size = weight.shape
    kernel, strides, dilations = _pair(size), _pair(stride), _pair(dilation)
    if isinstance(padding, str):
        if padding == "same" and any(d * (k - 1) % 2 for d, k in zip(dilations, kernel, strict=True)):
            unsupported("padding='same' around a window of even size")
        same = (dilations[0] * (kernel[0] - 1) // 2, dilations[1] * (kernel[1] - 1) // 2)
        pads = same if padding == "same" else (0, 0)
    else:
        pads = _pair(padding)
    out, padding_code = _window(_pair(x.shape[2:]), kernel, strides, pads, dilations)
    if padding_code is None:
        x, padding_code = _pad(graph, x, pads), VALID

    depthwise = groups == x.shape[1] and channels_per_group == 1
    # OIHW -> OHWI, depthwise (I = 1) -> 1HWO.
    filters = weight.detach().permute((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)).contiguous().numpy()
    biases = np.zeros(out_channels, np.float32) if bias is None else bias.detach().contiguous().numpy()
    options: dict[str, int | bool] = {"padding": padding_code, "strideH": strides[0], "strideW": strides[1]}
    options |= {"dilationHFactor": dilations[0], "dilationWFactor": dilations[1]}
    if depthwise:
        options["depthMultiplier"] = out_channels // groups
    tensor = graph.emit(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [x.tensor, graph.constant(filters), graph.constant(biases)],
        (x.shape[0], *out, out_channels),
        **options,
    )
    return Value(tensor, (x.shape[0], out_channels, *out), NHWC)


def conv2d_layer(graph: Graph, layer: nn.Conv2d, x: Value, batch_norm: nn.BatchNorm2d | None = None) -> Value:
    """Lower a convolution layer, with the batch norm after it folded in."""
    if layer.padding_mode != "zeros":
        unsupported(f"padding mode {layer.padding_mode!r}")
    weight: Tensor = layer.weight
    bias: Tensor | None = layer.bias
    if batch_norm is not None:
        scale, shift = folded(batch_norm)
        weight = weight * scale.view(-1, 1, 1, 1)
        bias = shift if bias is None else bias * scale + shift
    return conv2d(graph, x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


lowers_layer(nn.Conv2d)(conv2d_layer)


def _pool(graph: Graph, code: str, x: Value, kernel: Pair, stride: Pair, padding_code: int, out: Pair) -> Value:
    options = {"padding": padding_code, "strideH": stride[0], "strideW": stride[1]}
    options |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
    tensor = graph.emit(code, [x.tensor], (x.shape[0], *out, x.shape[1]), **options)
    return Value(tensor, (*x.shape[:2], *out), NHWC)


def _ceil_mode_differs(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    return any((n + 2 * p - k) % s for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


@lowers(F.avg_pool2d)
def avg_pool2d(
    graph: Graph,
    input: Value,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """Lower an average pool. TFLite never counts padding in the mean, so padding that counts becomes a PAD operator."""
    x = graph.reorder(input, NHWC)
    kernel, pads, size = _pair(kernel_size), _pair(padding), _pair(x.shape[2:])
    strides = _pair(stride) if stride else kernel
    if divisor_override is not None or (ceil_mode and _ceil_mode_differs(size, kernel, strides, pads)):
        unsupported("avg_pool2d with divisor_override or ceil_mode")
    out, padding_code = _window(size, kernel, strides, pads, (1, 1))
    if any(pads) and count_include_pad:
        x, padding_code = _pad(graph, x, pads), VALID
    if padding_code is None:
        unsupported(f"avg_pool2d of {size} with kernel {kernel}, stride {strides}, padding {pads} that is not counted")
    return _pool(graph, "AVERAGE_POOL_2D", x, kernel, strides, padding_code, out)


@lowers(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    graph: Graph,
    input: Value,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """Lower a maximum pool. Padding never is the maximum."""
    x = graph.reorder(input, NHWC)
    kernel, pads, size = _pair(kernel_size), _pair(padding), _pair(x.shape[2:])
    strides = _pair(stride) if stride else kernel
    if return_indices or _pair(dilation) != (1, 1) or (ceil_mode and _ceil_mode_differs(size, kernel, strides, pads)):
        unsupported("max_pool2d with dilation, ceil_mode or return_indices")
    out, padding_code = _window(size, kernel, strides, pads, (1, 1))
    if padding_code is None:
        # After a ReLU a padding of zeros is never the maximum either, and XNNPACK runs PAD (zeros) but not PADV2.
        producer = graph.producer(x.tensor)
        never_negative = producer is not None and producer.code in ("RELU", "RELU6")
        x, padding_code = _pad(graph, x, pads, 0.0 if never_negative else LOWEST), VALID
    return _pool(graph, "MAX_POOL_2D", x, kernel, strides, padding_code, out)


@lowers_layer(nn.AvgPool2d)
def avg_pool2d_layer(graph: Graph, layer: nn.AvgPool2d, x: Value) -> Value:
    """Lower an average pool layer."""
    pads, counted, divisor = layer.padding, layer.count_include_pad, layer.divisor_override
    return avg_pool2d(graph, x, layer.kernel_size, layer.stride, pads, layer.ceil_mode, counted, divisor)


@lowers_layer(nn.MaxPool2d)
def max_pool2d_layer(graph: Graph, layer: nn.MaxPool2d, x: Value) -> Value:
    """Lower a maximum pool layer."""
    pads, dilation, indices = layer.padding, layer.dilation, layer.return_indices
    return max_pool2d(graph, x, layer.kernel_size, layer.stride, pads, dilation, layer.ceil_mode, indices)


@lowers(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(graph: Graph, input: Value, output_size: int | tuple[int | None, ...] | None) -> Value:
    """Lower a global mean, or an adaptive pool whose windows divide the input evenly."""
    x = graph.reorder(input, NHWC)
    wanted = (output_size, output_size) if output_size is None or isinstance(output_size, int) else output_size
    out = (wanted[0] or x.shape[2], wanted[1] or x.shape[3])
    if out == (1, 1):
        axes = graph.constant(np.array([1, 2], np.int32))
        tensor = graph.emit("MEAN", [x.tensor, axes], (x.shape[0], 1, 1, x.shape[1]), keepDims=True)
        return Value(tensor, (*x.shape[:2], 1, 1), NHWC)
    if x.shape[2] % out[0] or x.shape[3] % out[1]:
        unsupported(f"adaptive_avg_pool2d from {x.shape[2:]} to {out}")
    kernel = (x.shape[2] // out[0], x.shape[3] // out[1])
    return _pool(graph, "AVERAGE_POOL_2D", x, kernel, kernel, VALID, out)


@lowers_layer(nn.AdaptiveAvgPool2d)
def adaptive_avg_pool2d_layer(graph: Graph, layer: nn.AdaptiveAvgPool2d, x: Value) -> Value:
    """Lower an adaptive average pool layer."""
    return adaptive_avg_pool2d(graph, x, layer.output_size)


@lowers(F.linear)
def linear(graph: Graph, input: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    """Lower x @ weight.T + bias over the last dimension. `weight`: out x in."""
    if not isinstance(weight, Tensor):
        unsupported("a linear layer whose weights are computed")
    rank = len(input.shape)
    x = graph.reorder(input, tuple(range(rank)))
    biases = np.zeros(weight.shape[0], np.float32) if bias is None else bias.detach().contiguous().numpy()
    shape = (*x.shape[:-1], weight.shape[0])
    tensor = graph.emit(
        "FULLY_CONNECTED",
        [x.tensor, graph.constant(weight.detach().contiguous().numpy()), graph.constant(biases)],
        shape,
        **({"keepNumDims": True} if rank > 2 else {}),
    )
    return Value(tensor, shape, tuple(range(rank)))


@lowers_layer(nn.Linear)
def linear_layer(graph: Graph, layer: nn.Linear, x: Value) -> Value:
    """Lower a linear layer."""
    return linear(graph, x, layer.weight, layer.bias)
