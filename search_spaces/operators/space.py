"""The space of operators: what a device is measured with whose owner has networks, but no search space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import one_hot
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.operators.skeleton import CLASSES, FIELDS, FREE, KINDS, Setting, fitting, layers

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Operators"]

_LETTERS = tuple(FIELDS)
_SIDES = (len(KINDS), *(len(choices) for choices in FIELDS.values()))
_IGNORED = np.array([[False, *(letter in FREE[kind] for letter in _LETTERS)] for kind in KINDS])
"""Which genes each kind ignores."""
_WORDS = tuple(tuple(f"|{letter}{choice}" for choice in choices) for letter, choices in FIELDS.items())
DESIGN = (
    # The first thirty tell a device's costs of each kind apart: a large one, where work dominates, and small or odd
    # ones, where the start of a kernel, the weights, or few channels do.
    "conv|c64|o64|s56|k3|t1|x2", "pointwise|c256|o64|s28|k3|t1|x4", "depthwise|c128|o8|s56|k3|t1|x2",
    "linear|c512|o512|s1|k3|t1|x4", "bottleneck|c32|o128|s28|k3|t1|x4", "attention|c128|o8|s14|k3|t1|x2",
    "add|c64|o8|s56|k3|t1|x4", "linear|c256|o512|s14|k3|t1|x2", "conv|c256|o256|s7|k3|t1|x4",
    "conv|c8|o32|s112|k3|t2|x1", "hswish|c64|o8|s56|k3|t1|x4", "layernorm|c256|o8|s14|k3|t1|x4",
    "maxpool|c64|o8|s56|k3|t1|x2", "lstm|c128|o128|s7|k3|t1|x2", "gelu|c256|o8|s14|k3|t1|x4",
    "shuffle|c64|o8|s56|k3|t1|x4", "concat|c64|o8|s28|k3|t1|x2", "silu|c64|o8|s56|k3|t1|x2",
    "softmax|c128|o8|s28|k3|t1|x2", "depthwise|c512|o8|s7|k5|t1|x4", "pointwise|c32|o256|s56|k3|t2|x1",
    "resize|c64|o8|s28|k3|t1|x1", "grouped|c128|o128|s28|k3|t1|x2", "batchnorm|c64|o8|s56|k3|t1|x2",
    "avgpool|c64|o8|s56|k3|t1|x2", "attention|c64|o8|s28|k3|t1|x1", "conv|c128|o128|s14|k3|t1|x4",
    "pointwise|c512|o512|s7|k3|t1|x4", "bottleneck|c64|o256|s14|k5|t1|x4", "linear|c64|o64|s1|k3|t1|x4",
    "lstm|c64|o256|s4|k3|t1|x1", "conv|c16|o16|s56|k5|t1|x2", "pointwise|c16|o64|s112|k3|t1|x1",
    "add|c256|o8|s14|k3|t1|x4", "conv|c32|o64|s56|k3|t2|x1", "depthwise|c32|o8|s112|k3|t2|x1",
    "linear|c512|o128|s7|k3|t1|x4", "conv|c512|o512|s4|k3|t1|x1", "conv|c64|o64|s112|k3|t1|x1",
    "hswish|c128|o8|s7|k3|t1|x4",
)  # fmt: skip


class Operators(SearchSpace):
    """Networks that repeat one operator, or a few that are usual together.

    A string such as `conv|c64|o128|s28|k3|t1|x2` has what is repeated, channels in and out, the side of the image in
    pixels, kernel, stride of the first repetition, and repetitions. Each kind ignores some of them. All end with the
    mean over all pixels and a linear layer, so that they give a few numbers. `designed` is the order in which they tell
    most about a device.
    """

    name: ClassVar[str] = "operators"
    title: ClassVar[str] = "Single operators and small graphs of them, to learn a device's costs for any network"
    size: ClassVar[int] = int(fitting().sum())
    can_be_dead: ClassVar[bool] = False
    num_classes: ClassVar[int] = CLASSES
    num_genes: ClassVar[int] = len(_SIDES)
    encodings: ClassVar[tuple[str, ...]] = ("one-hot",)

    def parse(self, text: str) -> Architecture:
        kind, *parts = "".join(text.split()).split("|")
        example = DESIGN[0]
        if kind not in KINDS:
            raise ArchitectureError(f"{self.name}: there is no {kind!r}; there are: {', '.join(KINDS)}")
        if len(parts) != len(FIELDS):
            raise ArchitectureError(
                f"{self.name}: {text!r} has {1 + len(parts)} fields joined by '|', not {len(_SIDES)}, as in {example}"
            )
        genes = [KINDS.index(kind)]
        for (letter, choices), part in zip(FIELDS.items(), parts, strict=True):
            found = re.fullmatch(rf"{letter}([0-9]{{1,4}})", part, re.ASCII)
            if found is None or int(found[1]) not in choices:
                known = ", ".join(f"{letter}{choice}" for choice in choices)
                raise ArchitectureError(f"{self.name}: {part!r} in {text!r} must be one of: {known}, as in {example}")
            genes.append(choices.index(int(found[1])))
        return self.from_genes(genes)

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Return the architecture that has these genes: the number of the kind, then of each choice in `FIELDS`."""
        genes = self.integers(genes)
        if len(genes) != len(_SIDES) or not all(0 <= g < side for g, side in zip(genes, _SIDES, strict=True)):
            raise ArchitectureError(f"{self.name}: genes are {len(_SIDES)} numbers below {_SIDES}, not {list(genes)}")
        if not fitting()[genes]:
            raise ArchitectureError(f"{self.name}: {_text(genes)} is too large: fewer channels, pixels or repetitions")
        return Architecture(self.name, _text(genes), genes)

    def valid(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        genes = np.asarray(genes)
        inside: NDArray[np.bool_] = np.asarray(((genes >= 0) & (genes < np.array(_SIDES))).all(axis=1))
        return np.asarray(inside & fitting()[tuple(np.where(inside[:, None], genes, 0).T)], np.bool_)

    def random(self, rng: Random) -> Architecture:
        """Draw each choice uniformly, and all again while the network is too large."""
        while True:
            genes = [rng.randrange(side) for side in _SIDES]
            if fitting()[tuple(genes)]:
                return self.from_genes(genes)

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        while True:
            genes = list(arch.genes)
            place = rng.randrange(len(_SIDES))
            genes[place] = (genes[place] + rng.randrange(1, _SIDES[place])) % _SIDES[place]
            if fitting()[tuple(genes)]:
                return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child of `a` and `b`; choices are drawn again while the child is too large."""
        while True:
            genes = [rng.choice(pair) for pair in zip(a.genes, b.genes, strict=True)]
            if fitting()[tuple(genes)]:
                return self.from_genes(genes)

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the network with the first choice wherever its kind ignores the choice."""
        ignored = _IGNORED[arch.genes[0]]
        return self.from_genes([0 if skip else gene for skip, gene in zip(ignored, arch.genes, strict=True)])

    def canonical_genes(self, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(np.where(_IGNORED[genes[:, 0]], 0, genes), np.int64)

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        one = setting(arch)
        return (one.channels, one.size, one.size)

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers; `live` changes nothing, because no layer is dead."""
        return layers(setting(self.canonical(arch)))

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the network; `as_written` changes nothing."""
        from latlab.search_spaces.operators.modules import Network, scale
        from latlab.search_spaces.torch_modules import finish

        network = Network(setting(self.canonical(arch)))
        finish(network, self.input_shape(arch), seed)
        scale(network)
        return network

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode the choices as `one-hot`."""
        if encoding != "one-hot":
            raise self.unknown_encoding(encoding)
        return one_hot(self.genes(archs), _SIDES)

    def references(self) -> tuple[Architecture, ...]:
        """Return the first ten of the design."""
        return self.designed()[:10]

    def designed(self) -> tuple[Architecture, ...]:
        return tuple(map(self.parse, DESIGN))


def setting(arch: Architecture) -> Setting:
    """Return the choices of an architecture, in plain numbers."""
    kind, *rest = arch.genes
    return Setting(KINDS[kind], *(choices[gene] for choices, gene in zip(FIELDS.values(), rest, strict=True)))


def _text(genes: Sequence[int]) -> str:
    return KINDS[genes[0]] + "".join(words[gene] for words, gene in zip(_WORDS, genes[1:], strict=True))
