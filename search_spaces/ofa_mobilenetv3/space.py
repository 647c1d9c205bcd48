"""Once-for-all's MobileNetV3 space (Cai et al., ICLR 2020): elastic resolution, depth, kernel, expansion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import chain, one_hot
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.ofa_mobilenetv3.skeleton import (
    DEPTHS,
    EXPANSIONS,
    KERNELS,
    MAX_DEPTH,
    RESOLUTIONS,
    SLOTS,
    STAGES,
    blocks_of,
    layers_of,
    stages,
)
from latlab.search_spaces.variation import another, other_choice, uniform_crossover

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["OFAMobileNetV3", "OFAMobileNetV3Wide"]


_REFERENCES = (
    "r196|k7e3,k7e6,k5e3,k5e6|k7e6,k7e4,k3e3|k7e4,k7e6,k5e6|k3e3,k5e4,k3e4,k3e3|k3e3,k5e3",
    "r172|k7e4,k3e3,k3e6|k5e6,k3e6|k5e3,k7e6|k3e6,k7e3,k5e3|k3e6,k5e3",
    "r204|k7e4,k5e4|k3e4,k3e4|k7e6,k7e3|k5e3,k5e6|k7e3,k7e6,k7e4",
    "r200|k3e4,k7e3,k5e3,k7e6|k3e3,k3e3,k5e4|k3e6,k3e6,k5e4,k3e6|k7e3,k5e6,k3e6,k7e6|k7e4,k5e4,k5e4,k3e6",
    "r136|k5e4,k7e6|k7e4,k7e6|k7e4,k3e3|k7e6,k7e4,k7e4|k7e4,k7e6",
    "r224|k7e6,k7e4,k5e3,k7e6|k3e6,k7e6|k3e6,k7e4,k7e6|k3e6,k3e6,k7e4,k7e3|k3e4,k5e6,k7e6,k7e3",
    "r132|k5e6,k5e3,k7e4,k3e4|k3e3,k3e3|k7e3,k3e3,k3e4,k5e4|k7e3,k3e3|k3e3,k3e6,k3e6",
    "r152|k7e3,k3e6|k3e6,k7e4,k5e3,k7e4|k7e6,k3e4|k3e6,k3e3,k3e4,k7e3|k7e4,k7e3,k3e3,k7e6",
    "r152|k7e4,k3e4|k3e6,k7e3,k3e6,k5e4|k5e4,k5e4,k5e4|k5e3,k5e4,k3e6,k5e4|k5e6,k5e3,k3e3,k7e3",
    "r200|k3e3,k3e3,k7e4,k7e6|k7e6,k7e6,k7e4,k7e3|k5e6,k7e3,k3e3|k3e3,k5e3,k5e6,k3e3|k3e6,k7e6",
)
"""The ten architectures whose latencies are HELP's embedding of a device."""


def _index_in(values: Sequence[int], array: np.ndarray) -> np.ndarray:
    """Return the index of each element in `values`, -1 for elements that are not in it."""
    table = np.full(max(values) + 1, -1)
    table[list(values)] = range(len(values))
    found: np.ndarray = table[array]
    return found


def _among(values: NDArray[np.int64], choices: Sequence[int]) -> NDArray[np.bool_]:
    """Return which values are choices, in ascending order: for few choices several times as fast as `np.isin`."""
    known = np.zeros(choices[-1] + 2, dtype=bool)
    known[list(choices)] = True
    return known[np.clip(values, -1, len(known) - 1)]


