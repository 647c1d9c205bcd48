"""HAT's decoders as torch modules: one call generates a whole sentence, token by token.

A call executes what HAT times (its `latency_dataset.py`): `TOKENS` steps of `BEAM` hypotheses side by side, which keep
keys and values of earlier tokens, compute those of the encoder's outputs once, and end in the logits of the whole
vocabulary. HAT feeds its steps with fixed tokens. Here the next token is the most likely one, as in greedy decoding:
otherwise only the last step's logits would be an output, and a compiler could drop all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latlab.search_spaces.hat.layers import ATTENTION, BEAM, TOKENS, VOCABULARY
from latlab.search_spaces.hat.modules import Attention, Encoder, FeedForward
from latlab.search_spaces.torch_modules import Autoregressive, linear

__all__ = ["Decoder", "Transformer"]


class _TokenAttention(Attention):
    """Attention of one token of each hypothesis to given keys and values, with its residual and its norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(heads)
        self.output = linear(ATTENTION, width)
        self.norm = nn.LayerNorm(width)

    def of_token(self, x: Tensor) -> Tensor:
        """Return rows of `ATTENTION` numbers, one for each hypothesis, as (hypotheses, heads, 1, width of a head)."""
        return x.reshape(-1, self.heads, 1, self.head_width)

    def attend(self, x: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the new state of the tokens whose state is `x`: (hypotheses, width).

        Args:
            x: (hypotheses, width).
            query: (hypotheses, `ATTENTION`).
            keys: (hypotheses, heads, width of a head, tokens).
            values: (hypotheses, heads, tokens, width of a head).
        """
        weights = torch.softmax(torch.matmul(self.of_token(query), keys), 3)
        y: Tensor = self.norm(x + self.output(torch.matmul(weights, values).reshape(-1, ATTENTION)))
        return y


class _SelfAttention(_TokenAttention):
    """Attention to the token itself and those before it, whose keys and values are kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.qkv = linear(width, 3 * ATTENTION)

    def queries(self) -> nn.Linear:
        return self.qkv

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new state, and keys and values with those of this token after those of the earlier ones."""
        query, key, value = torch.split(self.qkv(x), ATTENTION, 1)
        keys = torch.cat((keys, self.of_token(key)), 2)
        values = torch.cat((values, self.of_token(value)), 2)
        return self.attend(x, query, keys.transpose(2, 3), values), keys, values


class _CrossAttention(_TokenAttention):
    """Attention to the outputs of the encoder's last layers."""

    def __init__(self, encoder_width: int, width: int, heads: int, attended: int) -> None:
        super().__init__(width, heads)
        self.query, self.attended = linear(width, ATTENTION), attended
        self.key, self.value = linear(encoder_width, ATTENTION), linear(encoder_width, ATTENTION)

    def queries(self) -> nn.Linear:
        return self.query

    def keys_and_values(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, as `attend` takes them, of the encoder's outputs: rows of the encoder's width."""
        shape = (-1, TOKENS * self.attended, self.heads, self.head_width)
        keys = self.key(outputs).reshape(shape).permute(0, 2, 3, 1)
        values = self.value(outputs).reshape(shape).transpose(1, 2)
        return keys.contiguous(), values.contiguous()  # once, and not again in each step

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.attend(x, self.query(x), keys, values)


class _Layer(nn.Module):
    """The three parts of a layer, which `Decoder` calls."""

    def __init__(self, encoder_width: int, width: int, middle: int, own: int, cross: int, attended: int) -> None:
        super().__init__()
        self.own = _SelfAttention(width, own)
        self.cross = _CrossAttention(encoder_width, width, cross, attended)
        self.ffn = FeedForward(width, middle)


class Decoder(Autoregressive):
    """A decoder: from the encoder's outputs to the logits of the last token.

    Input: (n, layers, `TOKENS`, encoder's width), the outputs of the encoder's last layers, the very last one first.
    Output: (n, `BEAM`, `VOCABULARY`). The hypotheses are alike, as in HAT's timings.
    The state has the logits of the last token, and each layer's keys and values of the tokens so far.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        middles: Sequence[int],
        heads: Sequence[int],
        cross_heads: Sequence[int],
        attended: Sequence[int],
    ) -> None:
        super().__init__(_positions(width))
        self.encoder_width, self.scale = encoder_width, math.sqrt(width)
        parts = zip(middles, heads, cross_heads, attended, strict=True)
        self.layers = nn.ModuleList(_Layer(encoder_width, width, *part) for part in parts)
        # Its weights are also the embeddings of the tokens, as HAT's configurations have it.
        self.output = linear(width, VOCABULARY, bias=False)

    @property
    def attended(self) -> int:
        """The number of the encoder's layers whose outputs are read."""
        return max(layer.cross.attended for layer in self._parts())

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return each layer's keys and values of the encoder's outputs."""
        counts = sorted({layer.cross.attended for layer in self._parts()})
        outputs = {count: self._repeated(x, count) for count in counts}
        found: list[Tensor] = []
        for layer in self._parts():
            found += layer.cross.keys_and_values(outputs[layer.cross.attended])
        return tuple(found)

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of the token 0, fairseq's beginning of a sentence, and no keys and values."""
        kept = []
        for layer in self._parts():
            shape = (x.shape[0] * BEAM, layer.own.heads, 0, layer.own.head_width)
            kept += [x.new_zeros(shape), x.new_zeros(shape)]
        return (x.new_zeros((x.shape[0], BEAM, VOCABULARY)), *kept)

    def step(self, position: Tensor, encoded: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Choose the next token, and return its logits and all keys and values."""
        token = torch.argmax(state[0], 2).reshape(-1)
        x = torch.add(position, F.embedding(token, self.output.weight), alpha=self.scale)
        kept: list[Tensor] = []
        for place, layer in enumerate(self._parts()):
            at = slice(2 * place, 2 * place + 2)
            x, *new = layer.own(x, *state[1:][at])
            kept += new
            x = layer.ffn(layer.cross(x, *encoded[at]))
        # A product with a transposed matrix, and not `F.linear`: of that, ONNX files would hold a transposed copy.
        logits = torch.mm(x, self.output.weight.t()).reshape(-1, BEAM, VOCABULARY)
        return (logits, *kept)

    def _parts(self) -> list[_Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _repeated(self, x: Tensor, count: int) -> Tensor:
        """Return the outputs of the encoder's last `count` layers for each hypothesis, as rows."""
        last = x[:, :count].unsqueeze(1).expand(-1, BEAM, -1, -1, -1)
        return last.reshape(-1, self.encoder_width)


class Transformer(Autoregressive):
    """An encoder and a decoder: from an embedded sentence (n, 1, `TOKENS`, width) to the logits of the last token."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__(decoder.positions)
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self.encoder.last_outputs(x, self.decoder.attended)
        return self.decoder.encode(torch.cat([one.unsqueeze(1) for one in outputs], 1))

    def start(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.decoder.start(x)

    def step(self, position: Tensor, encoded: Sequence[Tensor], state: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return self.decoder.step(position, encoded, state)


def _positions(width: int) -> Tensor:
    """Return the sinusoidal embeddings of the positions, half sines, half cosines: (`TOKENS`, width)."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(TOKENS).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
