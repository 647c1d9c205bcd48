"""`Kernel`, what a runtime executes at once: an operator of a file with everything that is fused into it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Kernel", "convolution_kind"]

KINDS = (
    "conv", "pointwise", "depthwise", "grouped", "deconv", "linear", "matmul", "rnn",
    "pool", "reduce", "elementwise", "clip", "exponential", "softmax", "norm", "move", "resize", "cast", "view",
    "other",
)  # fmt: skip
"""Kinds of kernels. `conv` is dense with a window, `pointwise` dense without; `linear` multiplies with weights,
`matmul` two activations; `clip` are ReLU and its like, `exponential` sigmoid, GELU and their like; `move` copies values
to other places (transpose, concat, slice, gather, pad); `view` changes no value and moves none (reshape)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One execution of one operator of a file, for the input shapes that were settled."""

    kind: str
    """One of `KINDS`; in 8-bit arithmetic followed by ` int8`."""
    operator: str
    """The operator's own name in the file's format, e.g. `FusedConv`."""
    macs: int = 0
    """Multiply-accumulates; of a pool, the values that its windows cover."""
    params: int = 0
    """Number of constants that it reads: weights, biases."""
    in_elements: int = 0
    """Number of values of its inputs, constants left out."""
    out_elements: int = 0
    """Number of values of its outputs."""
    in_channels: int = 0
    """Length of the sums that give one output, without the window: channels of one group; 0 where there are none."""
    out_channels: int = 0
    """Number of different sums for one position; 0 where there are none."""
    kernel: int = 1
    """Number of positions in the window: 9 for 3 x 3."""
    steps: int = 1
    """Number of times that it starts: the length of the sequence of a recurrent layer."""
    width: int = 4
    """Bytes of one value."""

    @property
    def base(self) -> str:
        """The kind, whatever the arithmetic."""
        return self.kind.split(" ")[0]

    @property
    def read_bytes(self) -> int:
        """Bytes of all inputs, constants included."""
        return self.width * (self.in_elements + self.params)

    @property
    def written_bytes(self) -> int:
        """Bytes of all outputs."""
        return self.width * self.out_elements


def convolution_kind(in_channels: int, groups: int, window: int) -> str:
    """Return the kind of a convolution.

    Args:
        in_channels: channels of one group.
        groups: number of groups.
        window: number of positions in its window.
    """
    if groups > 1:
        return "depthwise" if in_channels == 1 else "grouped"
    return "conv" if window > 1 else "pointwise"
