"""CompOFA's spaces (Sahni et al., ICLR 2021): OFA-MobileNetV3 networks whose stages grow in depth and width at once.

The depth of a stage decides the expansion of all its blocks. Architectures are written as those of `ofa-mobilenetv3`,
whose networks they are; their genes hold only what can be chosen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.ofa_mobilenetv3.skeleton import DEPTHS, KERNELS, MAX_DEPTH, RESOLUTIONS, SLOTS, STAGES
from latlab.search_spaces.ofa_mobilenetv3.space import OFAMobileNetV3
from latlab.search_spaces.variation import another, other_choice, uniform_crossover

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["CompOFA", "CompOFAElastic", "CompOFAFixed"]

EXPANSION_OF_DEPTH = {2: 3, 3: 4, 4: 6}
"""The expansion of all blocks of a stage, by their number (section 3.2 of the paper)."""
_FRAME = 1 + STAGES
_EXPANSIONS = np.zeros(MAX_DEPTH + 1, np.int64)
_EXPANSIONS[list(EXPANSION_OF_DEPTH)] = list(EXPANSION_OF_DEPTH.values())


class CompOFA(SearchSpace):
    """What the spaces with fixed and with elastic kernels share: each architecture is one of OFA's."""

    can_be_dead: ClassVar[bool] = False
    num_classes: ClassVar[int] = OFAMobileNetV3.num_classes
    encodings: ClassVar[tuple[str, ...]] = OFAMobileNetV3.encodings
    block_space: ClassVar[str | None] = "latlab.search_spaces.ofa_mobilenetv3.blocks:CompOFABlocks"
    width: ClassVar[float] = OFAMobileNetV3.width
    stage_kernels: ClassVar[tuple[tuple[int, ...], ...]] = (KERNELS,) * STAGES
    """The kernels that blocks of each stage may have."""

    def __init__(self) -> None:
        self._ofa = OFAMobileNetV3()

    @abstractmethod
    def _kernels(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kernels of all 20 slots, used or not, of shape (n, 20)."""

    def ofa_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the genes of the same networks in `ofa-mobilenetv3`, of shape (n, 46)."""
        depths = genes[:, 1:_FRAME]
        used = (np.arange(MAX_DEPTH) < depths[:, :, None]).reshape(len(genes), SLOTS)
        expansions = np.repeat(_EXPANSIONS[depths], MAX_DEPTH, axis=1)
        return np.hstack([genes[:, :_FRAME], used * self._kernels(genes), used * expansions])

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        genes = self.integers(genes)
        if len(genes) != self.num_genes:
            kernels = ", 20 kernels" if self.num_genes > _FRAME else ""
            raise ArchitectureError(
                f"{self.name}: genes are {self.num_genes} numbers (resolution, 5 depths{kernels}), not {len(genes)}"
            )
        for stage, depth in enumerate(genes[1:_FRAME], start=1):
            if depth not in DEPTHS:
                raise ArchitectureError(f"{self.name}: stage {stage} has depth {depth}, it must have 2, 3 or 4 blocks")
        whole = self.ofa_genes(np.array([genes]))[0]
        try:
            arch = self._ofa.from_genes(whole.tolist())
        except ArchitectureError as error:
            raise ArchitectureError(str(error).replace(self._ofa.name, self.name, 1)) from None
        return Architecture(self.name, arch.text, self._own_genes(arch))

    def _own_genes(self, arch: Architecture) -> tuple[int, ...]:
        return arch.genes[: self.num_genes]

    def parse(self, text: str) -> Architecture:
        try:
            arch = self._ofa.parse(text)
        except ArchitectureError as error:
            raise ArchitectureError(str(error).replace(self._ofa.name, self.name, 1)) from None
        found = self.from_genes(self._own_genes(arch))
        if found.text != arch.text:
            raise ArchitectureError(
                f"{self.name} has no {text!r}: with these {self._choices}, its network is {found.text}"
            )
        return found

    _choices: ClassVar[str]
    """What can be chosen, in words."""

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        in_range = (genes[:, 1:_FRAME] >= 0) & (genes[:, 1:_FRAME] <= MAX_DEPTH)
        found: NDArray[np.bool_] = np.asarray(in_range.all(axis=1))
        found[found] = self._ofa.valid(self.ofa_genes(genes[found]))
        return found

    def references(self) -> tuple[Architecture, ...]:
        return tuple(self.sample(10, 0))

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, arch.genes[0], arch.genes[0])

    def _in_ofa(self, arch: Architecture) -> Architecture:
        return self._ofa.parse(arch.text)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        return self._ofa.layers(self._in_ofa(arch), live=live)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        return self._ofa.build(self._in_ofa(arch), seed=seed, as_written=as_written)

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode architectures as `ofa-mobilenetv3` does."""
        if encoding not in self.encodings:
            raise self.unknown_encoding(encoding)
        return self._ofa.encode(self.ofa_genes(self.genes(archs)), encoding)

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._ofa.features(self.ofa_genes(genes))


class CompOFAFixed(CompOFA):
    """CompOFA with the kernels of MobileNetV3: 3, 5, 3, 3, 5 by stage. Genes are the resolution and five depths."""

    name: ClassVar[str] = "compofa"
    title: ClassVar[str] = "CompOFA x1.0, fixed kernels: depth with expansion, resolution 128-224; ImageNet"
    size: ClassVar[int] = len(RESOLUTIONS) * len(DEPTHS) ** STAGES
    finite: ClassVar[bool] = True
    num_genes: ClassVar[int] = _FRAME
    stage_kernels: ClassVar[tuple[tuple[int, ...], ...]] = ((3,), (5,), (3,), (3,), (5,))
    _choices: ClassVar[str] = "resolution and depths"

    def _kernels(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.broadcast_to(np.repeat(self.stage_kernels, MAX_DEPTH), (len(genes), SLOTS))

    def random(self, rng: Random) -> Architecture:
        return self.from_genes([rng.choice(RESOLUTIONS), *(rng.choice(DEPTHS) for _ in range(STAGES))])

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Change the resolution or a depth."""
        genes = list(arch.genes)
        place = rng.randrange(_FRAME)
        genes[place] = other_choice(DEPTHS if place else RESOLUTIONS, genes[place], rng)
        return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        return self.from_genes([rng.choice(pair) for pair in zip(a.genes, b.genes, strict=True)])

    def enumerate(self) -> Iterator[Architecture]:
        """Iterate over the 6,075 architectures: resolutions and depths in ascending order, the last depth fastest."""
        return (self.from_genes(genes) for genes in product(RESOLUTIONS, *[DEPTHS] * STAGES))


