"""The skeleton of OFA's MobileNetV3 networks: choices, blocks, and the layers that each executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from latlab.search_spaces import layers
from latlab.search_spaces.layers import Layer

__all__ = ["Block", "block_layers", "blocks_of", "head_layers", "layers_of", "make_divisible", "stem_layers", "widths"]

RESOLUTIONS = tuple(range(128, 225, 4))
"""Height (= width) of the images in pixels."""
DEPTHS = (2, 3, 4)
"""Number of blocks of a stage."""
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
STAGES = 5
MAX_DEPTH = 4
SLOTS = STAGES * MAX_DEPTH
"""Number of blocks of the deepest network; genes have a kernel and an expansion for each."""

BASE_WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
"""Channels of the stem, the first block, the five stages, the final expansion and the feature mix, at width 1."""
STRIDES = (1, 2, 2, 2, 1, 2)
HSWISH = (False, False, False, True, True, True)
SE = (False, False, True, False, True, True)
"""True where a block has squeeze and excite. `STRIDES`, `HSWISH` and `SE` list the first block and the five stages."""


def make_divisible(value: float, divisor: int = 8) -> int:
    """Return the nearest multiple of `divisor`, or the next larger one where that is less than 90 % of `value`."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@cache
def widths(multiplier: float) -> tuple[int, ...]:
    """Return `BASE_WIDTHS` times the multiplier, rounded by `make_divisible`."""
    return tuple(make_divisible(width * multiplier) for width in BASE_WIDTHS)


@dataclass(frozen=True, slots=True)
class Block:
    """The numbers of an inverted bottleneck."""

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
    """Height (= width) of the input in pixels."""

    @property
    def activation(self) -> str:
        """Kind of its activations, as in `Layer.kind`."""
        return "hswish" if self.has_hswish else "relu"

    @property
    def has_identity(self) -> bool:
        """True where the input is added to the output."""
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def out_size(self) -> int:
        """Height (= width) of the output in pixels."""
        return -(-self.size // self.stride)

    @property
    def se_channels(self) -> int:
        """Channels between the two convolutions of squeeze and excite."""
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
    """Return all blocks of a network, the first (fixed) one included.

    Args:
        resolution: height (= width) of the images in pixels.
        stages: (kernel, expansion) of the blocks of each of the five stages.
        width: the width multiplier.
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
    """Return the layers of a block."""
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
    """Return the layers before the blocks."""
    stem = widths(width)[0]
    return (
        layers.conv("stem.conv", 3, stem, resolution, 3, 2),
        layers.elementwise("stem.hswish", "hswish", stem, -(-resolution // 2)),
    )


@cache
def head_layers(size: int, width: float, num_classes: int) -> tuple[Layer, ...]:
    """Return the layers after the blocks, whose output has `size` pixels a side."""
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
    """Return the layers of the network of `blocks`."""
    body = (layer for block in blocks for layer in block_layers(block))
    return (*stem_layers(resolution, width), *body, *head_layers(blocks[-1].out_size, width, num_classes))


def stages(genes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return (kernel, expansion) of the blocks of each stage, without the slots that the depths leave unused."""
    depths, kernels, expansions = genes[1:6], genes[6 : 6 + SLOTS], genes[6 + SLOTS :]
    return [
        [(kernels[stage * MAX_DEPTH + i], expansions[stage * MAX_DEPTH + i]) for i in range(depth)]
        for stage, depth in enumerate(depths)
    ]
