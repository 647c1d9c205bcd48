"""FBNet's search space (Wu et al., CVPR 2019) as HW-NAS-Bench measured it: 22 layers of nine operations.

Two settings: ImageNet (224 px), and CIFAR-100 (32 px), which is that of the published latency tables.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from latlab.search_spaces.base import Architecture, ArchitectureError, SearchSpace
from latlab.search_spaces.cost import Layer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["OPS", "FBNetCIFAR", "FBNetImageNet", "Op", "Position", "Setting", "positions"]


@dataclass(frozen=True, slots=True)
class Op:
    """One choice of a layer: an inverted bottleneck's kernel, expansion and groups of its 1x1 convolutions."""

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
LAYERS = 22
STAGE_LAYERS = (1, 4, 4, 4, 4, 4, 1)
STAGE_CHANNELS = (16, 24, 32, 64, 112, 184, 352)
STEM_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class Setting:
    """What differs between the two data sets."""

    size: int
    stem_stride: int
    strides: tuple[int, ...]
    head_channels: int
    num_classes: int


IMAGENET = Setting(224, 2, (1, 2, 2, 2, 1, 2, 1), 1984, 1000)
CIFAR100 = Setting(32, 1, (1, 1, 2, 2, 1, 2, 1), 1504, 100)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a layer stands: what it receives and what it must give."""

    name: str
    in_channels: int
    out_channels: int
    stride: int
    size: int
    """Height (= width) of its input."""

    @property
    def is_identity_shaped(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels


@cache
def positions(setting: Setting) -> tuple[Position, ...]:
    """The 22 layers of `setting`."""
    found = []
    channels, size = STEM_CHANNELS, setting.size // setting.stem_stride
    for stage, (count, out_channels, stride) in enumerate(
        zip(STAGE_LAYERS, STAGE_CHANNELS, setting.strides, strict=True), start=1
    ):
        for block in range(1, count + 1):
            step = stride if block == 1 else 1
            found.append(Position(f"stage{stage}.block{block}", channels, out_channels, step, size))
            channels, size = out_channels, size // step
    return tuple(found)


class _FBNet(SearchSpace):
    """What both settings share."""

    setting: ClassVar[Setting]
    size: ClassVar[int] = 9**LAYERS
    encodings: ClassVar[tuple[str, ...]] = ("one-hot", "graph", "help")

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        genes = tuple(int(gene) for gene in genes)
        if len(genes) != LAYERS or not all(0 <= gene < len(OPS) for gene in genes):
            raise ArchitectureError(f"{self.name}: genes are 22 operation indices 0-8, not {list(genes)}")
        return Architecture(self.name, "_".join(map(str, genes)), genes)

    def parse(self, text: str) -> Architecture:
        fields = "".join(text.split()).split("_")
        if len(fields) != LAYERS:
            raise ArchitectureError(
                f"{self.name}: {text!r} has {len(fields)} fields joined by '_', it must have {LAYERS}"
            )
        for place, field in enumerate(fields, start=1):
            if field not in {"0", "1", "2", "3", "4", "5", "6", "7", "8"}:
                raise ArchitectureError(
                    f"{self.name}: operation {place} of {text!r} is {field!r}, it must be a digit 0-8"
                )
        return self.from_genes([int(field) for field in fields])

    def random(self, rng: random.Random) -> Architecture:
        return self.from_genes([rng.randrange(len(OPS)) for _ in range(LAYERS)])

    def mutate(self, arch: Architecture, rng: random.Random) -> Architecture:
        genes = list(arch.genes)
        layer = rng.randrange(LAYERS)
        genes[layer] = rng.choice([op for op in range(len(OPS)) if op != genes[layer]])
        return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        return self.from_genes([rng.choice(pair) for pair in zip(a.genes, b.genes, strict=True)])

    def references(self) -> tuple[Architecture, ...]:
        raise NotImplementedError

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, self.setting.size, self.setting.size)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        raise NotImplementedError

    def encode(self, archs: Sequence[Architecture], encoding: str) -> np.ndarray:
        raise NotImplementedError

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """The network; as written and pruned are the same, because nothing in it is dead."""
        from latlab.search_spaces.fbnet_modules import Network
        from latlab.search_spaces.modules import finish

        return finish(Network(self.setting, [OPS[gene] for gene in arch.genes]), self.input_shape(arch), seed)


class FBNetCIFAR(_FBNet):
    """FBNet in the CIFAR-100 setting: 32 px, 100 classes."""

    name: ClassVar[str] = "fbnet"
    title: ClassVar[str] = "FBNet: 22 layers x 9 operations (9^22), CIFAR-100 setting of HW-NAS-Bench, 32 px"
    setting: ClassVar[Setting] = CIFAR100
    num_classes: ClassVar[int] = CIFAR100.num_classes


class FBNetImageNet(_FBNet):
    """FBNet in the ImageNet setting: 224 px, 1,000 classes."""

    name: ClassVar[str] = "fbnet-imagenet"
    title: ClassVar[str] = "FBNet: 22 layers x 9 operations (9^22), ImageNet setting, 224 px"
    setting: ClassVar[Setting] = IMAGENET
    num_classes: ClassVar[int] = IMAGENET.num_classes
