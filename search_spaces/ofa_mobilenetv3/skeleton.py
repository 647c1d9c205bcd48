"""The blocks of OFA's MobileNetV3 networks, and what they execute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from latlab.search_spaces import layers
from latlab.search_spaces.layers import Layer

__all__ = ["Block", "block_layers", "blocks_of", "head_layers", "layers_of", "make_divisible", "stem_layers", "widths"]

BASE_WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
"""Stem, first block, five stages, final expansion, feature mix."""
STRIDES = (1, 2, 2, 2, 1, 2)
HSWISH = (False, False, False, True, True, True)
SE = (False, False, True, False, True, True)
"""Of the first block and the five stages."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is at least 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@cache
def widths(multiplier: float) -> tuple[int, ...]:
    """`BASE_WIDTHS` at a width multiplier."""
    return tuple(make_divisible(width * multiplier) for width in BASE_WIDTHS)


@dataclass(frozen=True, slots=True)
class Block:
    """One inverted bottleneck."""

    name: str
    in_channels: int
    middle_channels: int
    out_channels: int
    kernel: int
    stride: int
    has_expansion: bool
    has_hswish: bool
    has_se: bool
    size: int
    """Height (= width) of its input."""

    @property
    def activation(self) -> str:
        return "hswish" if self.has_hswish else "relu"

    @property
    def has_identity(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def out_size(self) -> int:
        return -(-self.size // self.stride)

    @property
    def se_channels(self) -> int:
        return make_divisible(self.middle_channels // 4)


@cache
def _first(width: float, size: int) -> Block:
    stem, first, *_ = widths(width)
    return Block("first", stem, stem, first, 3, STRIDES[0], False, HSWISH[0], SE[0], size)


@cache
def _block(width: float, stage: int, place: int, size: int, kernel: int, expansion: int) -> Block:
    channels = widths(width)
    in_channels = channels[stage] if place == 1 else channels[stage + 1]
    return Block(
        name=f"stage{stage}.block{place}",
        in_channels=in_channels,
        middle_channels=make_divisible(round(in_channels * expansion)),
        out_channels=channels[stage + 1],
        kernel=kernel,
        stride=STRIDES[stage] if place == 1 else 1,
        has_expansion=True,
        has_hswish=HSWISH[stage],
        has_se=SE[stage],
        size=size,
    )


def blocks_of(resolution: int, stages: Sequence[Sequence[tuple[int, int]]], width: float) -> tuple[Block, ...]:
    """All blocks of a network, the first (fixed) one included.

    Args:
        stages: (kernel, expansion) of the blocks of each of the five stages.
    """
    size = -(-resolution // 2)
    found = [_first(width, size)]
    for stage, choices in enumerate(stages, start=1):
        for place, (kernel, expansion) in enumerate(choices, start=1):
            found.append(_block(width, stage, place, size, kernel, expansion))
            if place == 1:
                size = -(-size // STRIDES[stage])
    return tuple(found)


@cache
def block_layers(block: Block) -> tuple[Layer, ...]:
    """What a block executes."""
    name, middle, size, out_size = block.name, block.middle_channels, block.size, block.out_size
    found = []
    if block.has_expansion:
        found += [
            layers.conv(f"{name}.expand", block.in_channels, middle, size),
            layers.elementwise(f"{name}.expand.{block.activation}", block.activation, middle, size),
        ]
    found += [
        layers.conv(f"{name}.depthwise", middle, middle, size, block.kernel, block.stride, middle),
        layers.elementwise(f"{name}.depthwise.{block.activation}", block.activation, middle, out_size),
    ]
    if block.has_se:
        se = block.se_channels
        found += [
            layers.mean(f"{name}.se.mean", middle, out_size),
            layers.conv(f"{name}.se.reduce", middle, se, 1, batch_norm=False, bias=True),
            layers.elementwise(f"{name}.se.relu", "relu", se, 1),
            layers.conv(f"{name}.se.expand", se, middle, 1, batch_norm=False, bias=True),
            layers.elementwise(f"{name}.se.gate", "hsigmoid", middle, 1),
            layers.elementwise(f"{name}.se.mul", "mul", middle, out_size),
        ]
    found.append(layers.conv(f"{name}.project", middle, block.out_channels, out_size))
    if block.has_identity:
        found.append(layers.elementwise(f"{name}.add", "add", block.out_channels, out_size))
    return tuple(found)


@cache
def stem_layers(resolution: int, width: float) -> tuple[Layer, ...]:
    """What is executed before the blocks."""
    stem = widths(width)[0]
    return (
        layers.conv("stem.conv", 3, stem, resolution, 3, 2),
        layers.elementwise("stem.hswish", "hswish", stem, -(-resolution // 2)),
    )


@cache
def head_layers(size: int, width: float, num_classes: int) -> tuple[Layer, ...]:
    """What is executed after the blocks, whose output has `size`."""
    *_, last, final, mixed = widths(width)
    return (
        layers.conv("final.conv", last, final, size),
        layers.elementwise("final.hswish", "hswish", final, size),
        layers.mean("mean", final, size),
        layers.conv("mix.conv", final, mixed, 1, batch_norm=False),
        layers.elementwise("mix.hswish", "hswish", mixed, 1),
        layers.linear("classifier", mixed, num_classes),
    )


def layers_of(blocks: Sequence[Block], resolution: int, width: float, num_classes: int) -> tuple[Layer, ...]:
    """What the network of `blocks` executes."""
    body = (layer for block in blocks for layer in block_layers(block))
    return (*stem_layers(resolution, width), *body, *head_layers(blocks[-1].out_size, width, num_classes))


RESOLUTIONS = tuple(range(128, 225, 4))


DEPTHS = (2, 3, 4)


KERNELS = (3, 5, 7)


EXPANSIONS = (3, 4, 6)


STAGES = 5


MAX_DEPTH = 4


SLOTS = STAGES * MAX_DEPTH


def stages(genes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """(kernel, expansion) of the blocks of each stage that `genes` use."""
    depths, kernels, expansions = genes[1:6], genes[6 : 6 + SLOTS], genes[6 + SLOTS :]
    return [
        [(kernels[stage * MAX_DEPTH + i], expansions[stage * MAX_DEPTH + i]) for i in range(depth)]
        for stage, depth in enumerate(depths)
    ]
