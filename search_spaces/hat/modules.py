"""HAT's encoders as torch modules, with layer norms after the residuals, as its base configurations have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.search_spaces.hat.layers import ATTENTION, TOKENS
from latlab.search_spaces.torch_modules import linear

__all__ = ["Encoder", "scale"]


class _SelfAttention(nn.Module):
    """Self-attention whose queries are scaled by their weights (`scale`), with its residual and its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = linear(width, 3 * ATTENTION)
        self.output = linear(ATTENTION, width)
        self.norm = nn.LayerNorm(width)
        self.split = (-1, TOKENS, heads, ATTENTION // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.qkv(x), ATTENTION, 2)
        q, k = q.reshape(self.split).transpose(1, 2), k.reshape(self.split).permute(0, 2, 3, 1)
        weights = torch.softmax(torch.matmul(q, k), 3)
        mixed = torch.matmul(weights, v.reshape(self.split).transpose(1, 2))
        y: Tensor = self.norm(x + self.output(mixed.transpose(1, 2).reshape(-1, TOKENS, ATTENTION)))
        return y


class _FeedForward(nn.Module):
    """Two linear layers with a ReLU between them, with their residual and their norm."""

    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.expand = linear(width, middle)
        self.project = linear(middle, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x + self.project(F.relu(self.expand(x))))
        return y


class Encoder(nn.Module):
    """An encoder: from embedded tokens (n, 1, `TOKENS`, width) to its output (n, `TOKENS`, width)."""

    def __init__(self, width: int, middles: Sequence[int], heads: Sequence[int]) -> None:
        super().__init__()
        self.shape = (-1, TOKENS, width)
        parts = [
            part
            for middle, own in zip(middles, heads, strict=True)
            for part in (_SelfAttention(width, own), _FeedForward(width, middle))
        ]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x.reshape(self.shape))
        return y


def scale(network: nn.Module) -> None:
    """Scale the queries that `finish` has set by the root of a head's width, which HAT does when it runs.

    The half besides keeps the softmax of untrained weights away from its ends.
    """
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, _SelfAttention):
                part.qkv.weight[:ATTENTION].mul_(part.split[-1] ** -0.5 / 2)
                part.qkv.bias[:ATTENTION].mul_(part.split[-1] ** -0.5 / 2)
