"""What the space of operators can choose, which choices are too large, and what each network executes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.search_spaces.layers import Layer

__all__ = ["CLASSES", "FIELDS", "FREE", "KINDS", "OUTPUT", "STRIDED", "TOKENS", "Setting", "fitting", "layers"]

KINDS = (
    "conv", "pointwise", "depthwise", "grouped", "linear", "bottleneck", "attention", "lstm", "maxpool", "avgpool",
    "add", "hswish", "silu", "gelu", "softmax", "layernorm", "batchnorm", "resize", "concat", "shuffle",
)  # fmt: skip
"""What a network repeats: one operator, or a few that are usual together."""
TOKENS = {"linear", "attention", "lstm", "softmax", "layernorm", "gelu"}
"""Kinds that work on a sequence of pixels, each a vector of channels."""
OUTPUT = {"conv", "pointwise", "grouped", "linear", "bottleneck", "lstm"}
"""Kinds for which the second number of channels means something."""
KERNELS = {"conv", "depthwise", "grouped", "bottleneck", "maxpool", "avgpool"}
STRIDED = KERNELS | {"pointwise"}
FREE = {
    kind: tuple(name for name, kinds in (("o", OUTPUT), ("k", KERNELS), ("t", STRIDED)) if kind not in kinds)
    for kind in KINDS
}
"""The letters of the choices that a kind ignores; the canonical form has the first choice there."""
CHANNELS = (8, 16, 32, 64, 128, 256, 512)
FIELDS = {
    "c": CHANNELS,
    "o": CHANNELS,
    "s": (1, 4, 7, 14, 28, 56, 112),
    "k": (3, 5, 7),
    "t": (1, 2),
    "x": (1, 2, 4),
}
"""Choices by the letter that begins them in a network's string: channels in, channels out, side of the image in pixels,
kernel, stride (of the first repetition), repetitions."""
CLASSES = 8
"""Outputs of the linear layer that ends each network."""
GROUPS = 4
MOST_ELEMENTS = 1 << 20
"""Most numbers in one activation."""
MOST_MACS = 1 << 29
"""Most multiply-accumulates: a second on the slowest device that is worth measuring."""
MOST_STEPS = 14 * 14
"""Longest sequence of an LSTM, which works step by step."""
MOST_TOKENS = 28 * 28
"""Longest sequence of an attention, whose matrix is its square."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The choices of one network, in plain numbers."""

    kind: str
    channels: int
    out_channels: int
    size: int
    kernel: int
    stride: int
    repeats: int

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each repetition."""
        return (self.stride, *(1,) * (self.repeats - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels before each repetition and after the last."""
        if self.kind not in OUTPUT or self.kind == "bottleneck":
            return (self.channels,) * (self.repeats + 1)
        return (self.channels, *(self.out_channels,) * self.repeats)


@cache
def fitting() -> NDArray[np.bool_]:
    """Return which networks are small enough to be measured: one entry for each kind and choices, by their indices."""
    sides = [len(KINDS), *(len(choices) for choices in FIELDS.values())]
    kind, *genes = np.indices(sides)
    c, o, s, k, _, x = (np.array(choices)[gene] for choices, gene in zip(FIELDS.values(), genes, strict=True))

    def among(names: set[str]) -> NDArray[np.bool_]:
        return np.asarray(np.array([name in names for name in KINDS])[kind], np.bool_)

    pixels = s * s
    widest = np.where(among(OUTPUT), np.maximum(c, o), c)
    window = np.where(among({"conv", "grouped"}), k * k, 1)
    fits = (widest * pixels <= MOST_ELEMENTS) & (c * widest * pixels * window * x <= MOST_MACS)
    fits &= ~among({"lstm"}) | (pixels <= MOST_STEPS)
    fits &= ~among({"attention"}) | ((pixels <= MOST_TOKENS) & (c * pixels**2 * x <= MOST_MACS))
    fits &= ~among({"resize"}) | (4**x * widest * pixels <= MOST_ELEMENTS)
    return np.asarray(fits, np.bool_)


@cache
def _layer(
    name: str, kind: str, c: int, o: int, size: int, out_size: int, macs: int = 0, params: int = 0,
    kernel: int = 1, stride: int = 1, groups: int = 1,
) -> Layer:  # fmt: skip
    return Layer(name, kind, kernel, stride, groups, c, o, size, out_size, macs, params)


