"""A TFLite graph in memory: tensors and operators, before they are written.

A value stores the shape that PyTorch gave it *and* the order in which its dimensions are stored, so that going from
NCHW to NHWC is bookkeeping: `permute` adds no operator until another operator needs a certain order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = [
    "FUSES_ACTIVATION",
    "HAS_BIAS",
    "Graph",
    "Operator",
    "Quantization",
    "TensorInfo",
    "Value",
    "channels_last",
]

Options = dict[str, int | bool]
FLOAT32 = np.dtype(np.float32)

FUSES_ACTIVATION = frozenset(
    {
        "ADD",
        "SUB",
        "MUL",
        "DIV",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
    }
)
"""Operators that can apply a ReLU or ReLU6 to their own output."""

HAS_BIAS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""Operators whose third input is added to each channel of the output."""

SHARED_BYTES = 4096
"""Equal constants of at most this many bytes are stored once. Larger ones are weights, which hardly ever repeat."""


def channels_last(rank: int) -> tuple[int, ...]:
    """Return the order in which TFLite stores dimensions: NHWC for images, PyTorch's order for everything else."""
    return (0, 2, 3, 1) if rank == 4 else tuple(range(rank))


@dataclass(frozen=True, slots=True)
class Value:
    """The result of a node of the traced graph: a tensor, and how to read it."""

    tensor: int
    """The tensor's index in `Graph.tensors`."""
    shape: tuple[int, ...]
    """The shape in PyTorch's order of dimensions."""
    order: tuple[int, ...]
    """The stored dimension `i` is PyTorch's dimension `order[i]`."""

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape in stored order."""
        return tuple(self.shape[dim] for dim in self.order)


@dataclass(frozen=True, slots=True)
class Quantization:
    """The integers of a tensor as real numbers: real = scale * (integer - zero point), for each channel or for all."""

    scales: np.ndarray
    """float32, of shape (1,) or (channels,)."""
    zero_point: int = 0
    axis: int = 0
    """The stored dimension of the channels."""


@dataclass(slots=True)
class TensorInfo:
    """A tensor of the graph: its stored shape, its type, and its content if it is a constant."""

    shape: tuple[int, ...]
    data: np.ndarray | None = None
    """The content of a constant; None for an input or an operator's output."""
    dtype: np.dtype[Any] = FLOAT32
    """The type of an input or of an operator's output; a constant has that of its content."""
    quantization: Quantization | None = None
    """What the integers mean; None for a float tensor, and for shapes and axes."""
    name: str | None = None
    """The name in the file; None to name it after the operator that computes it."""


@dataclass(slots=True)
class Operator:
    """An operator of the graph. In- and outputs are indices in `Graph.tensors`."""

    code: str
    """Its name in the schema's `BuiltinOperator`."""
    inputs: tuple[int, ...]
    output: int
    options: Options = field(default_factory=dict)


