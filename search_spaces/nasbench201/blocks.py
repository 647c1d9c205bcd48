"""The blocks of NAS-Bench-201's networks: each operation of an edge in each stage, and the blocks of every network."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture
from latlab.search_spaces.block_space import BlockSpace
from latlab.search_spaces.layers import Layer, elementwise
from latlab.search_spaces.nasbench201.cell import EDGES, OPS, edge_layers, head_layers, reduction_layers, stem_layers

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["NASBench201Blocks"]

STAGES, CELLS = 3, 5
EDGE_OPS = tuple(number for number, op in enumerate(OPS) if op != "skip_connect")
"""Operations of an edge that execute something; a skip executes nothing."""
COMMON = ("stem", "reduction1", "reduction2", "head")
"""Blocks that every network has once."""
ADDITIONS = sum(node > 1 for node, _ in EDGES) - 2
"""Number of additions in a cell as written: every edge adds to its node, except the first edge of each node."""


class NASBench201Blocks(BlockSpace):
    """The blocks of NAS-Bench-201: `stage2/nor_conv_3x3`, `stage2/add`, `stem`, `reduction1`, `reduction2`, `head`."""

    @cached_property
    def block_names(self) -> tuple[str, ...]:
        kinds = (*(OPS[op] for op in EDGE_OPS), "add")
        return (*(f"stage{stage + 1}/{kind}" for kind in kinds for stage in range(STAGES)), *COMMON)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        per_stage = STAGES * (len(EDGE_OPS) + 1)
        numbers = np.arange(self.size)
        return np.where(numbers < per_stage, numbers // STAGES, numbers)

    @cached_property
    def _fixed(self) -> list[int]:
        """Numbers of the blocks that every network has."""
        return list(range(len(EDGE_OPS) * STAGES, self.size))

    @cached_property
    def places(self) -> NDArray[np.int64]:
        edges = np.repeat(np.arange(len(EDGES)), STAGES)
        return np.concatenate([edges, len(EDGES) + np.arange(len(self._fixed))])

    @cached_property
    def repeats(self) -> NDArray[np.int64]:
        fixed = [CELLS * ADDITIONS if name.endswith("add") else 1 for name in np.array(self.block_names)[self._fixed]]
        return np.array([CELLS] * len(EDGES) * STAGES + fixed)

    def ids(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        numbers = np.array([EDGE_OPS.index(op) if op in EDGE_OPS else -1 for op in range(len(OPS))])[genes]
        edges = np.where(numbers[:, :, None] < 0, -1, numbers[:, :, None] * STAGES + np.arange(STAGES))
        fixed = np.broadcast_to(self._fixed, (len(genes), len(self._fixed)))
        return np.concatenate([edges.reshape(len(genes), len(EDGES) * STAGES), fixed], axis=1)

    @staticmethod
    def _parts(arch: Architecture) -> tuple[int, str]:
        """Return the stage, counted from 0, and the operation; for a block outside of the cells, -1 and its name."""
        stage, _, op = arch.text.partition("/")
        return (int(stage.removeprefix("stage")) - 1, op) if op else (-1, stage)

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        stage, op = self._parts(arch)
        if op == "stem":
            return self.whole.input_shape(arch)
        if stage < 0:
            stage = STAGES - 1 if op == "head" else int(op.removeprefix("reduction")) - 1
        return (16 << stage, 32 >> stage, 32 >> stage)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers of a block. A block of `none` multiplies by zero as written; `live`, it has no layers."""
        stage, op = self._parts(arch)
        if op in ("stem", "head"):
            return stem_layers() if op == "stem" else head_layers(self.num_classes)
        channels, size, _ = self.input_shape(arch)
        if stage < 0:
            return reduction_layers(op, channels, size)
        if op == "add":
            return (elementwise(arch.text, "add", channels, size),)
        return (
            ()
            if live and op == "none"
            else edge_layers(stage * CELLS + 1, EDGES.index((3, 0)), OPS.index(op), channels, size)
        )

    def is_constant(self, arch: Architecture) -> bool:
        return arch.text.endswith("/none")

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.nasbench201 import modules
        from latlab.search_spaces.torch_modules import finish

        stage, op = self._parts(arch)
        channels = self.input_shape(arch)[0]
        if op == "stem":
            made: nn.Module | None = modules.stem()
        elif op == "head":
            made = modules.Tail(self.num_classes)
        elif stage < 0:
            made = modules.Residual(channels, 2 * channels)
        elif op == "add":
            made = modules.Sum()
        else:
            made = modules.operation(op, channels)
        assert made is not None  # only a skip has no module, and it is no block
        return finish(made, self.input_shape(arch), seed)
