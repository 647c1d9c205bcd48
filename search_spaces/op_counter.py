"""Costs of a torch module, counted from the operators that reach torch's dispatcher when it runs.

The tests check the analytic counts of `SearchSpace.layers` with it; users can count modules of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CountedOperator", "count_operators"]


@dataclass(frozen=True, slots=True)
class CountedOperator:
    """An executed operator at batch size 1; the fields mean the same as those of `layers.Layer`."""

    kind: str
    macs: int
    params: int
    activations: int


_KINDS = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "gelu": "gelu",
    "_softmax": "softmax",
    "max_pool2d_with_indices": "pool",
    "upsample_nearest2d": "resize",
    "cat": "concat",
    "hardswish": "hswish",
    "hardsigmoid": "hsigmoid",
    "avg_pool2d": "pool",
    "mean": "mean",
    "add": "add",
    # A channel shuffle reaches the dispatcher as the copy that makes the transposed tensor contiguous.
    "clone": "shuffle",
}
_BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
_FREE = {
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "squeeze", "unsqueeze", "split", "slice"),
    *("detach", "alias", "empty", "zeros", "select", "stack", "new_zeros"),
}
"""Operators that compute nothing: views, and buffers that another operator allocates for itself. An LSTM's first state
is zeros, its last one is stacked from those of its layers; a sequence that is generated begins with zeros."""


class _OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[CountedOperator] = []
        self.last_convolution: Tensor | None = None

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__  # type: ignore[attr-defined]
        if name not in _FREE:
            self._record(name, args, out[0] if isinstance(out, tuple) else out)
        return out

    def _record(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        elements = out.numel()
        if name == "convolution":
            _, weight, bias, *_, groups = args
            params = weight.numel() + (bias.numel() if bias is not None else 0)
            macs = weight.numel() * math.prod(out.shape[2:])
            self.rows.append(CountedOperator(_convolution_kind(weight, groups), macs, params, elements))
            self.last_convolution = out
        elif name in _BATCH_NORMS:
            x, scale, shift, *_ = args
            params = scale.numel() + shift.numel()
            if x is self.last_convolution:
                self.rows[-1] = replace(self.rows[-1], params=self.rows[-1].params + params)
            else:
                self.rows.append(CountedOperator("batchnorm", 0, params, elements))
        elif name in {"addmm", "mm"}:
            weight = args[-1]
            params = weight.numel() + (args[0].numel() if name == "addmm" else 0)
            rows = out.shape[0]  # one, or one per token
            self.rows.append(CountedOperator("linear", weight.numel() * rows, params, elements))
        elif name == "bmm":
            self.rows.append(CountedOperator("matmul", elements * args[0].shape[-1], 0, elements))
        elif name == "native_layer_norm":
            self.rows.append(CountedOperator("layernorm", 0, sum(one.numel() for one in args[2:4]), elements))
        elif name == "mkldnn_rnn_layer":
            weights = [one for one in args[1:5] if one.dim()]
            steps = out.shape[0]
            macs = steps * sum(one.numel() for one in weights if one.dim() > 1)
            self.rows.append(CountedOperator("lstm", macs, sum(one.numel() for one in weights), elements))
        elif name == "mul":
            self.rows.append(CountedOperator("mul" if isinstance(args[1], Tensor) else "zero", 0, 0, elements))
        else:
            self.rows.append(CountedOperator(_KINDS.get(name, name), 0, 0, elements))


def _convolution_kind(weight: Tensor, groups: int) -> str:
    if groups > 1 and weight.shape[1] == 1 and groups == weight.shape[0]:
        return "depthwise"
    if math.prod(weight.shape[2:]) > 1:
        return "conv"
    return "pointwise" if groups == 1 else "grouped"


def count_operators(module: nn.Module, input_shape: Sequence[int]) -> tuple[CountedOperator, ...]:
    """Run `module` once and return the operators that it executed, in order.

    As in `layers.Layer`, a batch norm directly after a convolution is counted with the convolution, and views are not
    counted. An operator whose kind `Layer` does not know keeps torch's name.

    Args:
        module: a module in eval mode.
        input_shape: shape of its input without the batch dimension.
    """
    counter = _OperatorCounter()
    x = torch.zeros(1, *input_shape)
    with torch.no_grad(), counter:
        module(x)
    return tuple(counter.rows)
