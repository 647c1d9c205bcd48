"""The Transformers of HAT (Wang et al., ACL 2020), as its published latency tables know them.

The tables describe a network by averages over its layers. So an architecture here consists of what the tables
distinguish: embedding widths, depth, and sums over the layers, which `evenly` divides among them. The tables of all
tasks were drawn from one set of choices (HAT's `configs/*/latency_dataset/*.yml`), so they share one space for encoders
and one for decoders.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.encodings import one_hot
from latlab.search_spaces.hat.layers import TOKENS, VOCABULARY, decoder_layers, encoder_layers, step_layers
from latlab.search_spaces.layers import Layer
from latlab.search_spaces.variation import other_choice

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["HATDecoder", "HATEncoder"]

WIDTHS = (512, 640)
MIDDLES = (512, 1024, 2048, 3072)
HEADS = (2, 4, 8)
ATTENDED = (1, 2, 3)
DEPTHS = (1, 2, 3, 4, 5, 6)
ENCODER_DEPTH = 6

_Parts = tuple[int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Field:
    """The description of a gene: an integer that is a choice, or the sum over the layers of each layer's choice."""

    letter: str
    meaning: str
    choices: tuple[int, ...]
    norm: float
    """Divisor of the choice or of its average in HAT's latency predictor (`feature-norm`)."""
    summed: bool = False
    """True where the gene is a sum over the layers."""


