"""Layers of HAT's encoders and decoders, as HAT measures them (its `latency_dataset.py` and `transformer_super.py`).

A dummy sentence of `TOKENS` tokens goes through the encoder at once. The decoder then makes `TOKENS` tokens one by one,
for `BEAM` hypotheses side by side; keys and values of earlier tokens are kept, and those of the encoder's output are
computed at the first step only.

`step_layers` are those of the mean step, `decoder_layers` those of the whole sentence.

In these layers sizes are always 1, and the channels of a layer are all the elements of its input or output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from latlab.search_spaces.layers import Layer

__all__ = [
    "ATTENTION",
    "BEAM",
    "TOKENS",
    "VOCABULARY",
    "decoder_layers",
    "encoder_layers",
    "step_layers",
    "transformer_layers",
]

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


def step_layers(
    encoder_width: int,
    width: int,
    middles: Sequence[int],
    heads: Sequence[int],
    cross_heads: Sequence[int],
    attended: Sequence[int],
    kept: int = KEPT,
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
        kept: number of tokens that the step attends to.
    """
    found: list[Layer] = []
    for place, (middle, own, cross, last) in enumerate(zip(middles, heads, cross_heads, attended, strict=True), 1):
        name = f"layer{place}"
        found += [
            _linear(f"{name}.self.qkv", BEAM, width, 3 * ATTENTION),
            *_attention(f"{name}.self", BEAM, kept, BEAM, own, width),
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


def decoder_layers(
    encoder_width: int,
    width: int,
    middles: Sequence[int],
    heads: Sequence[int],
    cross_heads: Sequence[int],
    attended: Sequence[int],
) -> tuple[Layer, ...]:
    """Return the layers of the generation of a sentence, as `decoder.py` executes it, each once for all its steps.

    A layer has the costs of all steps together, but its parameters once. That later steps read them again is counted
    among its inputs. The arguments are those of `step_layers`.
    """
    found: list[Layer] = []
    for last in sorted(set(attended)):
        copied = BEAM * TOKENS * last * encoder_width
        found.append(_layer(f"encoder{last}.repeat", "shuffle", copied, copied))
    for place, last in enumerate(attended, start=1):
        rows = BEAM * TOKENS * last
        for part in ("key", "value"):
            name = f"layer{place}.cross.{part}"
            found.append(_linear(name, rows, encoder_width, ATTENTION))
            found.append(_layer(f"{name}.by_head", "shuffle", rows * ATTENTION, rows * ATTENTION))
    tokens, states = TOKENS * BEAM, TOKENS * BEAM * width
    found += [
        _layer("token.next", "argmax", tokens * VOCABULARY, tokens),
        _layer("token.embedding", "embedding", states, states),
        _layer("token.position", "add", states, states),
    ]
    # Costs are linear in the number of tokens kept, and 1 + 2 + ... + 30 is 15 x (15 + 16).
    parts = (encoder_width, width, middles, heads, cross_heads, attended)
    halves = (step_layers(*parts, kept=TOKENS // 2), step_layers(*parts, kept=TOKENS // 2 + 1))
    for one, other in zip(*halves, strict=True):
        if not one.name.endswith(("cross.concat", "cross.key", "cross.value")):
            found.append(_in_all_steps(one, other))
        if one.name.endswith("self.qkv"):
            name, queried = one.name.removesuffix("qkv"), tokens * ATTENTION
            found.append(_layer(f"{name}query", "shuffle", queried, queried))  # by heads, out of the joint product
            kept = BEAM * ATTENTION * (TOKENS * (TOKENS + 1) // 2)
            found += [_layer(f"{name}{part}", "concat", kept, kept) for part in ("keys", "values")]
    return tuple(found)


def transformer_layers(
    encoder: Sequence[Layer], decoder: Sequence[Layer], width: int, attended: int
) -> tuple[Layer, ...]:
    """Return the layers of an encoder and a decoder that is given the outputs of the encoder's last layers.

    Args:
        encoder: layers of the encoder.
        decoder: layers of the decoder.
        width: embedding width of the encoder.
        attended: number of the encoder's layers whose outputs the decoder is given.
    """
    outputs = attended * TOKENS * width
    return (
        *(_inside("encoder", layer) for layer in encoder),
        _layer("encoder.outputs", "concat", outputs, outputs),
        *(_inside("decoder", layer) for layer in decoder),
    )


@cache
def _inside(part: str, layer: Layer) -> Layer:
    return replace(layer, name=f"{part}.{layer.name}")


def _in_all_steps(one: Layer, other: Layer) -> Layer:
    """Return a layer with the costs of half of the steps each."""
    half, params = TOKENS // 2, one.params
    inputs = half * (one.in_channels + other.in_channels) + (TOKENS - 1) * params
    outputs = half * (one.out_channels + other.out_channels)
    return _layer(one.name, one.kind, inputs, outputs, half * (one.macs + other.macs), params)
