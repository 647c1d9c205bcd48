"""Torch modules that the spaces share, and `finish`, which sets weights from a seed and calibrates batch norms.

The weights of a parameter depend on the seed, its name and its shape only. So a pruned network has the same weights as
the unpruned one, and two architectures whose pruned graphs are identical export to identical bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Autoregressive",
    "ChannelShuffle",
    "HardSigmoid",
    "HardSwish",
    "Zero",
    "batch_norm",
    "conv",
    "finish",
    "images",
    "linear",
    "quick_pools",
]

POOL_SIZE = 1 << 21
"""Number of normal random numbers per seed from which weights are cut. Larger layers get numbers of their own:
repeated ones would give many tokens of a vocabulary the same logits."""

CALIBRATION_IMAGES = 4
"""Number of images that set the statistics of batch norms. The largest standard deviation after any batch norm on
held-out images, over 30 random networks of NAS-Bench-201 (the worst space), and the CPU time of a build are: 1 image 21
(21 ms), 2 images 19 (25 ms), 4 images 2.6 (24 ms), 8 images 2.4 (36 ms), 32 images 1.5 (136 ms). Four cost next to
nothing."""


class _Conv2d(nn.Conv2d):
    def reset_parameters(self) -> None:
        """Do nothing: `finish` fills every parameter, and torch's initialisation takes four times as long."""


class _Linear(nn.Linear):
    def reset_parameters(self) -> None:
        """Do nothing, for the same reason as `_Conv2d`."""


def conv(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution with "same" padding and uninitialised weights."""
    module: nn.Conv2d = _Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
    )
    # Tracers and fusers recognise this class only, not subclasses of it.
    module.__class__ = nn.Conv2d
    return module


def linear(in_features: int, out_features: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with uninitialised weights."""
    module: nn.Linear = _Linear(in_features, out_features, bias)
    module.__class__ = nn.Linear
    return module


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a batch norm with momentum 1, so that one forward pass in training mode sets its statistics (`finish`)."""
    return nn.BatchNorm2d(channels, momentum=1.0)


class Zero(nn.Module):
    """The operation `none` of NAS-Bench-201: zeros of the input's shape, computed from the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.0


class ChannelShuffle(nn.Module):
    """A channel shuffle (ShuffleNet), which interleaves the groups of a grouped convolution.

    Its sizes are fixed, so that exported graphs are static.
    """

    def __init__(self, channels: int, groups: int, size: int) -> None:
        super().__init__()
        self.channels, self.groups, self.size = channels, groups, size

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.groups, self.channels // self.groups, self.size, self.size)
        return x.transpose(1, 2).reshape(-1, self.channels, self.size, self.size)


class HardSwish(nn.Module):
    """The activation h_swish as it was published: x * relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.relu6(x + 3.0) / 6.0


class HardSigmoid(nn.Module):
    """The hard sigmoid as it was published: relu6(x + 3) / 6."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3.0) / 6.0


class Autoregressive(nn.Module):
    """The base class of networks that generate a sequence step by step.

    A call executes `encode` once, then `step` for each position, and returns the first tensor of the last state. Traces
    unroll this loop; an exporter whose format has loops calls the methods itself (`exporters/onnx_loop.py`).
    """

    positions: Tensor
    """What `step` takes besides the state: a row for each step."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.register_buffer("positions", positions, persistent=False)

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what all steps read."""
        raise NotImplementedError

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the state before the first step. Of `x` it may depend on the batch size only."""
        raise NotImplementedError

    def step(self, position: Tensor, encoded: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the state after a step. Its first tensor keeps its shape, others may grow."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        encoded, state = self.encode(x), self.start(x)
        for number in range(len(self.positions)):
            state = self.step(self.positions[number], encoded, state)
        return state[0]


@lru_cache(maxsize=2)
def _pool(seed: int) -> Tensor:
    return torch.randn(POOL_SIZE, generator=torch.Generator().manual_seed(seed))


def _fill(name: str, parameter: Tensor, is_batch_norm: bool, seed: int) -> None:
    count = parameter.numel()
    if is_batch_norm:
        # Scales differ so that an exporter cannot mix them up; shifts stay 0, as in every new network,
        # because an edge of NAS-Bench-201 that receives zeros must give zeros for pruning to be exact.
        mean, std = (1.0, 0.1) if name.endswith("weight") else (0.0, 0.0)
    elif name.endswith("bias"):
        mean, std = 0.0, 0.1
    else:
        mean, std = 0.0, math.sqrt(2.0 / (count / parameter.shape[0]))
    if std == 0.0:
        parameter.fill_(mean)
        return
    if count > POOL_SIZE:
        parameter.normal_(0.0, std, generator=torch.Generator().manual_seed(crc32(f"{seed} {name}".encode())))
    else:
        start = crc32(name.encode()) % (POOL_SIZE - count + 1)
        torch.mul(_pool(seed)[start : start + count].view(parameter.shape), std, out=parameter)
    if mean:
        parameter.add_(mean)


@lru_cache(maxsize=8)
def images(count: int, shape: tuple[int, int, int], seed: int) -> Tensor:
    """Return standard normal images, `count` x channels x height x width."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def quick_pools() -> Iterator[None]:
    """Run average pools in a third of the time inside the block, with bit-identical results.

    torch's kernel for channels-last images is vectorised, the kernel for contiguous images is not. The latter took a
    fifth of the time of a NAS-Bench-201 network on the calibration images. Do not trace networks inside the block: the
    graph would contain the changes of layout.
    """
    plain = nn.AvgPool2d.forward

    def forward(self: nn.AvgPool2d, input: Tensor) -> Tensor:
        if input.ndim != 4:
            return plain(self, input)
        return plain(self, input.contiguous(memory_format=torch.channels_last)).contiguous()

    nn.AvgPool2d.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.AvgPool2d.forward = plain  # type: ignore[method-assign]


def finish(network: nn.Module, input_shape: tuple[int, int, int], seed: int) -> nn.Module:
    """Set the weights of `network` and the statistics of its batch norms, and return it in eval mode.

    Without calibrated batch norms the logits of an untrained FBNet move by 1e-8 when the input changes, and a graph
    that only returns its bias would pass any comparison of outputs. Networks without batch norms are not run.
    """
    normalised = False
    with torch.no_grad(), quick_pools():
        for module_name, module in network.named_modules():
            is_batch_norm = isinstance(module, nn.BatchNorm2d)
            normalised |= is_batch_norm
            for name, parameter in module.named_parameters(recurse=False):
                _fill(f"{module_name}.{name}", parameter.data, is_batch_norm, seed)
        if normalised:
            network.train()
            network(images(CALIBRATION_IMAGES, input_shape, seed))
    network.requires_grad_(False)
    return network.eval()
