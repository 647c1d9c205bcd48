"""FBNet's search space (Wu et al., CVPR 2019) as HW-NAS-Bench measured it: 22 layers of nine operations.

There are two settings: ImageNet (224 px), and CIFAR-100 (32 px), to which the published latency tables belong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import chain, one_hot
from latlab.search_spaces.fbnet.skeleton import (
    CIFAR100,
    IMAGENET,
    LAYERS,
    OPS,
    SKIP,
    Setting,
    head_layers,
    layers_of,
    positions,
    stem_layers,
)
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.variation import change_one_gene, uniform_crossover

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["FBNet", "FBNetCIFAR", "FBNetImageNet"]


_REFERENCES = (
    "1_8_6_6_8_0_3_4_3_7_8_7_4_3_2_5_7_3_0_1_3_7",
    "5_4_8_5_1_6_8_5_3_0_4_8_0_2_4_5_0_6_6_0_0_5",
    "7_2_7_5_4_6_8_0_6_6_5_1_2_4_0_7_5_6_0_3_3_2",
    "8_1_6_1_6_2_7_1_6_8_7_5_2_0_1_8_0_3_2_2_5_4",
    "1_7_0_7_4_3_4_6_6_1_1_0_5_6_7_7_6_7_6_3_1_2",
    "2_2_4_5_7_2_5_7_2_2_1_2_3_1_4_6_3_6_3_2_0_1",
    "4_4_5_5_3_1_1_0_4_2_2_4_2_0_5_0_5_6_2_5_2_5",
    "8_8_4_4_6_8_1_8_0_3_1_2_8_8_5_8_2_2_8_1_4_8",
    "0_7_6_7_3_3_6_1_7_4_3_7_7_0_8_4_8_5_6_8_5_1",
    "1_2_4_0_7_3_0_5_6_4_5_7_0_1_4_3_2_3_3_3_0_6",
)
"""The ten architectures whose latencies are HELP's embedding of a device."""


class FBNet(SearchSpace):
    """The base class of both settings. Genes are the operations of the 22 layers, as indices into `skeleton.OPS`."""

    setting: ClassVar[Setting]
    size: ClassVar[int] = 9**LAYERS
    can_be_dead: ClassVar[bool] = False
    num_genes: ClassVar[int] = LAYERS
    encodings: ClassVar[tuple[str, ...]] = ("one-hot", "graph", "help")
    block_space: ClassVar[str | None] = "latlab.search_spaces.fbnet.blocks:FBNetBlocks"

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        genes = self.integers(genes)
        if len(genes) != LAYERS or not all(0 <= gene < len(OPS) for gene in genes):
            raise ArchitectureError(f"{self.name}: genes are 22 operation indices 0-8, not {list(genes)}")
        return Architecture(self.name, "_".join(map(str, genes)), genes)

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(((genes >= 0) & (genes < len(OPS))).all(axis=1))

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

    def random(self, rng: Random) -> Architecture:
        return self.from_genes([rng.randrange(len(OPS)) for _ in range(LAYERS)])

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        genes = list(arch.genes)
        layer = rng.randrange(LAYERS)
        genes[layer] = rng.choice([op for op in range(len(OPS)) if op != genes[layer]])
        return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        return self.from_genes([rng.choice(pair) for pair in zip(a.genes, b.genes, strict=True)])

    def mutate_genes(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return change_one_gene(genes, len(OPS), rng)

    def crossover_genes(
        self, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        return uniform_crossover(a, b, rng)

    def references(self) -> tuple[Architecture, ...]:
        """Return HELP's architectures, chosen in the CIFAR-100 setting; ImageNet uses the same operations."""
        return tuple(map(self.parse, _REFERENCES))

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, self.setting.size, self.setting.size)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        body = (layer for place, op in enumerate(arch.genes) for layer in layers_of(self.setting, place, op))
        return (*stem_layers(self.setting), *body, *head_layers(self.setting))

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1, then the number of layers with each of 12 kinds of position x 9 operations: 109 columns.

        The layers of a stage after its first have positions of one kind, because their shapes are the same.
        """
        first, width = _feature_columns(self.setting)
        flat = (first + genes + width * np.arange(len(genes))[:, None]).ravel()
        counts = np.bincount(flat, minlength=len(genes) * width).reshape(len(genes), width).astype(np.float64)
        counts[:, 0] = 1
        return counts

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode architectures as `one-hot`, `help` or `graph`.

        `one-hot`: 198 numbers, 22 layers x 9 operations.
        `help`: HELP's 132 numbers, per layer [op < 4, 4 <= op < 8, one-hot of op % 4], zeros for skip.
        `graph`: 24 x (24 + 11). Nodes are the input, the 22 layers, the output, in a chain; operations are
        input, the nine of `OPS`, output.
        """
        genes = self.genes(archs)
        if encoding == "one-hot":
            return one_hot(genes, [len(OPS)] * LAYERS)
        if encoding == "help":
            parts = np.stack([genes // 4, genes % 4], axis=2)
            parts[genes == SKIP] = -1
            return one_hot(parts.reshape(-1, 2 * LAYERS), [2, 4] * LAYERS)
        if encoding != "graph":
            raise self.unknown_encoding(encoding)
        operations = np.zeros((len(genes), LAYERS + 2, len(OPS) + 2), np.float32)
        operations[:, 1:-1, 1:-1] = one_hot(genes, [len(OPS)] * LAYERS).reshape(-1, LAYERS, len(OPS))
        operations[:, 0, 0] = operations[:, -1, -1] = 1
        return chain(np.ones(operations.shape[:2], bool), operations)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the network. `as_written` changes nothing, because no layer is dead."""
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.fbnet.modules import Network
        from latlab.search_spaces.torch_modules import finish

        return finish(Network(self.setting, [OPS[gene] for gene in arch.genes]), self.input_shape(arch), seed)


@cache
def _feature_columns(setting: Setting) -> tuple[NDArray[np.int64], int]:
    """Return the column of the first operation for each position, and the number of columns (`FBNet.features`)."""
    names = [(at.name.partition(".")[0], at.in_channels, at.stride) for at in positions(setting)]
    kinds = list(dict.fromkeys(names))
    return np.array([1 + kinds.index(name) * len(OPS) for name in names]), 1 + len(kinds) * len(OPS)


class FBNetCIFAR(FBNet):
    """FBNet in the CIFAR-100 setting: 32 px, 100 classes."""

    name: ClassVar[str] = "fbnet"
    title: ClassVar[str] = "FBNet: 22 layers x 9 operations (9^22), CIFAR-100 setting of HW-NAS-Bench, 32 px"
    setting: ClassVar[Setting] = CIFAR100
    num_classes: ClassVar[int] = CIFAR100.num_classes


class FBNetImageNet(FBNet):
    """FBNet in the ImageNet setting: 224 px, 1,000 classes."""

    name: ClassVar[str] = "fbnet-imagenet"
    title: ClassVar[str] = "FBNet: 22 layers x 9 operations (9^22), ImageNet setting, 224 px"
    setting: ClassVar[Setting] = IMAGENET
    num_classes: ClassVar[int] = IMAGENET.num_classes