def _conv(name: str, c: int, o: int, size: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Layer:
    kind = "depthwise" if groups == c == o > 1 else "conv" if kernel > 1 else "pointwise"
    out, weights = -(-size // stride), o * (c // groups) * kernel**2
    return _layer(name, kind, c, o, size, out, weights * out**2, weights + o, kernel, stride, groups)


def _linear(name: str, c: int, o: int, size: int) -> Layer:
    return _layer(name, "linear", c, o, size, size, c * o * size**2, c * o + o)


def _same(name: str, kind: str, c: int, size: int, params: int = 0) -> Layer:
    return _layer(name, kind, c, c, size, size, params=params)


def _attention(name: str, c: int, size: int) -> list[Layer]:
    """Return a self-attention with a residual; its heads have 32 channels, or all there are."""
    heads, tokens = max(c // 32, 1), size**2
    macs = tokens**2 * c
    # Matrices of attention have one row per head and token; as an image of one pixel they fit a layer.
    scores = heads * tokens**2
    rows = [_linear(f"{name}.{part}", c, c, size) for part in ("q", "k", "v")]
    rows.append(_layer(f"{name}.scores", "matmul", 2 * c * tokens, scores, 1, 1, macs))
    rows.append(_layer(f"{name}.softmax", "softmax", scores, scores, 1, 1))
    rows.append(_layer(f"{name}.mix", "matmul", scores + c * tokens, c * tokens, 1, 1, macs))
    if heads > 1 and tokens > 1:
        rows.append(_same(f"{name}.join", "shuffle", c, size))
    return [*rows, _linear(f"{name}.out", c, c, size), _same(f"{name}.add", "add", c, size)]


def _block(name: str, one: Setting, c: int, o: int, size: int, stride: int) -> list[Layer]:
    """Return the layers of one repetition."""
    kind, kernel, out = one.kind, one.kernel, -(-size // stride)
    if kind in ("conv", "pointwise", "depthwise", "grouped"):
        groups = {"depthwise": c, "grouped": GROUPS}.get(kind, 1)
        made = _conv(f"{name}.conv", c, o, size, 1 if kind == "pointwise" else kernel, stride, groups)
        return [made, _same(f"{name}.relu", "relu", o, out)]
    if kind == "linear":
        return [_linear(f"{name}.linear", c, o, size), _same(f"{name}.relu", "relu", o, size)]
    if kind == "bottleneck":
        middle = one.out_channels
        rows = [
            _conv(f"{name}.expand", c, middle, size),
            _same(f"{name}.hswish1", "hswish", middle, size),
            _conv(f"{name}.depthwise", middle, middle, size, kernel, stride, middle),
            _same(f"{name}.hswish2", "hswish", middle, out),
            _conv(f"{name}.project", middle, c, out),
        ]
        return rows if stride > 1 else [*rows, _same(f"{name}.add", "add", c, size)]
    if kind == "attention":
        return _attention(name, c, size)
    if kind == "lstm":
        gates = 4 * o * (c + o)
        return [_layer(f"{name}.lstm", "lstm", c, o, size, size, gates * size**2, gates + 8 * o)]
    if kind in ("maxpool", "avgpool"):
        return [_layer(f"{name}.pool", "pool", c, c, size, out, kernel=kernel, stride=stride)]
    if kind == "add":
        return [_same(f"{name}.relu", "relu", c, size), _same(f"{name}.add", "add", c, size)]
    if kind == "hswish":
        return [_same(f"{name}.hswish", "hswish", c, size)]
    if kind == "silu":
        return [_same(f"{name}.sigmoid", "sigmoid", c, size), _same(f"{name}.mul", "mul", c, size)]
    if kind == "gelu":
        return [_same(f"{name}.gelu", "gelu", c, size)]
    if kind == "softmax":
        return [_same(f"{name}.softmax", "softmax", c, size), _same(f"{name}.add", "add", c, size)]
    if kind == "layernorm":
        return [_same(f"{name}.norm", "layernorm", c, size, 2 * c)]
    if kind == "batchnorm":
        return [_same(f"{name}.norm", "batchnorm", c, size, 2 * c), _same(f"{name}.relu", "relu", c, size)]
    if kind == "resize":
        return [_layer(f"{name}.resize", "resize", c, c, size, 2 * size)]
    if kind == "concat":
        joined = _layer(f"{name}.concat", "concat", c, 2 * c, size, size)
        return [_same(f"{name}.relu", "relu", c, size), joined, _conv(f"{name}.conv", 2 * c, c, size)]
    return [_same(f"{name}.shuffle", "shuffle", c, size)]


@cache
def layers(one: Setting) -> tuple[Layer, ...]:
    """Return what a network executes: its repetitions, the mean over all pixels, and a linear layer."""
    size = one.size
    rows: list[Layer] = []
    if one.kind in TOKENS and size > 1:
        rows.append(_same("tokens", "shuffle", one.channels, size))
    for number, (c, o, stride) in enumerate(zip(one.widths, one.widths[1:], one.strides, strict=False)):
        rows += _block(f"block{number}", one, c, o, size, stride)
        size = rows[-1].out_size if one.kind != "attention" else size
    width = one.widths[-1]
    rows.append(_layer("mean", "mean", width, width, size, 1, kernel=size))
    rows.append(_linear("head", width, CLASSES, 1))
    return tuple(rows)