class CompOFAElastic(CompOFA):
    """CompOFA with a kernel of 3, 5 or 7 for each block. Genes are the resolution, five depths and 20 kernels."""

    name: ClassVar[str] = "compofa-elastic"
    title: ClassVar[str] = "CompOFA x1.0, elastic kernels: depth with expansion, kernel, resolution; ImageNet"
    size: ClassVar[int] = len(RESOLUTIONS) * (3**2 + 3**3 + 3**4) ** STAGES
    num_genes: ClassVar[int] = _FRAME + SLOTS
    _choices: ClassVar[str] = "resolution, depths and kernels"

    def _kernels(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        return genes[:, _FRAME:]

    def canonical_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the genes with zeros in unused slots, as `from_genes` does."""
        return self.ofa_genes(genes)[:, : self.num_genes]

    def random(self, rng: Random) -> Architecture:
        frame = [rng.choice(RESOLUTIONS), *(rng.choice(DEPTHS) for _ in range(STAGES))]
        return self.from_genes([*frame, *(rng.choice(KERNELS) for _ in range(SLOTS))])

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Change the resolution, a depth, or a kernel that is used; a stage that grows gets random kernels."""
        genes = list(arch.genes)
        used = [place for place in range(_FRAME, self.num_genes) if genes[place]]
        place = rng.choice([*range(_FRAME), *used])
        values = RESOLUTIONS if place == 0 else DEPTHS if place < _FRAME else KERNELS
        genes[place] = other_choice(values, genes[place], rng)
        return self._filled(genes, rng)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child that takes each choice from a random parent; a kernel that one parent lacks is the other's."""
        pairs = list(zip(a.genes, b.genes, strict=True))
        frame = [rng.choice(pair) for pair in pairs[:_FRAME]]
        kernels = [rng.choice([kernel for kernel in pair if kernel] or [0]) for pair in pairs[_FRAME:]]
        return self.from_genes([*frame, *kernels])

    def mutate_genes(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        rows, used = np.arange(len(genes)), genes != 0
        full = np.where(used, genes, rng.choice(KERNELS, size=genes.shape))
        place = np.where(used, rng.random(genes.shape), -1.0).argmax(axis=1)  # each used choice is equally likely
        old = full[rows, place]
        resolution = another((old - RESOLUTIONS[0]) // 4, len(RESOLUTIONS), rng) * 4 + RESOLUTIONS[0]
        depth = another(old - DEPTHS[0], len(DEPTHS), rng) + DEPTHS[0]
        kernel = np.array(KERNELS)[another((old - KERNELS[0]) // 2 % len(KERNELS), len(KERNELS), rng)]
        full[rows, place] = np.select([place == 0, place < _FRAME], [resolution, depth], kernel)
        return self.canonical_genes(full)

    def crossover_genes(
        self, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        child = uniform_crossover(a, b, rng)
        return self.canonical_genes(np.where(child == 0, a + b, child))  # a kernel that one parent lacks is the other's

    def _filled(self, genes: Sequence[int], rng: Random) -> Architecture:
        """Return the architecture of genes, with random kernels where a used slot has none."""
        return self.from_genes([*genes[:_FRAME], *(kernel or rng.choice(KERNELS) for kernel in genes[_FRAME:])])
