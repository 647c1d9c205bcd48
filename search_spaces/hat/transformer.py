"""The space of HAT's whole Transformers: an encoder of `hat-encoder` and a decoder of `hat-decoder` of its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.architecture import Architecture, ArchitectureError
from latlab.search_spaces.base import SearchSpace
from latlab.search_spaces.hat.layers import VOCABULARY, transformer_layers
from latlab.search_spaces.hat.space import WIDTHS, HATDecoder, HATEncoder
from latlab.search_spaces.layers import Layer

if TYPE_CHECKING:  # torch is heavy, and only `build` needs it
    from torch import nn

__all__ = ["HAT"]

_ENCODER, _DECODER = HATEncoder(), HATDecoder()
_OWN = _ENCODER.num_genes
"""Number of the encoder's genes. The decoder's follow, without the encoder's width, which is the first of all."""


class HAT(SearchSpace):
    """HAT's Transformers, whose latency is that of the encoder and of the decoder together.

    A string such as `d640|f9216|h28+d512|l4|f7680|h10|x22|a6` has an encoder and a decoder without its `e`.
    """

    name: ClassVar[str] = "hat"
    title: ClassVar[str] = "HAT's Transformers: an encoder of hat-encoder, a decoder of hat-decoder"
    size: ClassVar[int] = _ENCODER.size * _DECODER.size // len(WIDTHS)
    autoregressive: ClassVar[bool] = True
    can_be_dead: ClassVar[bool] = False
    num_classes: ClassVar[int] = VOCABULARY
    num_genes: ClassVar[int] = _ENCODER.num_genes + _DECODER.num_genes - 1
    encodings: ClassVar[tuple[str, ...]] = ("hat", "one-hot")
    example: ClassVar[str] = "d640|f9216|h28+d512|l4|f7680|h10|x22|a6"

    def from_genes(self, genes: Sequence[int]) -> Architecture:
        """Return the architecture whose string has these numbers, in this order."""
        genes = self.integers(genes)
        if len(genes) != self.num_genes:
            raise ArchitectureError(
                f"{self.name}: genes are the {self.num_genes} numbers of {self.example}, not {list(genes)}"
            )
        with self._naming():
            return self._joined(_ENCODER.from_genes(genes[:_OWN]), _DECODER.from_genes((genes[0], *genes[_OWN:])))

    def parse(self, text: str) -> Architecture:
        encoder, *decoder = "".join(text.split()).split("+")
        if len(decoder) != 1 or decoder[0].count("|") != _DECODER.num_genes - 2:
            raise ArchitectureError(
                f"{self.name}: {text!r} must be an encoder and a decoder joined by '+', as in {self.example}"
            )
        with self._naming():
            first = _ENCODER.parse(encoder)
            return self._joined(first, _DECODER.parse(f"e{first.genes[0]}|{decoder[0]}"))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Let errors about a part begin with the name of this space."""
        try:
            yield
        except ArchitectureError as error:
            raise ArchitectureError(f"{self.name}: {error}") from None

    def _joined(self, encoder: Architecture, decoder: Architecture) -> Architecture:
        """Return the Transformer of an encoder and a decoder of its width."""
        text = f"{encoder.text}+{decoder.text.partition('|')[2]}"
        return Architecture(self.name, text, (*encoder.genes, *decoder.genes[1:]))

    @staticmethod
    def _split(arch: Architecture) -> tuple[Architecture, Architecture]:
        """Return the encoder and the decoder."""
        genes = arch.genes
        return _ENCODER.from_genes(genes[:_OWN]), _DECODER.from_genes((genes[0], *genes[_OWN:]))

    @staticmethod
    def _of_width(decoder: Architecture, encoder: Architecture) -> Architecture:
        """Return a decoder for the width of an encoder."""
        return _DECODER.from_genes((encoder.genes[0], *decoder.genes[1:]))

    def random(self, rng: Random) -> Architecture:
        """Draw an encoder and a decoder as HAT drew its tables."""
        encoder = _ENCODER.random(rng)
        return self._joined(encoder, self._of_width(_DECODER.random(rng), encoder))

    def mutate(self, arch: Architecture, rng: Random) -> Architecture:
        """Change the encoder or the decoder as their spaces do, in proportion to the number of their genes."""
        encoder, decoder = self._split(arch)
        if rng.randrange(self.num_genes) < _OWN:
            encoder = _ENCODER.mutate(encoder, rng)
            return self._joined(encoder, self._of_width(decoder, encoder))
        while True:
            mutant = _DECODER.mutate(decoder, rng)
            if mutant.genes[0] == encoder.genes[0]:
                return self._joined(encoder, mutant)

    def crossover(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Return a child whose encoder and decoder are children of those of its parents."""
        (encoder, decoder), (other_encoder, other_decoder) = self._split(a), self._split(b)
        encoder = _ENCODER.crossover(encoder, other_encoder, rng)
        return self._joined(encoder, self._of_width(_DECODER.crossover(decoder, other_decoder, rng), encoder))

    def references(self) -> tuple[Architecture, ...]:
        """Return the references of both spaces, joined: HELP has none for this space."""
        pairs = zip(_ENCODER.references(), _DECODER.references(), strict=True)
        return tuple(self._joined(encoder, self._of_width(decoder, encoder)) for encoder, decoder in pairs)

    def input_shape(self, arch: Architecture) -> tuple[int, int, int]:
        """Return (1, tokens, embedding width): one channel of embedded tokens."""
        return _ENCODER.input_shape(self._split(arch)[0])

    def layers(self, arch: Architecture, *, live: bool = False) -> tuple[Layer, ...]:
        """Return the layers for a sentence: the encoder's, and the decoder's with the costs of all steps.

        `live` changes nothing, because no layer is dead.
        """
        encoder, decoder = self._split(arch)
        attended = max(_DECODER.parts(decoder)[-1])
        return transformer_layers(_ENCODER.layers(encoder), _DECODER.layers(decoder), arch.genes[0], attended)

    def build(self, arch: Architecture, *, seed: int = 0, as_written: bool = False) -> nn.Module:
        """Build the Transformer, one call of which translates a sentence; `as_written` changes nothing."""
        from latlab.search_spaces.hat.decoder import Decoder, Transformer
        from latlab.search_spaces.hat.modules import Encoder, scale
        from latlab.search_spaces.torch_modules import finish

        encoder, decoder = self._split(arch)
        network = Transformer(Encoder(*_ENCODER.parts(encoder)), Decoder(*_DECODER.parts(decoder)))
        finish(network, self.input_shape(arch), seed)
        scale(network)
        return network

    def encode(self, archs: Sequence[Architecture] | NDArray[np.int64], encoding: str) -> np.ndarray:
        """Encode architectures as `hat` (the features of HAT's latency predictor) or as `one-hot`.

        Both are the encodings of the encoder and of the decoder, without the encoder's width in the latter.
        """
        if encoding not in self.encodings:
            raise self.unknown_encoding(encoding)
        encoder, decoder = self._genes_of_parts(self.genes(archs))
        known = len(WIDTHS) if encoding == "one-hot" else 1
        return np.hstack([_ENCODER.encode(encoder, encoding), _DECODER.encode(decoder, encoding)[:, known:]])

    def features(self, genes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the features of the encoder, then those of the decoder without their 1: 15 columns."""
        encoder, decoder = self._genes_of_parts(genes)
        return np.hstack([_ENCODER.features(encoder), _DECODER.features(decoder)[:, 1:]])

    @staticmethod
    def _genes_of_parts(genes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return genes[:, :_OWN], np.hstack([genes[:, :1], genes[:, _OWN:]])
