"""The contract of a format's cutter: a `LayeredFile` is a file of which any part can be run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Grid", "LayeredFile", "needed"]


class Grid(NamedTuple):
    """Evenly spaced numbers: those that a quantised tensor can hold."""

    step: float
    low: float
    high: float


class LayeredFile(ABC):
    """A model file whose tensors have the names that they have in the fp32 file of the same network.

    Args:
        path: a file of one input.
        precision: its precision.
    """

    tensors: tuple[str, ...]
    """Names of the operators' outputs that have a name of this kind, in order of execution."""
    source: str
    """Name of the input."""
    holds: str
    """The precision of floating-point tensors between layers: `fp32`, `fp16` or `bf16`."""

    @abstractmethod
    def __init__(self, path: Path, precision: str) -> None: ...

    @abstractmethod
    def part(
        self, outputs: Sequence[str], given: Collection[str]
    ) -> tuple[tuple[str, ...], Callable[[Mapping[str, Array]], list[Array]]]:
        """Return the part of the file that computes `outputs` from those of `given` that they need directly.

        Returns:
            The names of the tensors that it needs, and a function that runs it in the format's runtime, from float32
            arrays by name to the outputs as float32 arrays. Both are in the file's layout.

        Raises:
            AgentError: the runtime does not take it.
        """

    def encoded(self, name: str, array: Array) -> Array:
        """Return float32 values of an input of the file as the file takes them."""
        return array

    def decoded_outputs(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs of the file, in its own order, as float32."""
        return list(arrays)

    def grid(self, name: str) -> Grid | None:
        """Return the numbers that a tensor of integers can hold, or None for a floating-point tensor."""
        return None


def needed(
    outputs: Sequence[str], given: Collection[str], producers: Mapping[str, tuple[int, Sequence[str]]]
) -> tuple[set[int], tuple[str, ...]]:
    """Return the operators that compute `outputs` from `given`, and the names of those of `given` that they read.

    Args:
        outputs: names of tensors, each computed even if it is in `given`.
        given: names of tensors that need not be computed.
        producers: for each tensor that an operator computes, that operator's number and the names of its inputs.
    """
    operators: set[int] = set()
    used: dict[str, None] = {}
    waiting = list(outputs)
    while waiting:
        number, inputs = producers[waiting.pop()]
        if number in operators:
            continue
        operators.add(number)
        for name in inputs:
            if name in given:
                used[name] = None
            elif name in producers:
                waiting.append(name)
    return operators, tuple(used)
