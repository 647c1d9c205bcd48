"""A TFLite graph in memory: tensors and operators, before they are written.

Values remember the shape that PyTorch gave them *and* the order in which their dimensions are stored, so
that NCHW becomes NHWC by bookkeeping: `permute` costs nothing until an operator needs a certain order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["FUSES_ACTIVATION", "Graph", "Operator", "TensorInfo", "Value", "channels_last"]

Options = dict[str, int | bool]

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
"""Constants up to this size are stored once however often they occur; larger ones are weights."""


def channels_last(rank: int) -> tuple[int, ...]:
    """The order in which TFLite stores dimensions: NHWC for images, as in PyTorch for everything else."""
    return (0, 2, 3, 1) if rank == 4 else tuple(range(rank))


@dataclass(frozen=True, slots=True)
class Value:
    """What a node of the traced graph becomes: a tensor, and how to read it."""

    tensor: int
    shape: tuple[int, ...]
    """In PyTorch's order of dimensions."""
    order: tuple[int, ...]
    """Stored dimension `i` is PyTorch's dimension `order[i]`."""

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape as it is stored."""
        return tuple(self.shape[dim] for dim in self.order)


@dataclass(slots=True)
class TensorInfo:
    shape: tuple[int, ...]
    data: np.ndarray | None = None
    """The content of a constant."""


@dataclass(slots=True)
class Operator:
    code: str
    """Name in the schema's `BuiltinOperator`."""
    inputs: tuple[int, ...]
    output: int
    options: Options = field(default_factory=dict)


class Graph:
    """Tensors and operators in order of execution. What would repeat an operator reuses its output."""

    def __init__(self) -> None:
        self.tensors: list[TensorInfo] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self._constants: dict[Hashable, int] = {}
        self._emitted: dict[Hashable, int] = {}
        self._producers: dict[int, Operator] = {}

    def tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        self.tensors.append(TensorInfo(shape, data))
        return len(self.tensors) - 1

    def input(self, shape: tuple[int, ...]) -> Value:
        """A new input of the graph, `shape` in PyTorch's order."""
        order = channels_last(len(shape))
        value = Value(self.tensor(tuple(shape[dim] for dim in order)), shape, order)
        self.inputs.append(value.tensor)
        return value

    def constant(self, array: np.ndarray) -> int:
        """A constant tensor, as it is to be stored (float32 or int32)."""
        if array.nbytes > SHARED_BYTES:
            return self.tensor(array.shape, array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.tensor(array.shape, array)
        return self._constants[key]

    def emit(self, code: str, inputs: Sequence[int], shape: tuple[int, ...], **options: int | bool) -> int:
        """Appends an operator; returns its output tensor of (stored) `shape`."""
        key = (code, tuple(inputs), shape, tuple(options.items()))
        if key not in self._emitted:
            operator = Operator(code, tuple(inputs), self.tensor(shape), options)
            self.operators.append(operator)
            self._emitted[key] = operator.output
            self._producers[operator.output] = operator
        return self._emitted[key]

    def producer(self, tensor: int) -> Operator | None:
        """The operator that computes `tensor`, if one does."""
        return self._producers.get(tensor)

    def reorder(self, value: Value, order: tuple[int, ...]) -> Value:
        """The same value stored in `order`; a TRANSPOSE if it is not."""
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
        """`tensor` with stored shape `new`; the data stay where they are."""
        if old == new:
            return tensor
        return self.emit("RESHAPE", [tensor, self.constant(np.array(new, np.int32))], new)

    def fold_shifts(self) -> None:
        """Moves a constant that is added to each channel into the bias before it (the +3 of a hard sigmoid)."""
        readers = self._readers()
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
        """Moves each ReLU and ReLU6 into the operator before it, where nobody else reads what is between."""
        readers = self._readers()
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

    def _readers(self) -> Counter[int]:
        readers = Counter(tensor for operator in self.operators for tensor in operator.inputs)
        readers.update(self.outputs)
        return readers

    def _replace_output(self, operator: Operator, tensor: int) -> None:
        operator.output = tensor
        self._producers[tensor] = operator

    def histogram(self) -> dict[str, int]:
        """How many of each operator."""
        return dict(sorted(Counter(operator.code for operator in self.operators).items()))
