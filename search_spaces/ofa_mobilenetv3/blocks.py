"""The blocks of OFA's MobileNetV3 networks: a stage, a place in it, a kernel and an expansion, at each resolution."""

from __future__ import annotations

from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture
from latlab.search_spaces.block_space import BlockSpace
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.ofa_mobilenetv3.compofa import CompOFA
from latlab.search_spaces.ofa_mobilenetv3.skeleton import (
    DEPTHS,
    EXPANSIONS,
    KERNELS,
    MAX_DEPTH,
    RESOLUTIONS,
    SLOTS,
    STAGES,
    Block,
    block_layers,
    blocks_of,
    head_layers,
    stem_layers,
    widths,
)
from latlab.search_spaces.ofa_mobilenetv3.space import OFAMobileNetV3

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["CompOFABlocks", "OFABlocks"]

STEM, FIRST, HEAD = "stem", "first", "head"
ENDS = (STEM, FIRST, HEAD)
"""Blocks that every network has once; `first` is the fixed block before the stages."""
PLACES = ("first", "later")


class OFABlocks(BlockSpace):
    """The blocks of OFA: `r224/stem`, `r224/first`, `r224/head`, `r224/stage2.first/k5e4`, `r224/stage2.later/k5e4`."""

    whole: OFAMobileNetV3 | CompOFA

    @cached_property
    def _body(self) -> tuple[tuple[int, str, int, int], ...]:
        """Stage, place, kernel and expansion of the blocks that are not at the ends."""
        return tuple(product(range(1, STAGES + 1), PLACES, KERNELS, EXPANSIONS))

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """Number of each kind in the body, by stage - 1, place, kernel and expansion; -1 where there is none."""
        numbers = np.full((STAGES, len(PLACES), KERNELS[-1] + 1, EXPANSIONS[-1] + 1), -1)
        for number, (stage, place, kernel, expansion) in enumerate(self._body):
            numbers[stage - 1, PLACES.index(place), kernel, expansion] = number
        return numbers

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        kinds = (*ENDS, *(f"stage{stage}.{place}/k{k}e{e}" for stage, place, k, e in self._body))
        return tuple(f"r{resolution}/{kind}" for kind in kinds for resolution in RESOLUTIONS)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        return np.arange(self.size) // len(RESOLUTIONS)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        return np.arange(len(ENDS) + SLOTS)

    @cached_property
    def repeats(self) -> NDArray[np.int64]:
        return np.ones(len(ENDS) + SLOTS, np.int64)

    def ids(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        depths, kernels, expansions = np.split(genes[:, 1:], [STAGES, STAGES + SLOTS], axis=1)
        stage, place = np.divmod(np.arange(SLOTS), MAX_DEPTH)
        body = self._numbers[stage, np.minimum(place, 1), kernels, expansions] + len(ENDS)
        kinds = np.concatenate([np.broadcast_to(np.arange(len(ENDS)), (len(genes), len(ENDS))), body], axis=1)
        found = kinds * len(RESOLUTIONS) + np.searchsorted(RESOLUTIONS, genes[:, :1])
        found[:, len(ENDS) :][place >= depths[:, stage]] = -1
        return np.asarray(found)

    def _block(self, arch: Architecture) -> tuple[int, str, Block]:
        """Return the resolution, the kind and the inverted bottleneck; for stem and head, the one next to it."""
        kind, step = divmod(arch.genes[0], len(RESOLUTIONS))
        resolution = RESOLUTIONS[step]
        choice = (KERNELS[0], EXPANSIONS[0])
        if kind < len(ENDS):
            name, place = ENDS[kind], -1 if ENDS[kind] == HEAD else 0
        else:
            stage, name, *chosen = self._body[kind - len(ENDS)]
            choice = (chosen[0], chosen[1])
            place = 1 + (stage - 1) * DEPTHS[0] + (name == "later")
        return resolution, name, blocks_of(resolution, [[choice] * DEPTHS[0]] * STAGES, self.whole.width)[place]

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        resolution, name, block = self._block(arch)
        if name == STEM:
            return (3, resolution, resolution)
        if name == HEAD:
            return (block.out_channels, block.out_size, block.out_size)
        return (block.in_channels, block.size, block.size)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        resolution, name, block = self._block(arch)
        width, classes = self.whole.width, self.num_classes
        if name == STEM:
            return stem_layers(resolution, width)
        return head_layers(block.out_size, width, classes) if name == HEAD else block_layers(block)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.ofa_mobilenetv3 import modules
        from latlab.search_spaces.torch_modules import finish

        _, name, block = self._block(arch)
        if name == STEM:
            made: nn.Module = modules.stem(widths(self.whole.width)[0], as_written)
        elif name == HEAD:
            made = modules.Tail(self.whole.width, self.num_classes, as_written)
        else:
            made = modules.InvertedBottleneck(block, as_written)
        return finish(made, self.input_shape(arch), seed)


class CompOFABlocks(OFABlocks):
    """The blocks of CompOFA, under the names that they have in OFA at the same width."""

    whole: CompOFA

    @cached_property
    def _body(self) -> tuple[tuple[int, str, int, int], ...]:
        kernels = self.whole.stage_kernels
        return tuple(one for one in super()._body if one[2] in kernels[one[0] - 1])

    def ids(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        return super().ids(self.whole.ofa_genes(genes))
