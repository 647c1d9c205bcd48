"""The skeleton of FBNet: its operations, stages and positions, and the layers that each executes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from latlab.search_spaces import layers
from latlab.search_spaces.layers import Layer

__all__ = ["OPS", "Op", "Position", "Setting", "head_layers", "layers_of", "positions", "stem_layers"]


@dataclass(frozen=True, slots=True)
class Op:
    """An operation that a position can have: an inverted bottleneck with a kernel, an expansion and groups of its 1x1
    layers."""

    name: str
    kernel: int
    expansion: int
    groups: int


OPS: tuple[Op | None, ...] = (
    Op("k3_e1", 3, 1, 1),
    Op("k3_e1_g2", 3, 1, 2),
    Op("k3_e3", 3, 3, 1),
    Op("k3_e6", 3, 6, 1),
    Op("k5_e1", 5, 1, 1),
    Op("k5_e1_g2", 5, 1, 2),
    Op("k5_e3", 5, 3, 1),
    Op("k5_e6", 5, 6, 1),
    None,  # skip
)
"""Operations of a position; a gene is an index into them."""
SKIP = len(OPS) - 1
LAYERS = 22
STAGE_LAYERS = (1, 4, 4, 4, 4, 4, 1)
STAGE_CHANNELS = (16, 24, 32, 64, 112, 184, 352)
STEM_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class Setting:
    """The numbers that differ between the two data sets."""

    size: int
    """Height (= width) of the images in pixels."""
    stem_stride: int
    strides: tuple[int, ...]
    """Stride of the first layer of each of the seven stages."""
    head_channels: int
    num_classes: int


IMAGENET = Setting(224, 2, (1, 2, 2, 2, 1, 2, 1), 1984, 1000)
CIFAR100 = Setting(32, 1, (1, 1, 2, 2, 1, 2, 1), 1504, 100)


@dataclass(frozen=True, slots=True)
class Position:
    """A place for one of the 22 layers, with the shapes of its input and output."""

    name: str
    in_channels: int
    out_channels: int
    stride: int
    size: int
    """Height (= width) of the input in pixels."""

    @property
    def out_size(self) -> int:
        """Height (= width) of the output in pixels."""
        return self.size // self.stride

    @property
    def is_identity_shaped(self) -> bool:
        """True where input and output have the same shape."""
        return self.stride == 1 and self.in_channels == self.out_channels


@cache
def positions(setting: Setting) -> tuple[Position, ...]:
    """Return the positions of the 22 layers."""
    found = []
    channels, size = STEM_CHANNELS, setting.size // setting.stem_stride
    for stage, (count, out_channels, stride) in enumerate(
        zip(STAGE_LAYERS, STAGE_CHANNELS, setting.strides, strict=True), start=1
    ):
        for block in range(1, count + 1):
            step = stride if block == 1 else 1
            found.append(Position(f"stage{stage}.block{block}", channels, out_channels, step, size))
            channels, size = out_channels, found[-1].out_size
    return tuple(found)


@cache
def stem_layers(setting: Setting) -> tuple[Layer, ...]:
    """Return the layers before the 22 positions."""
    return (
        layers.conv("stem.conv", 3, STEM_CHANNELS, setting.size, 3, setting.stem_stride),
        layers.elementwise("stem.relu", "relu", STEM_CHANNELS, positions(setting)[0].size),
    )


@cache
def head_layers(setting: Setting) -> tuple[Layer, ...]:
    """Return the layers after the 22 positions."""
    last, channels = positions(setting)[-1], setting.head_channels
    return (
        layers.conv("head.conv", last.out_channels, channels, last.out_size),
        layers.elementwise("head.relu", "relu", channels, last.out_size),
        layers.mean("mean", channels, last.out_size),
        layers.linear("classifier", channels, setting.num_classes),
    )


@cache
def layers_of(setting: Setting, place: int, op_index: int) -> tuple[Layer, ...]:
    """Return the layers that an operation executes at a place (0-21)."""
    at, op = positions(setting)[place], OPS[op_index]
    name, size, wide = at.name, at.size, at.out_channels
    if op is None:
        if at.is_identity_shaped:
            return ()
        return (
            layers.conv(f"{name}.conv", at.in_channels, wide, size, stride=at.stride),
            layers.elementwise(f"{name}.relu", "relu", wide, at.out_size),
        )
    middle = at.in_channels * op.expansion
    found = [
        layers.conv(f"{name}.expand", at.in_channels, middle, size, groups=op.groups),
        layers.elementwise(f"{name}.expand.relu", "relu", middle, size),
    ]
    if op.groups > 1:
        found.append(layers.elementwise(f"{name}.shuffle", "shuffle", middle, size))
    found += (
        layers.conv(f"{name}.depthwise", middle, middle, size, op.kernel, at.stride, middle),
        layers.elementwise(f"{name}.depthwise.relu", "relu", middle, at.out_size),
        layers.conv(f"{name}.project", middle, wide, at.out_size, groups=op.groups),
    )
    if at.is_identity_shaped:
        found.append(layers.elementwise(f"{name}.add", "add", wide, at.out_size))
    return tuple(found)