@cache
def _sums(choices: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return the sums that `depth` of the choices can give, ascending."""
    if depth == 0:
        return (0,)
    return tuple(sorted({total + choice for total in _sums(choices, depth - 1) for choice in choices}))


def _split(total: int, choices: tuple[int, ...], depth: int, rng: Random) -> list[int]:
    """Draw choices of `depth` layers that add up to `total`."""
    parts = []
    for left in range(depth - 1, -1, -1):
        parts.append(rng.choice([choice for choice in choices if total - choice in _sums(choices, left)]))
        total -= parts[-1]
    return parts


@cache
def evenly(total: int, choices: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Return choices of `depth` layers that add up to `total`, in ascending order, each near the mean of the rest."""
    parts: list[int] = []
    for left in range(depth - 1, -1, -1):
        possible = [choice for choice in choices if total - choice in _sums(choices, left)]
        parts.append(min(possible, key=lambda choice: abs(choice * (left + 1) - total)))
        total -= parts[-1]
    return tuple(sorted(parts))


class _HAT(SearchSpace):
    """The base class of the encoder and the decoder space."""

    fields: ClassVar[tuple[Field, ...]]
    depths: ClassVar[tuple[int, ...]]
    example: ClassVar[str]
    drawn: ClassVar[tuple[str, ...]]
    can_be_dead: ClassVar[bool] = False
    encodings: ClassVar[tuple[str, ...]] = ("hat", "one-hot")

    @abstractmethod
    def depth(self, genes: Sequence[int]) -> int:
        """Return the number of layers."""

    def _values(self, field: Field, depth: int) -> tuple[int, ...]:
        """Return the values that a field can have in networks of `depth` layers."""
        return _sums(field.choices, depth) if field.summed else field.choices

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Return the architecture whose string has these numbers, in this order."""
        genes = self.integers(genes)
        if len(genes) != len(self.fields):
            raise ArchitectureError(
                f"{self.name}: genes are the {len(self.fields)} numbers of {self.example}, not {list(genes)}"
            )
        for field, gene in zip(self.fields, genes, strict=True):
            # Sums come last: by then the depth is known to be one of the choices.
            if gene not in (self._values(field, self.depth(genes)) if field.summed else field.choices):
                raise ArchitectureError(self._wrong(field, gene, genes))
        text = "|".join(f"{field.letter}{gene}" for field, gene in zip(self.fields, genes, strict=True))
        return Architecture(self.name, text, genes)

    def _wrong(self, field: Field, gene: int, genes: Sequence[int]) -> str:
        choices = ", ".join(map(str, field.choices))
        if not field.summed:
            return f"{self.name}: {field.letter} ({field.meaning}) is one of {choices}, not {gene}"
        depth = self.depth(genes)
        return f"{self.name}: {field.letter} ({field.meaning}) adds up {depth} of {choices}, which cannot give {gene}"

    def parse(self, text: str) -> Architecture:
        parts = "".join(text.split()).split("|")
        if len(parts) != len(self.fields):
            raise ArchitectureError(
                f"{self.name}: {text!r} has {len(parts)} fields joined by '|', "
                f"it must have {len(self.fields)}, as in {self.example}"
            )
        for field, part in zip(self.fields, parts, strict=True):
            if not re.fullmatch(rf"{field.letter}[0-9]{{1,6}}", part, re.ASCII):
                raise ArchitectureError(
                    f"{self.name}: {part!r} in {text!r} must be {field.letter} and a number ({field.meaning}), "
                    f"as in {self.example}"
                )
        return self.from_genes([int(part[1:]) for part in parts])

    def random(self, rng: Random) -> Architecture:
        """Draw as HAT drew its tables: widths, depth and each layer's choices uniformly, so sums are not uniform."""
        genes: list[int] = []
        for field in self.fields:
            count = self.depth(genes) if field.summed else 1
            genes.append(sum(rng.choice(field.choices) for _ in range(count)))
        return self.from_genes(genes)

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Change a width, the depth, or one choice of one layer.

        The layers behind a sum are not known, so they are drawn at random. A decoder that grows gets random layers
        after its own, one that shrinks loses its last layers.
        """
        genes, depth = list(arch.genes), self.depth(arch.genes)
        place = rng.randrange(len(self.fields))
        chosen = self.fields[place]
        if chosen.summed:
            parts = _split(genes[place], chosen.choices, depth, rng)
            layer = rng.randrange(depth)
            parts[layer] = other_choice(chosen.choices, parts[layer], rng)
            genes[place] = sum(parts)
            return self.from_genes(genes)
        genes[place] = other_choice(chosen.choices, genes[place], rng)
        new = self.depth(genes)
        for at, field in enumerate(self.fields):
            if field.summed and new != depth:
                kept = _split(genes[at], field.choices, depth, rng)[:new]
                genes[at] = sum(kept) + sum(rng.choice(field.choices) for _ in range(new - depth))
        return self.from_genes(genes)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child that takes each gene from a random parent.

        A sum that is impossible at the child's depth comes from the parent that has this depth.
        """
        genes: list[int] = []
        for at, (field, *pair) in enumerate(zip(self.fields, a.genes, b.genes, strict=True)):
            gene = rng.choice(pair)
            if field.summed and gene not in self._values(field, self.depth(genes)):
                gene = (a if self.depth(a.genes) == self.depth(genes) else b).genes[at]
            genes.append(gene)
        return self.from_genes(genes)

    def references(self) -> tuple[Architecture, ...]:
        """Return ten architectures that were drawn once (`sample(10, 0)`), because HELP has none for this space."""
        return tuple(map(self.parse, self.drawn))

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        """Return (1, tokens, embedding width): one channel of embedded tokens."""
        letters = [field.letter for field in self.fields]
        return (1, TOKENS, arch.genes[letters.index("d")])

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode architectures as `hat` or `one-hot`.

        `hat`: the features of HAT's latency predictor, in the string's order: choices, and averages over the layers,
        divided by the paper's norms. Of HAT's ten features these are the ones on which its tables' encoder latencies
        (without the constant depth) or decoder latencies can depend.
        `one-hot`: one number for every value that a choice or a sum can have.
        """
        if encoding not in self.encodings:
            raise self.unknown_encoding(encoding)
        genes = self.genes(archs)
        if encoding == "one-hot":
            values = [np.array(sorted(self._all_values(field))) for field in self.fields]
            columns = [np.searchsorted(known, genes[:, at]) for at, known in enumerate(values)]
            return one_hot(np.stack(columns, axis=1), [len(known) for known in values])
        depth = np.array([self.depth(row) for row in genes]).reshape(len(genes), 1)
        summed = np.array([field.summed for field in self.fields])
        norms = np.array([field.norm for field in self.fields])
        features: np.ndarray = (genes / np.where(summed, depth, 1) / norms).astype(np.float32)
        return features

    def _all_values(self, field: Field) -> set[int]:
        return {value for depth in self.depths for value in self._values(field, depth)}


class HATEncoder(_HAT):
    """HAT's encoders, which always have six layers.

    A string such as `d640|f9216|h28` has the embedding width, the sum of the feed-forward widths and the sum of the
    self-attention heads.
    """

    name: ClassVar[str] = "hat-encoder"
    title: ClassVar[str] = "HAT's Transformer encoders: 6 layers, known by sums over them"
    example: ClassVar[str] = "d640|f9216|h28"
    drawn: ClassVar[tuple[str, ...]] = (
        "d640|f13824|h28", "d640|f7168|h34", "d512|f14336|h26", "d640|f9216|h24", "d640|f8704|h34",
        "d512|f11776|h20", "d640|f6656|h38", "d640|f13312|h34", "d512|f9728|h22", "d640|f4096|h30",
    )  # fmt: skip
    fields: ClassVar[tuple[Field, ...]] = (
        Field("d", "embedding width", WIDTHS, 640),
        Field("f", "sum of feed-forward widths", MIDDLES, 2048, summed=True),
        Field("h", "sum of self-attention heads", HEADS, 6, summed=True),
    )
    depths: ClassVar[tuple[int, ...]] = (ENCODER_DEPTH,)
    size: ClassVar[int] = len(WIDTHS) * len(_sums(MIDDLES, ENCODER_DEPTH)) * len(_sums(HEADS, ENCODER_DEPTH))
    finite: ClassVar[bool] = True
    num_classes: ClassVar[int] = 0
    num_genes: ClassVar[int] = len(fields)

    def depth(self, genes: Sequence[int]) -> int:
        return ENCODER_DEPTH

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 1 and the products in which the costs of the matrix multiplications are linear: 6 columns."""
        d, f, h = (genes / [field.norm for field in self.fields]).T
        return np.stack([np.ones(len(genes)), d, f, d * f, h, d * h], axis=1)

    def enumerate(self) -> Iterator[Architecture]:
        """Iterate in ascending order of the width, then of the sums."""
        return map(self.from_genes, product(*(self._values(field, ENCODER_DEPTH) for field in self.fields)))

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers for one sentence. `live` changes nothing, because no layer is dead."""
        return encoder_layers(*self.parts(arch))

    @staticmethod
    def parts(arch: Architecture) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Return the width, and the feed-forward width and the heads of each layer."""
        width, middles, heads = arch.genes
        return width, evenly(middles, MIDDLES, ENCODER_DEPTH), evenly(heads, HEADS, ENCODER_DEPTH)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the encoder of one sentence of `TOKENS` embedded tokens; `as_written` changes nothing."""
        from latlab.search_spaces.hat.modules import Encoder, scale
        from latlab.search_spaces.torch_modules import finish

        network = finish(Encoder(*self.parts(arch)), self.input_shape(arch), seed)
        scale(network)
        return network


class HATDecoder(_HAT):
    """HAT's decoders, which have one to six layers.

    A string such as `e640|d512|l4|f7680|h10|x22|a6` has the embedding widths of encoder and decoder, the number of
    layers, and the sums over the layers of feed-forward widths, of self-attention heads, of heads of the attention to
    the encoder, and of the numbers of the encoder's last layers that each attends to. The only property of the encoder
    that matters is its width, through the keys and values.
    """

    name: ClassVar[str] = "hat-decoder"
    title: ClassVar[str] = "HAT's Transformer decoders: 1-6 layers, known by sums over them"
    autoregressive: ClassVar[bool] = True
    example: ClassVar[str] = "e640|d512|l4|f7680|h10|x22|a6"
    drawn: ClassVar[tuple[str, ...]] = (
        "e640|d640|l1|f2048|h8|x4|a2",
        "e640|d640|l3|f4096|h12|x20|a6",
        "e512|d512|l6|f12800|h34|x26|a15",
        "e640|d640|l2|f2560|h10|x4|a4",
        "e640|d512|l1|f2048|h8|x4|a1",
        "e640|d640|l6|f9216|h30|x24|a10",
        "e512|d512|l1|f3072|h8|x8|a2",
        "e512|d512|l6|f13824|h34|x22|a10",
        "e640|d512|l1|f1024|h8|x2|a1",
        "e512|d512|l1|f1024|h8|x8|a1",
    )
    fields: ClassVar[tuple[Field, ...]] = (
        Field("e", "embedding width of the encoder", WIDTHS, 640),
        Field("d", "embedding width", WIDTHS, 640),
        Field("l", "layers", DEPTHS, 6),
        Field("f", "sum of feed-forward widths", MIDDLES, 2048, summed=True),
        Field("h", "sum of self-attention heads", HEADS, 6, summed=True),
        Field("x", "sum of encoder-attention heads", HEADS, 6, summed=True),
        Field("a", "sum of attended encoder layers", ATTENDED, 2, summed=True),
    )
    depths: ClassVar[tuple[int, ...]] = DEPTHS
    size: ClassVar[int] = len(WIDTHS) ** 2 * sum(
        math.prod(len(_sums(choices, depth)) for choices in (MIDDLES, HEADS, HEADS, ATTENDED)) for depth in DEPTHS
    )
    num_classes: ClassVar[int] = VOCABULARY
    num_genes: ClassVar[int] = len(fields)

    def depth(self, genes: Sequence[int]) -> int:
        return genes[2]

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return 10 columns: 1, costs of each layer, and products in which matrix multiplications are linear.

        The costs of each layer are the number of layers, alone and times the width, and each sum.
        """
        e, d, l, f, h, x, a = (genes / [field.norm for field in self.fields]).T  # noqa: E741
        return np.stack([np.ones(len(genes)), d, l, l * d, f, d * f, h, x, a, a * e], axis=1)

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        """Return (3, tokens, embedding width of the encoder): outputs of its last three layers, the very last first."""
        return (ATTENDED[-1], TOKENS, arch.genes[0])

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers for a whole sentence, each with the costs of all steps (`layers.decoder_layers`).

        `live` changes nothing, because no layer is dead.
        """
        return decoder_layers(*self.parts(arch))

    def readings(self, arch: Architecture) -> dict[str, tuple[tuple[Layer, ...], ...]]:
        """Return the layers of the mean step, of which all steps are repetitions (`layers.step_layers`).

        A runtime starts every layer anew in each step. In `layers`, where a layer stands for all steps, that would be
        thirty times too rare beside the arithmetic.
        """
        return {"written": (step_layers(*self.parts(arch)),)}

    def parts(self, arch: Architecture) -> _Parts:
        """Return the widths of encoder and decoder, and the choices of each layer, a tuple for each summed field."""
        encoder_width, width, depth, *sums = arch.genes
        choices = [field.choices for field in self.fields if field.summed]
        middles, heads, cross, attended = (evenly(s, c, depth) for s, c in zip(sums, choices, strict=True))
        return encoder_width, width, middles, heads, cross, attended

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the decoder, one call of which generates a sentence (`decoder.py`); `as_written` changes nothing."""
        from latlab.search_spaces.hat.decoder import Decoder
        from latlab.search_spaces.hat.modules import scale
        from latlab.search_spaces.torch_modules import finish

        network = finish(Decoder(*self.parts(arch)), self.input_shape(arch), seed)
        scale(network)
        return network
