"""Once-for-all's MobileNetV3 space (Cai et al., ICLR 2020): elastic resolution, depth, kernel and expansion."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from latlab.search_spaces.base import Architecture, ArchitectureError, SearchSpace
from latlab.search_spaces.cost import Layer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Block", "OFAMobileNetV3", "OFAMobileNetV3Wide", "blocks", "make_divisible", "widths"]

RESOLUTIONS = tuple(range(128, 225, 4))
DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
STAGES = 5
MAX_DEPTH = 4
SLOTS = STAGES * MAX_DEPTH

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
    def has_identity(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels

    @property
    def out_size(self) -> int:
        return -(-self.size // self.stride)

    @property
    def se_channels(self) -> int:
        return make_divisible(self.middle_channels // 4)


def stages(genes: Sequence[int]) -> list[list[tuple[int, int]]]:
    """(kernel, expansion) of the blocks of each stage that `genes` use."""
    depths, kernels, expansions = genes[1:6], genes[6 : 6 + SLOTS], genes[6 + SLOTS :]
    return [
        [(kernels[stage * MAX_DEPTH + i], expansions[stage * MAX_DEPTH + i]) for i in range(depth)]
        for stage, depth in enumerate(depths)
    ]


def blocks(genes: Sequence[int], width: float) -> tuple[Block, ...]:
    """All blocks of a network, the first (fixed) one included."""
    channels = widths(width)
    size = -(-genes[0] // 2)
    first = Block(
        "first", channels[0], channels[0], channels[1], 3, STRIDES[0], False, HSWISH[0], SE[0], size
    )
    found, previous = [first], first
    for stage, choices in enumerate(stages(genes), start=1):
        for place, (kernel, expansion) in enumerate(choices, start=1):
            in_channels = previous.out_channels
            previous = Block(
                name=f"stage{stage}.block{place}",
                in_channels=in_channels,
                middle_channels=make_divisible(round(in_channels * expansion)),
                out_channels=channels[stage + 1],
                kernel=kernel,
                stride=STRIDES[stage] if place == 1 else 1,
                has_expansion=True,
                has_hswish=HSWISH[stage],
                has_se=SE[stage],
                size=previous.out_size,
            )
            found.append(previous)
    return tuple(found)


class OFAMobileNetV3(SearchSpace):
    """OFA's MobileNetV3 at width 1.0; resolutions 128-224 in steps of 4, 1,000 classes.

    Strings: `r204|k7e6,k5e4|...`, the resolution and then the blocks of each of the five stages.
    """

    name: ClassVar[str] = "ofa-mobilenetv3"
    title: ClassVar[str] = (
        "OFA-MobileNetV3 x1.0: depth, kernel, expansion and resolution, ImageNet, 128-224 px"
    )
    width: ClassVar[float] = 1.0
    size: ClassVar[int] = (
        len(RESOLUTIONS) * sum((len(KERNELS) * len(EXPANSIONS)) ** d for d in DEPTHS) ** STAGES
    )
    num_classes: ClassVar[int] = 1000
    encodings: ClassVar[tuple[str, ...]] = ("one-hot", "graph", "help", "ofa")

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Genes are (resolution, 5 depths, 20 kernels, 20 expansions); what lies beyond a depth is ignored."""
        genes = [int(gene) for gene in genes]
        if len(genes) != 1 + STAGES + 2 * SLOTS:
            raise ArchitectureError(
                f"{self.name}: genes are 46 numbers (resolution, 5 depths, 20 kernels, 20 expansions), not {len(genes)}"
            )
        if genes[0] not in RESOLUTIONS:
            raise ArchitectureError(
                f"{self.name}: resolution {genes[0]} is not one of 128, 132, ..., 224 (steps of 4)"
            )
        for stage, depth in enumerate(genes[1:6], start=1):
            if depth not in DEPTHS:
                raise ArchitectureError(
                    f"{self.name}: stage {stage} has depth {depth}, it must have 2, 3 or 4 blocks"
                )
        clean = [*genes[:6], *[0] * (2 * SLOTS)]
        for stage, choices in enumerate(stages(genes)):
            for place, (kernel, expansion) in enumerate(choices):
                if kernel not in KERNELS or expansion not in EXPANSIONS:
                    raise ArchitectureError(
                        f"{self.name}: stage {stage + 1} block {place + 1} is k{kernel}e{expansion}; "
                        "kernels are 3, 5, 7 and expansions 3, 4, 6"
                    )
                slot = 6 + stage * MAX_DEPTH + place
                clean[slot], clean[slot + SLOTS] = kernel, expansion
        text = "|".join(
            [f"r{clean[0]}", *(",".join(f"k{k}e{e}" for k, e in choices) for choices in stages(clean))]
        )
        return Architecture(self.name, text, tuple(clean))

    def parse(self, text: str) -> Architecture:
        head, *tail = "".join(text.split()).split("|")
        resolution = re.fullmatch(r"r([0-9]{1,4})", head)
        if resolution is None or len(tail) != STAGES:
            raise ArchitectureError(
                f"{self.name}: {text!r} is not a resolution and five stages such as "
                "r224|k3e3,k3e3|k3e4,k5e4|k3e6,k7e6|k5e3,k5e3|k7e4,k7e4"
            )
        parsed = []
        for stage, field in enumerate(tail, start=1):
            choices = []
            for block in field.split(","):
                match = re.fullmatch(r"k([0-9])e([0-9])", block)
                if match is None:
                    raise ArchitectureError(
                        f"{self.name}: {block!r} in stage {stage} of {text!r} is not a block such as k5e4"
                    )
                choices.append((int(match[1]), int(match[2])))
            parsed.append(choices)
        return self._from_stages(int(resolution[1]), parsed)

    def _from_stages(self, resolution: int, parsed: Sequence[Sequence[tuple[int, int]]]) -> Architecture:
        genes = [resolution, *map(len, parsed), *[0] * (2 * SLOTS)]
        for stage, choices in enumerate(parsed):
            for place, (kernel, expansion) in enumerate(choices[:MAX_DEPTH]):
                slot = 6 + stage * MAX_DEPTH + place
                genes[slot], genes[slot + SLOTS] = kernel, expansion
        return self.from_genes(genes)

    def random(self, rng: random.Random) -> Architecture:
        """Uniform over the resolution, each depth, and each kernel and expansion (not over architectures)."""
        return self._from_stages(
            rng.choice(RESOLUTIONS),
            [
                [(rng.choice(KERNELS), rng.choice(EXPANSIONS)) for _ in range(rng.choice(DEPTHS))]
                for _ in range(STAGES)
            ],
        )

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        raise NotImplementedError

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        raise NotImplementedError

    def references(self) -> tuple[Architecture, ...]:
        raise NotImplementedError

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, arch.genes[0], arch.genes[0])

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        raise NotImplementedError

    def encode(self, archs: Sequence[Architecture], encoding: str) -> np.ndarray:
        raise NotImplementedError

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """The network; as written it has the published forms of h_swish, hard sigmoid and means."""
        from latlab.search_spaces.modules import finish
        from latlab.search_spaces.ofa_modules import Network

        network = Network(blocks(arch.genes, self.width), self.width, self.num_classes, as_written)
        return finish(network, self.input_shape(arch), seed)


class OFAMobileNetV3Wide(OFAMobileNetV3):
    """OFA's MobileNetV3 at width 1.2."""

    name: ClassVar[str] = "ofa-mobilenetv3-w1.2"
    title: ClassVar[str] = (
        "OFA-MobileNetV3 x1.2: depth, kernel, expansion and resolution, ImageNet, 128-224 px"
    )
    width: ClassVar[float] = 1.2
