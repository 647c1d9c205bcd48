"""The kernels of a TorchScript file: the operators that its graph calls when it runs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.predictors.graph import Kernel, convolution_kind

__all__ = ["torch_kernels"]

_NAMES = {
    "reduce": "mean sum amax amin max min prod adaptive_avg_pool2d adaptive_avg_pool1d argmax argmin topk cumsum norm",
    "elementwise": "add sub rsub mul div maximum minimum pow where neg abs sqrt rsqrt eq ne lt gt le ge logical_and "
    "logical_or logical_not floor ceil round masked_fill addcmul lerp square reciprocal sign remainder",
    "clip": "relu relu6 clamp hardtanh leaky_relu prelu hardswish hardsigmoid threshold clamp_min clamp_max",
    "exponential": "sigmoid tanh exp log erf gelu silu mish softplus elu selu sin cos",
    "softmax": "softmax log_softmax _softmax _log_softmax",
    "norm": "layer_norm batch_norm group_norm instance_norm native_layer_norm rms_norm",
    "move": "contiguous cat concat stack pad constant_pad_nd index index_select gather embedding repeat roll flip "
    "pixel_shuffle channel_shuffle clone copy scatter reflection_pad2d replication_pad2d im2col triu tril",
    "resize": "upsample_nearest2d upsample_bilinear2d upsample_nearest1d grid_sampler interpolate upsample_bicubic2d",
    "cast": "to _to_copy type_as quantize_per_tensor dequantize",
    "pool": "max_pool2d avg_pool2d max_pool1d avg_pool1d max_pool2d_with_indices",
    "rnn": "lstm gru rnn_tanh rnn_relu",
}
KIND_OF = {operator: kind for kind, operators in _NAMES.items() for operator in operators.split()}
FREE = {
    "zeros", "ones", "empty", "full", "size", "equal", "arange", "detach", "lift_fresh", "alias", "zeros_like",
    "scalar_tensor", "item", "dropout", "is_floating_point",
}  # fmt: skip
"""Operators that make a constant, ask for a shape, or do nothing."""
VIEWS = {
    "reshape", "view", "_unsafe_view", "transpose", "permute", "t", "flatten", "squeeze", "unsqueeze", "expand",
    "slice", "select", "chunk", "split", "narrow", "unbind", "split_with_sizes", "expand_as", "view_as", "unfold",
    "unflatten", "tensor_split", "movedim", "swapaxes",
}  # fmt: skip
CONVOLUTIONS = {"_convolution", "convolution", "conv1d", "conv2d", "conv3d"}
WARM_UP = 2
"""Calls before the one that is looked at: in the first ones TorchScript optimises the graph."""


def torch_kernels(path: Path, inputs: Sequence[InputRequest]) -> list[Kernel]:
    """Return the operators that a TorchScript file executes, in order, by running it.

    A TorchScript file holds a program in a language of its own, without files and sockets: it runs on every device that
    measures it, and here.

    Args:
        path: the file.
        inputs: shapes and types of its inputs, in order.

    Raises:
        BadInputError: it cannot be loaded, or does not run with these inputs.
    """
    recorder = _Recorder()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            module: Any = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            if hasattr(module, "training"):
                module = torch.jit.freeze(module.eval())
            arguments = [_zeros(one) for one in inputs]
            for _ in range(WARM_UP):
                module(*arguments)
            with recorder:
                module(*arguments)
    except Exception as error:  # a program may raise anything
        reason = " ".join(str(error).split())[-200:]
        raise BadInputError(f"{path} does not run, so its operators are unknown: {reason}") from error
    return recorder.kernels


def _zeros(one: InputRequest) -> Tensor:
    dtype = getattr(torch, one.dtype or "float32")
    return torch.full(one.shape or (), one.low or 0, dtype=dtype)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kernels: list[Kernel] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func.overloadpacket.__name__).rstrip("_")  # type: ignore[attr-defined]
        made = [one for one in (out if isinstance(out, tuple | list) else [out]) if isinstance(one, Tensor)]
        if name not in FREE and made:
            self.kernels.append(_kernel(name, args, made))
        return out


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        found += [value] if isinstance(value, Tensor) else _tensors(value) if isinstance(value, list | tuple) else []
    return found


def _kernel(name: str, args: tuple[Any, ...], made: list[Tensor]) -> Kernel:
    tensors, out = _tensors(args), made[0]
    first = tensors[0] if tensors else out
    common: dict[str, Any] = {
        "operator": name,
        "in_elements": sum(one.numel() for one in tensors),
        "out_elements": sum(one.numel() for one in made),
        "width": out.element_size(),
    }
    if name in VIEWS and not (name in ("reshape", "flatten") and first.data_ptr() != out.data_ptr()):
        return Kernel("view", **common)
    if name in CONVOLUTIONS or name in ("linear", "addmm"):
        weight = args[2] if name == "addmm" else args[1]
        rest = sum(one.numel() for one in tensors) - (args[1] if name == "addmm" else first).numel()
        common |= {"params": rest, "in_elements": common["in_elements"] - rest}
        if name in CONVOLUTIONS:
            return _convolution(name, args, weight, out, common)
        into = weight.shape[0] if name == "addmm" else weight.shape[-1]
        common |= {"in_channels": into, "out_channels": out.shape[-1]}
        return Kernel("linear", macs=out.numel() * into, **common)
    if name in ("matmul", "bmm", "mm", "baddbmm", "scaled_dot_product_attention"):
        into = first.shape[-1] if first.dim() else 1
        macs = out.numel() * into
        if name == "scaled_dot_product_attention":  # queries with keys, then scores with values
            macs = 2 * math.prod(first.shape[:-1]) * tensors[1].shape[-2] * into
        return Kernel("matmul", macs=macs, in_channels=into, out_channels=out.shape[-1], **common)
    found = KIND_OF.get(name, "move" if name in VIEWS else "other")
    if found == "rnn":
        weights = [one for one in tensors[1:] if one.dim() <= 2]
        size = sum(one.numel() for one in weights)
        batch_first = bool(args[-1])
        steps = first.shape[1 if batch_first else 0] * sum(one.dim() > 1 for one in weights) // 2
        macs = first.shape[0] * first.shape[1] * sum(one.numel() for one in weights if one.dim() > 1)
        common |= {"params": size, "in_elements": first.numel()}
        return Kernel("rnn", macs=macs, steps=steps, in_channels=first.shape[-1], out_channels=out.shape[-1], **common)
    if found == "pool":
        window = math.prod(args[1]) if isinstance(args[1], list | tuple) else 1
        return Kernel("pool", macs=out.numel() * window, kernel=window, **common)
    if found == "norm":
        common |= {"params": sum(one.numel() for one in tensors[1:]), "in_elements": first.numel()}
    return Kernel(found, **common)


def _convolution(name: str, args: tuple[Any, ...], weight: Tensor, out: Tensor, common: dict[str, Any]) -> Kernel:
    window = math.prod(weight.shape[2:])
    groups = int(args[8 if name.endswith("convolution") else 6]) if len(args) > 6 else 1
    if name.endswith("convolution") and args[6]:
        macs = args[0].numel() * math.prod(weight.shape[1:])
        common |= {"in_channels": weight.shape[0], "out_channels": weight.shape[1], "kernel": window}
        return Kernel("deconv", macs=macs, **common)
    into = weight.shape[1]
    kind = convolution_kind(into, groups, window)
    common |= {"in_channels": into, "out_channels": weight.shape[0] // groups, "kernel": window}
    return Kernel(kind, macs=out.numel() * into * window, **common)