class Graph:
    """Tensors, and operators in order of execution. An operator that would repeat an earlier one reuses its output."""

    def __init__(self) -> None:
        self.tensors: list[TensorInfo] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._constants: dict[Hashable, int] = {}
        self._emitted: dict[Hashable, int] = {}
        self._producers: dict[int, Operator] = {}

    def tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """Add a tensor of stored shape `shape`, and return its index."""
        self.tensors.append(TensorInfo(shape, data))
        return len(self.tensors) - 1

    def input(self, shape: tuple[int, ...]) -> Value:
        """Add an input of the graph, with `shape` in PyTorch's order."""
        order = channels_last(len(shape))
        value = Value(self.tensor(tuple(shape[dim] for dim in order)), shape, order)
        self.inputs.append(value.tensor)
        return value

    def constant(self, array: np.ndarray) -> int:
        """Add a constant with the array's shape and dtype (float32 or int32), and return its index."""
        if array.nbytes > SHARED_BYTES:
            return self.tensor(array.shape, array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.tensor(array.shape, array)
        return self._constants[key]

    def emit(self, code: str, inputs: Sequence[int], shape: tuple[int, ...], **options: int | bool) -> int:
        """Append an operator, and return the index of its output, whose stored shape is `shape`."""
        key = (code, tuple(inputs), shape, tuple(options.items()))
        if key not in self._emitted:
            operator = Operator(code, tuple(inputs), self.tensor(shape), options)
            self.operators.append(operator)
            self._emitted[key] = operator.output
            self._producers[operator.output] = operator
        return self._emitted[key]

    def producer(self, tensor: int) -> Operator | None:
        """Return the operator that computes `tensor`, or None for inputs and constants."""
        return self._producers.get(tensor)

    def reorder(self, value: Value, order: tuple[int, ...]) -> Value:
        """Return the same value stored in `order`, with a TRANSPOSE or RESHAPE if it is stored otherwise."""
        if value.order == order:
            return value
        result = Value(value.tensor, value.shape, order)
        # Moving dimensions of size 1 moves no data.
        if [dim for dim in value.order if value.shape[dim] > 1] == [dim for dim in order if value.shape[dim] > 1]:
            return Value(self.reshape_stored(value.tensor, value.stored, result.stored), value.shape, order)
        permutation = np.array([value.order.index(dim) for dim in order], np.int32)
        tensor = self.emit("TRANSPOSE", [value.tensor, self.constant(permutation)], result.stored)
        return Value(tensor, value.shape, order)

    def reshape_stored(self, tensor: int, old: tuple[int, ...], new: tuple[int, ...]) -> int:
        """Return `tensor` with the stored shape `new`; no data move."""
        if old == new:
            return tensor
        return self.emit("RESHAPE", [tensor, self.constant(np.array(new, np.int32))], new)

    def fold_shifts(self) -> None:
        """Fold an added constant per channel into the bias of the operator before it (the +3 of a hard sigmoid)."""
        readers = self.readers()
        kept = []
        for operator in self.operators:
            producer = self.producer(operator.inputs[0])
            shift = self.tensors[operator.inputs[-1]].data
            if (
                operator.code == "ADD"
                and producer is not None
                and producer.code in HAS_BIAS
                and readers[operator.inputs[0]] == 1
                and shift is not None
                and shift.size in (1, *shift.shape[-1:])
                and self.tensors[operator.output].shape == self.tensors[operator.inputs[0]].shape
            ):
                weights, bias = producer.inputs[1], self.tensors[producer.inputs[2]].data
                assert bias is not None
                producer.inputs = (producer.inputs[0], weights, self.constant(bias + shift.reshape(-1)))
                self._replace_output(producer, operator.output)
            else:
                kept.append(operator)
        self.operators = kept

    def fuse_activations(self) -> None:
        """Fuse each ReLU and ReLU6 into the operator before it, if no other operator reads the value between them."""
        readers = self.readers()
        kept = []
        for operator in self.operators:
            producer = self.producer(operator.inputs[0])
            if (
                operator.code in ("RELU", "RELU6")
                and producer is not None
                and producer.code in FUSES_ACTIVATION
                and "fusedActivationFunction" not in producer.options
                and readers[operator.inputs[0]] == 1
            ):
                producer.options["fusedActivationFunction"] = {"RELU": 1, "RELU6": 3}[operator.code]
                self._replace_output(producer, operator.output)
            else:
                kept.append(operator)
        self.operators = kept

    def readers(self) -> Counter[int]:
        """Return how often each tensor is read, as an operator's input or as an output of the graph."""
        readers = Counter(tensor for operator in self.operators for tensor in operator.inputs)
        readers.update(self.outputs)
        return readers

    def _replace_output(self, operator: Operator, tensor: int) -> None:
        operator.output = tensor
        self._producers[tensor] = operator

    def activations(self) -> list[int]:
        """Return the inputs of the graph and the outputs of its operators, in order of execution."""
        return [*self.inputs, *(operator.output for operator in self.operators)]

    def histogram(self) -> dict[str, int]:
        """Return the number of each operator."""
        return dict(sorted(Counter(operator.code for operator in self.operators).items()))
