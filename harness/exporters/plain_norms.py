"""Batch norms as a scale and a shift, for files in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["plain_norms"]


@contextmanager
def plain_norms(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of `module` have mean 0 and variance 1 within the block; their results stay the same.

    A batch norm that no convolution precedes is not folded, and its variance, a square, leaves float16's range (65504)
    where the values themselves do not: in one of six networks of NAS-Bench-201.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [layer for layer in module.modules() if isinstance(layer, kinds) and layer.affine and not layer.training]
    kept = []
    with torch.no_grad():
        for norm in norms:
            mean, variance = norm.running_mean, norm.running_var
            if mean is None or variance is None:
                continue
            own = (norm.weight, norm.bias, mean, variance)
            kept.append([(tensor, tensor.detach().clone()) for tensor in own])
            scale = norm.weight * torch.rsqrt(variance + norm.eps)
            shift = norm.bias - mean * scale
            plain = (scale, shift, torch.zeros_like(mean), torch.full_like(variance, 1 - norm.eps))
            for tensor, value in zip(own, plain, strict=True):
                tensor.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for tensors in kept:
                for tensor, value in tensors:
                    tensor.copy_(value)
