"""The prior-data-fitted network: a transformer that reads measurements and predicts others in one forward pass.

Measured architectures attend to each other. A queried architecture attends to the measured ones only, so that a
prediction does not depend on the other queries, and the keys and values of the measured ones are computed once (Mueller
et al., Transformers Can Do Bayesian Inference, ICLR 2022, section 3, has the same attention mask). There is no
positional encoding, because the order of the measurements does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Context", "InContextNetwork", "Shape", "StudentT"]

MIN_FREEDOM = 2.5
"""Smallest number of degrees of freedom; the variance exists above 2."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the network: `features` of an architecture, `width` of a token, `layers` blocks of `heads` heads."""

    features: int
    width: int = 64
    layers: int = 3
    heads: int = 4


class Context(NamedTuple):
    """The part of the measured architectures that queries read: keys and values of each layer, and the device's token.

    `keys_values` has a pair per layer, each (devices, heads, n, width / heads); `device` is (devices, 1, width).
    """

    keys_values: list[tuple[Tensor, Tensor]]
    device: Tensor


class StudentT(NamedTuple):
    """The predicted distributions of standardised log-latencies, each field of shape (devices, queries)."""

    mean: Tensor
    scale: Tensor
    freedom: Tensor

    def negative_log_likelihood(self, y: Tensor) -> Tensor:
        """Return the negative log-likelihood of each of `y` (devices, queries), in the same shape."""
        half = (self.freedom + 1) / 2
        normaliser = torch.lgamma(self.freedom / 2) - torch.lgamma(half) + 0.5 * torch.log(math.pi * self.freedom)
        z = (y - self.mean) / self.scale
        return normaliser + self.scale.log() + half * torch.log1p(z * z / self.freedom)


class _Block(nn.Module):
    """A transformer block: pre-norm attention to the context, then a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def _split(self, x: Tensor) -> Tensor:
        devices, tokens, width = x.shape
        return x.view(devices, tokens, self.heads, width // self.heads).transpose(1, 2)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_value(self.norm_attention(context)).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor]) -> Tensor:
        read = F.scaled_dot_product_attention(self._split(self.query(self.norm_attention(x))), *keys_values)
        x = x + self.out(read.transpose(1, 2).reshape(x.shape))
        after: Tensor = x + self.perceptron(self.norm_perceptron(x))
        return after


class InContextNetwork(nn.Module):
    """The network: it gives distributions of queried latencies in a context of measured ones."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.architecture = nn.Sequential(nn.Linear(shape.features, shape.width), nn.LayerNorm(shape.width))
        self.latency = nn.Linear(2, shape.width)
        self.device = nn.Linear(2, shape.width)
        self._blocks = [_Block(shape.width, shape.heads) for _ in range(shape.layers)]
        self.blocks = nn.ModuleList(self._blocks)
        self.head = nn.Sequential(
            nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.width), nn.GELU(), nn.Linear(shape.width, 3)
        )

    def read(self, x: Tensor, y: Tensor, device: Tensor) -> Context:
        """Read measurements and return the context for queries.

        Args:
            x: features of the measured architectures, (devices, n, features).
            y: their standardised log-latencies, and standard errors of these (0 if unknown), (devices, n, 2).
            device: logarithms of the scale that divided y, relative to a typical device, and of n, (devices, 2).
        """
        summary = self.device(device)[:, None]
        tokens = self.architecture(x) + self.latency(y) + summary
        pairs = []
        for block in self._blocks:
            pairs.append(block.keys_values(tokens))
            tokens = block(tokens, pairs[-1])
        return Context(pairs, summary)

    def forward(self, context: Context, x: Tensor) -> StudentT:
        """Return the distributions of architectures with features `x` (devices, queries, features)."""
        tokens = self.architecture(x) + context.device
        for block, pair in zip(self._blocks, context.keys_values, strict=True):
            tokens = block(tokens, pair)
        mean, scale, freedom = self.head(tokens).unbind(dim=-1)
        return StudentT(mean, F.softplus(scale) + 1e-3, MIN_FREEDOM + F.softplus(freedom + 2))
