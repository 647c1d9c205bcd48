"""Layers of HAT's encoders and decoders, as HAT measures them (its `latency_dataset.py` and `transformer_super.py`).

A dummy sentence of `TOKENS` tokens goes through the encoder at once. The decoder then makes `TOKENS` tokens one by one,
for `BEAM` hypotheses side by side; keys and values of earlier tokens are kept, and those of the encoder's output are
computed at the first step only.

In these layers sizes are always 1, and the channels of a layer are all the elements of its input or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from latlab.search_spaces.layers import Layer

__all__ = ["ATTENTION", "TOKENS", "VOCABULARY", "decoder_layers", "encoder_layers"]

TOKENS = 30
"""Length of the sentence, in and out, in the WMT tasks. IWSLT has 23, which scales nearly all costs alike."""
BEAM = 5
"""Number of hypotheses: the default of fairseq's `--beam`, which HAT's configurations do not change."""
ATTENTION = 512
"""Width of queries, keys and values together for all heads (`qkv-dim`); it does not depend on their number."""
VOCABULARY = 32_768
"""Size of WMT'14 En-De's vocabulary; other tasks differ by a factor that all decoders of one embedding width share."""
KEPT = 16
"""Number of tokens that a step attends to, half-way through the sentence."""


@cache
def _layer(name: str, kind: str, inputs: int, outputs: int, macs: int = 0, params: int = 0) -> Layer:
    return Layer(name, kind, 1, 1, 1, inputs, outputs, 1, 1, macs, params)


def _linear(name: str, rows: int, inputs: int, outputs: int, bias: bool = True) -> Layer:
    weights = inputs * outputs
    return _layer(name, "linear", rows * inputs, rows * outputs, rows * weights, weights + bias * outputs)


def _add_and_norm(name: str, rows: int, width: int) -> list[Layer]:
    """Return the residual addition and the layer norm after it, the order of HAT's base configurations."""
    return [
        _layer(f"{name}.add", "add", rows * width, rows * width),
        _layer(f"{name}.norm", "layernorm", rows * width, rows * width, 0, 2 * width),
    ]


def _attention(name: str, rows: int, keys: int, sentences: int, heads: int, width: int) -> list[Layer]:
    """Return the layers from queries, keys and values to the output of an attention block.

    Args:
        rows: number of queries in all sentences together.
        keys: number of keys in each sentence.
    """
    queried, kept, weights = rows * ATTENTION, sentences * keys * ATTENTION, heads * rows * keys
    macs = rows * keys * ATTENTION
    return [
        _layer(f"{name}.scores", "matmul", queried + kept, weights, macs),
        _layer(f"{name}.softmax", "softmax", weights, weights),
        _layer(f"{name}.context", "matmul", weights + kept, queried, macs),
        # The heads of a token are brought together; those of a single token lie so already.
        *([_layer(f"{name}.join", "shuffle", queried, queried)] if rows > sentences else []),
        _linear(f"{name}.output", rows, ATTENTION, width),
        *_add_and_norm(name, rows, width),
    ]


def _feed_forward(name: str, rows: int, width: int, middle: int) -> list[Layer]:
    return [
        _linear(f"{name}.expand", rows, width, middle),
        _layer(f"{name}.relu", "relu", rows * middle, rows * middle),
        _linear(f"{name}.project", rows, middle, width),
        *_add_and_norm(name, rows, width),
    ]


def encoder_layers(width: int, middles: Sequence[int], heads: Sequence[int]) -> tuple[Layer, ...]:
    """Return the layers of the whole encoder on one sentence.

    Args:
        width: embedding width.
        middles: feed-forward width of each layer.
        heads: number of heads of each layer's self-attention.
    """
    found: list[Layer] = []
    for place, (middle, own) in enumerate(zip(middles, heads, strict=True), start=1):
        name = f"layer{place}"
        found += [
            _linear(f"{name}.self.qkv", TOKENS, width, 3 * ATTENTION),
            *_attention(f"{name}.self", TOKENS, TOKENS, 1, own, width),
            *_feed_forward(f"{name}.ffn", TOKENS, width, middle),
        ]
    return tuple(found)


def decoder_layers(
    encoder_width: int,
    width: int,
    middles: Sequence[int],
    heads: Sequence[int],
    cross_heads: Sequence[int],
    attended: Sequence[int],
) -> tuple[Layer, ...]:
    """Return the layers of one decoder step half-way through the sentence, whose costs are those of the mean step.

    Keys and values of the encoder's output are computed once per sentence. So a step counts its share of their
    multiply-accumulates, but all of their parameters. The latency of a sentence is that of `TOKENS` such steps.

    Args:
        encoder_width: embedding width of the encoder, from whose output keys and values are computed.
        width: embedding width of the decoder.
        middles: feed-forward width of each layer.
        heads: number of heads of each layer's self-attention.
        cross_heads: number of heads of each layer's attention to the encoder.
        attended: number of the encoder's last layers that each layer attends to (HAT's arbitrary attention).
    """
    found: list[Layer] = []
    for place, (middle, own, cross, last) in enumerate(zip(middles, heads, cross_heads, attended, strict=True), 1):
        name = f"layer{place}"
        found += [
            _linear(f"{name}.self.qkv", BEAM, width, 3 * ATTENTION),
            *_attention(f"{name}.self", BEAM, KEPT, BEAM, own, width),
        ]
        if last > 1:  # HAT's code concatenates the outputs again at each step
            together = BEAM * TOKENS * last * encoder_width
            found.append(_layer(f"{name}.cross.concat", "concat", together, together))
        found += [
            _linear(f"{name}.cross.query", BEAM, width, ATTENTION),
            _linear(f"{name}.cross.key", BEAM * last, encoder_width, ATTENTION),
            _linear(f"{name}.cross.value", BEAM * last, encoder_width, ATTENTION),
            *_attention(f"{name}.cross", BEAM, TOKENS * last, BEAM, cross, width),
            *_feed_forward(f"{name}.ffn", BEAM, width, middle),
        ]
    found.append(_linear("output", BEAM, width, VOCABULARY, bias=False))
    return tuple(found)