class OFAMobileNetV3(SearchSpace):
    """OFA's MobileNetV3 at width 1.0; resolutions 128-224 in steps of 4, 1,000 classes.

    A string such as `r204|k7e6,k5e4|...` has the resolution, then the blocks of each of the five stages. Genes are the
    resolution, five depths, 20 kernels and 20 expansions, with zeros in slots that a depth leaves unused.
    """

    name: ClassVar[str] = "ofa-mobilenetv3"
    title: ClassVar[str] = "OFA-MobileNetV3 x1.0: depth, kernel, expansion, resolution 128-224; ImageNet"
    width: ClassVar[float] = 1.0
    size: ClassVar[int] = len(RESOLUTIONS) * (9**2 + 9**3 + 9**4) ** STAGES
    can_be_dead: ClassVar[bool] = False

    num_classes: ClassVar[int] = 1000
    num_genes: ClassVar[int] = 1 + STAGES + 2 * SLOTS
    encodings: ClassVar[tuple[str, ...]] = ("one-hot", "graph", "help", "ofa")
    block_space: ClassVar[str | None] = "latlab.search_spaces.ofa_mobilenetv3.blocks:OFABlocks"

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Return the architecture of (resolution, 5 depths, 20 kernels, 20 expansions); unused slots are ignored."""
        genes = self.integers(genes)
        if len(genes) != 1 + STAGES + 2 * SLOTS:
            raise ArchitectureError(
                f"{self.name}: genes are 46 numbers (resolution, 5 depths, 20 kernels, 20 expansions), not {len(genes)}"
            )
        if genes[0] not in RESOLUTIONS:
            raise ArchitectureError(f"{self.name}: resolution {genes[0]} is not one of 128, 132, ..., 224 (steps of 4)")
        for stage, depth in enumerate(genes[1:6], start=1):
            if depth not in DEPTHS:
                raise ArchitectureError(f"{self.name}: stage {stage} has depth {depth}, it must have 2, 3 or 4 blocks")
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
        text = "|".join([f"r{clean[0]}", *(",".join(f"k{k}e{e}" for k, e in choices) for choices in stages(clean))])
        return Architecture(self.name, text, tuple(clean))

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        depths = genes[:, 1 : 1 + STAGES]
        kernels, expansions = genes[:, 1 + STAGES :].reshape(len(genes), 2, STAGES, MAX_DEPTH).swapaxes(0, 1)
        used = np.arange(MAX_DEPTH) < depths[:, :, None]
        blocks = (_among(kernels, KERNELS) & _among(expansions, EXPANSIONS)) | ~used
        frame = _among(genes[:, 0], RESOLUTIONS) & _among(depths, DEPTHS).all(axis=1)
        return np.asarray(frame & blocks.all(axis=(1, 2)))

    def canonical_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the genes with zeros in unused slots, as `from_genes` does: features count every slot."""
        used = np.arange(MAX_DEPTH) < genes[:, 1 : 1 + STAGES, None]
        slots = genes[:, 1 + STAGES :].reshape(len(genes), 2, STAGES, MAX_DEPTH) * used[:, None]
        return np.hstack([genes[:, : 1 + STAGES], slots.reshape(len(genes), 2 * SLOTS)])

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

    def random(self, rng: Random) -> Architecture:
        """Draw resolution, depths, kernels and expansions, each uniformly (which is not uniform over architectures)."""
        return self._from_stages(
            rng.choice(RESOLUTIONS),
            [[(rng.choice(KERNELS), rng.choice(EXPANSIONS)) for _ in range(rng.choice(DEPTHS))] for _ in range(STAGES)],
        )

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Change the resolution, a depth, or a kernel or an expansion that is used.

        A stage that grows keeps its blocks and gets random ones after them.
        """
        resolution, parts = arch.genes[0], stages(arch.genes)
        used = sum(map(len, parts))
        choice = rng.randrange(1 + STAGES + 2 * used)
        if choice == 0:
            return self._from_stages(other_choice(RESOLUTIONS, resolution, rng), parts)
        if choice <= STAGES:
            part = parts[choice - 1]
            depth = other_choice(DEPTHS, len(part), rng)
            more = [(rng.choice(KERNELS), rng.choice(EXPANSIONS)) for _ in range(depth - len(part))]
            parts[choice - 1] = part[:depth] + more
            return self._from_stages(resolution, parts)
        place, is_expansion = divmod(choice - 1 - STAGES, 2)
        part = next(part for part in parts if (place := place - len(part)) < 0)
        kernel, expansion = part[place]
        if is_expansion:
            part[place] = (kernel, other_choice(EXPANSIONS, expansion, rng))
        else:
            part[place] = (other_choice(KERNELS, kernel, rng), expansion)
        return self._from_stages(resolution, parts)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child that takes each choice from a random parent; a block that one parent lacks is the other's."""
        parts = []
        for pair in zip(stages(a.genes), stages(b.genes), strict=True):
            part = []
            for place in range(len(rng.choice(pair))):
                donors = [parent[place] for parent in pair if place < len(parent)]
                part.append((rng.choice(donors)[0], rng.choice(donors)[1]))
            parts.append(part)
        return self._from_stages(rng.choice((a.genes[0], b.genes[0])), parts)

    def mutate_genes(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        rows, full, used = np.arange(len(genes)), self._with_spare_blocks(genes, rng), genes != 0
        place = np.where(used, rng.random(genes.shape), -1.0).argmax(axis=1)  # each used choice is equally likely
        old = full[rows, place]
        resolution = (another((old - RESOLUTIONS[0]) // 4, len(RESOLUTIONS), rng)) * 4 + RESOLUTIONS[0]
        depth = another(old - DEPTHS[0], len(DEPTHS), rng) + DEPTHS[0]
        kernel = np.array(KERNELS)[another(_index_in(KERNELS, np.clip(old, 0, KERNELS[-1])), len(KERNELS), rng)]
        expansion = np.array(EXPANSIONS)[
            another(_index_in(EXPANSIONS, np.clip(old, 0, EXPANSIONS[-1])), len(EXPANSIONS), rng)
        ]
        kinds = [place == 0, place <= STAGES, place <= STAGES + SLOTS]
        full[rows, place] = np.select(kinds, [resolution, depth, kernel], expansion)
        return self.canonical_genes(full)

    def _with_spare_blocks(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return genes in whose unused slots random blocks stand, for stages that grow."""
        shape = (len(genes), SLOTS)
        kernels, expansions = rng.choice(KERNELS, size=shape), rng.choice(EXPANSIONS, size=shape)
        spare = np.hstack([genes[:, : 1 + STAGES], kernels, expansions])
        return np.where(genes == 0, spare, genes)

    def crossover_genes(
        self, a: NDArray[np.int64], b: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        child = uniform_crossover(a, b, rng)
        return self.canonical_genes(np.where(child == 0, a + b, child))  # a block that one parent lacks is the other's

    def references(self) -> tuple[Architecture, ...]:
        """Return HELP's architectures, which were chosen at width 1.0 and are used at both widths."""
        return tuple(map(self.parse, _REFERENCES))

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        return (3, arch.genes[0], arch.genes[0])

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers; `live` changes nothing, because no layer is dead. An activation counts as one operator."""
        blocks = blocks_of(arch.genes[0], stages(arch.genes), self.width)
        return layers_of(blocks, arch.genes[0], self.width, self.num_classes)

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 63 columns of counts and sums over blocks, by stage.

        The columns are 1, r and r^2, where r is the resolution over 224; then, for the first and for the later blocks
        of each stage, their number, the sum of their expansions and the sum of expansion times kernel area; then the
        same times r^2. The former stand for costs that do not depend on the resolution (kernel launches, weights), the
        latter for those that do (multiply-accumulates, activations).
        """
        count = len(genes)
        r = genes[:, :1] / RESOLUTIONS[-1]
        kernels, expansions = genes[:, 1 + STAGES :].reshape(count, 2, STAGES, MAX_DEPTH).swapaxes(0, 1).astype(float)
        sums = [kernels > 0, expansions, expansions * kernels**2]
        parts = [part for x in sums for part in (x[:, :, 0], x[:, :, 1:].sum(axis=2))]
        blocks = np.concatenate(parts, axis=1)
        return np.hstack([np.ones((count, 1)), r, r**2, blocks, blocks * r**2])

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode architectures as `one-hot`, `help`, `ofa` or `graph`. Unused slots are zeros in all of them.

        `one-hot`: 160 numbers: 25 resolutions, 5 x 3 depths, 20 x 3 kernels, 20 x 3 expansions.
        `help`: HELP's 145: 60 kernels, 60 expansions, 25 resolutions.
        `ofa`: the 128 of OFA's accuracy predictor: 60 kernels, 60 expansions, 8 resolutions (r - 112) // 16.
        `graph`: 22 x (22 + 35). Nodes are the input, the 20 blocks, the output, in a chain that bridges
        absent blocks; operations are the input at 25 resolutions, 9 blocks (kernel x expansion), output.
        """
        if encoding not in self.encodings:
            raise self.unknown_encoding(encoding)
        genes = self.genes(archs)
        resolutions = genes[:, :1]
        kernels = _index_in(KERNELS, genes[:, 1 + STAGES : 1 + STAGES + SLOTS])
        expansions = _index_in(EXPANSIONS, genes[:, 1 + STAGES + SLOTS :])
        steps = (resolutions - RESOLUTIONS[0]) // 4
        if encoding == "graph":
            operations = np.zeros((len(genes), SLOTS + 2, len(RESOLUTIONS) + 9 + 1), np.float32)
            operations[:, 0, : len(RESOLUTIONS)] = one_hot(steps, [len(RESOLUTIONS)])
            pairs = np.where(kernels < 0, -1, 3 * kernels + expansions)
            operations[:, 1:-1, len(RESOLUTIONS) : -1] = one_hot(pairs, [9] * SLOTS).reshape(-1, SLOTS, 9)
            operations[:, -1, -1] = 1
            return chain(operations.max(axis=2) > 0, operations)
        blocks = one_hot(np.hstack([kernels, expansions]), [3] * (2 * SLOTS))
        if encoding == "help":
            return np.hstack([blocks, one_hot(steps, [len(RESOLUTIONS)])])
        if encoding == "ofa":
            return np.hstack([blocks, one_hot((resolutions - 112) // 16, [8])])
        depths = one_hot(genes[:, 1 : 1 + STAGES] - DEPTHS[0], [3] * STAGES)
        return np.hstack([one_hot(steps, [len(RESOLUTIONS)]), depths, blocks])

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the network; as written it has the published forms of h_swish, hard sigmoid and means."""
        # Imported here because they import torch, which counting and predicting do without.
        from latlab.search_spaces.ofa_mobilenetv3.modules import Network
        from latlab.search_spaces.torch_modules import finish

        blocks = blocks_of(arch.genes[0], stages(arch.genes), self.width)
        network = Network(blocks, self.width, self.num_classes, as_written)
        return finish(network, self.input_shape(arch), seed)


class OFAMobileNetV3Wide(OFAMobileNetV3):
    """OFA's MobileNetV3 at width 1.2."""

    name: ClassVar[str] = "ofa-mobilenetv3-w1.2"
    title: ClassVar[str] = "OFA-MobileNetV3 x1.2: depth, kernel, expansion, resolution 128-224; ImageNet"
    width: ClassVar[float] = 1.2
