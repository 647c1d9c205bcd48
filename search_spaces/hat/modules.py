"""HAT's encoders as torch modules, with layer norms after the residuals, as its base configurations have them.

Decoders, which share some of them, are in `decoder.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.search_spaces.hat.layers import ATTENTION, TOKENS
from latlab.search_spaces.torch_modules import linear

__all__ = ["Attention", "Encoder", "FeedForward", "scale"]


class Attention(nn.Module):
    """The base class of attention whose queries are scaled by their weights (`scale`)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, ATTENTION // heads

    def queries(self) -> nn.Linear:
        """Return the linear layer whose first `ATTENTION` outputs are the queries."""
        raise NotImplementedError


class _SelfAttention(Attention):
    """Self-attention of all tokens at once, with its residual and its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.qkv = linear(width, 3 * ATTENTION)
        self.output = linear(ATTENTION, width)
        self.norm = nn.LayerNorm(width)
        self.split = (-1, TOKENS, heads, self.head_width)

    def queries(self) -> nn.Linear:
        return self.qkv

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.qkv(x), ATTENTION, 2)
        q, k = q.reshape(self.split).transpose(1, 2), k.reshape(self.split).permute(0, 2, 3, 1)
        weights = torch.softmax(torch.matmul(q, k), 3)
        mixed = torch.matmul(weights, v.reshape(self.split).transpose(1, 2))
        y: Tensor = self.norm(x + self.output(mixed.transpose(1, 2).reshape(-1, TOKENS, ATTENTION)))
        return y


class FeedForward(nn.Module):
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
            for part in (_SelfAttention(width, own), FeedForward(width, middle))
        ]
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x.reshape(self.shape))
        return y

    def last_outputs(self, x: Tensor, count: int) -> list[Tensor]:
        """Return the outputs of the last `count` layers, the very last one first."""
        y, outputs = x.reshape(self.shape), []
        for part in self.layers:
            y = part(y)
            if isinstance(part, FeedForward):
                outputs.append(y)
        return outputs[: -count - 1 : -1]


def scale(network: nn.Module) -> None:
    """Scale the queries that `finish` has set by the root of a head's width, which HAT does when it runs.

    The half besides keeps the softmax of untrained weights away from its ends.
    """
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, Attention):
                queries = part.queries()
                queries.weight[:ATTENTION].mul_(part.head_width**-0.5 / 2)
                queries.bias[:ATTENTION].mul_(part.head_width**-0.5 / 2)
