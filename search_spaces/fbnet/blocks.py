"""The blocks of FBNet's networks: 12 distinct positions x nine operations, stem and head."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture
from latlab.search_spaces.block_space import BlockSpace
from latlab.search_spaces.fbnet.skeleton import (
    LAYERS,
    OPS,
    Position,
    Setting,
    head_layers,
    layers_of,
    positions,
    stem_layers,
)
from latlab.search_spaces.fbnet.space import FBNet
from latlab.search_spaces.layers import Layer

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["FBNetBlocks"]

STEM, HEAD = "stem", "head"


class FBNetBlocks(BlockSpace):
    """The blocks of FBNet: `stem`, `head`, and positions with operations: `stage2.first/k3_e6`, `stage2.later/skip`."""

    whole: FBNet

    @property
    def setting(self) -> Setting:
        return self.whole.setting

    @cached_property
    def _blocks(self) -> dict[str, tuple[int, int]]:
        """(place, operation) where each block occurs first, by name. A skip that keeps the shape is no block."""
        found: dict[str, tuple[int, int]] = {}
        for place, at in enumerate(positions(self.setting)):
            for number, op in enumerate(OPS):
                if op is not None or not at.is_identity_shaped:
                    found.setdefault(_name(at, number), (place, number))
        return found

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        return (*self._blocks, STEM, HEAD)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        return np.arange(self.size)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        return np.arange(LAYERS + 2)

    @cached_property
    def repeats(self) -> NDArray[np.int64]:
        return np.ones(LAYERS + 2, np.int64)

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Number of the block for each place and operation, -1 where nothing is executed: shape (22, 9)."""
        names = [[_name(at, number) for number in range(len(OPS))] for at in positions(self.setting)]
        return np.array([[self._index.get(name, -1) for name in row] for row in names])

    def ids(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = np.broadcast_to([self._index[STEM], self._index[HEAD]], (len(genes), 2))
        return np.concatenate([self._table[np.arange(LAYERS), genes], ends], axis=1)

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        if arch.text == STEM:
            return (3, self.setting.size, self.setting.size)
        last = positions(self.setting)[-1]
        if arch.text == HEAD:
            return (last.out_channels, last.out_size, last.out_size)
        at = positions(self.setting)[self._blocks[arch.text][0]]
        return (at.in_channels, at.size, at.size)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        if arch.text in (STEM, HEAD):
            return stem_layers(self.setting) if arch.text == STEM else head_layers(self.setting)
        return layers_of(self.setting, *self._blocks[arch.text])

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.fbnet import modules
        from latlab.search_spaces.torch_modules import finish

        if arch.text == STEM:
            block: nn.Module = modules.stem(self.setting)
        elif arch.text == HEAD:
            block = modules.Tail(self.setting)
        else:
            place, op = self._blocks[arch.text]
            made = modules.layer(positions(self.setting)[place], OPS[op])
            assert made is not None
            block = made
        return finish(block, self.input_shape(arch), seed)


def _name(at: Position, op: int) -> str:
    stage, _, block = at.name.partition(".")
    chosen = OPS[op]
    return f"{stage}.{'first' if block == 'block1' else 'later'}/{'skip' if chosen is None else chosen.name}"
