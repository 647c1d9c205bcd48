"""Counts multiplications, and finds the precision and the ranges of integer inputs, in the graph of an ONNX file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from latlab.harness.models.description import FLOATS, PrecisionShares, target_precision

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["OnnxGraph", "drop_weights", "dtype_name", "macs_of", "precision_of", "ranges_of"]

LARGE_BYTES = 1 << 16
"""Weights of more bytes are dropped before shapes are inferred: no shape depends on their values."""
STATIC = {"QLinearConv", "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul"}
DYNAMIC = {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulIntegerToFloat"}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul", "LSTM", "GRU", "RNN"}
"""Operators that multiply and add, in floating point."""
SAME_VALUES = {
    "Cast",
    "Identity",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Flatten",
    "Transpose",
    "Slice",
    "Expand",
    "Concat",
}
"""Operators whose result consists of values of their first input."""
EMBEDDINGS = {"EmbedLayerNormalization": ((0, 2), (1, 4))}
"""Of operators that contain tables: which input indexes which other input."""
_INT8 = ("int8", "uint8")


def drop_weights(model: ModelProto) -> None:
    """Remove the values of large weights from the model; their shapes and types stay."""
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > LARGE_BYTES:
            name, kind, sides = tensor.name, tensor.data_type, list(tensor.dims)
            tensor.Clear()
            tensor.name, tensor.data_type = name, kind
            tensor.dims.extend(sides)


def dtype_name(element: int) -> str:
    """Return the numpy name of an element type of ONNX, or ONNX's own where numpy has none, e.g. `bfloat16`."""
    from onnx import TensorProto

    name = TensorProto.DataType.Name(element).lower() if element in TensorProto.DataType.values() else f"type{element}"
    return {"float": "float32", "double": "float64"}.get(name, name)


class OnnxGraph:
    """The nodes of a model and of its subgraphs, with the types and shapes of values, as far as they can be inferred.

    Args:
        model: the model; it is changed.
        shapes: shapes of inputs, by name; other open sides stay open.
    """

    def __init__(self, model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        import onnx

        for value in model.graph.input:
            if value.name in shapes and value.type.HasField("tensor_type"):
                given = onnx.helper.make_tensor_value_info(
                    value.name, value.type.tensor_type.elem_type, shapes[value.name]
                )
                value.CopyFrom(given)
        if shapes:  # what the file says of inner shapes may be of other inputs
            del model.graph.value_info[:]
            for value in model.graph.output:
                value.type.tensor_type.ClearField("shape")
        with suppress(Exception):  # a file may be stranger than the inference can take: then fewer shapes are known
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        self.nodes = list(_all_nodes(model.graph))
        self.inputs = {value.name for value in model.graph.input}
        self.producers = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        self.weights: set[str] = set()
        for graph in _all_graphs(model.graph):
            self._read(graph)

    def _read(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self._weight(tensor, tensor.name)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self._weight(attribute.t, node.output[0])
        for value in (*graph.value_info, *graph.input, *graph.output):
            if not value.type.HasField("tensor_type"):
                continue
            tensor_type = value.type.tensor_type
            self._types.setdefault(value.name, dtype_name(tensor_type.elem_type))
            if tensor_type.HasField("shape") and all(side.dim_value > 0 for side in tensor_type.shape.dim):
                self._shapes.setdefault(value.name, tuple(side.dim_value for side in tensor_type.shape.dim))

    def _weight(self, tensor: TensorProto, name: str) -> None:
        self.weights.add(name)
        self._shapes[name] = tuple(tensor.dims)
        self._types[name] = dtype_name(tensor.data_type)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a value; None if a side is open or unknown."""
        return self._shapes.get(name)

    def learn(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Note the shape of a value, and its type if that is not known."""
        self._shapes[name] = shape
        self._types.setdefault(name, dtype)

    def dtype(self, name: str) -> str | None:
        """Return the numpy name of a value's type, or None."""
        return self._types.get(name)

    def elements(self, name: str) -> int | None:
        """Return the number of elements of a value, or None."""
        shape = self.shape(name)
        return None if shape is None else math.prod(shape)


def _all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _all_graphs(inner)


def _all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for one in _all_graphs(graph):
        yield from one.node


def macs_of(graph: OnnxGraph) -> tuple[int, str]:
    """Return the multiplications with addition of one inference, and the operators that could not be counted.

    Convolutions, matrix products and recurrent layers count; what they are is as in the ONNX operator reference.
    """
    total = 0
    unknown: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type not in WEIGHTED | STATIC | DYNAMIC or node.op_type in ("QLinearAdd", "QLinearMul"):
            continue
        macs = _macs(graph, node)
        if macs is None:
            unknown[node.op_type] = unknown.get(node.op_type, 0) + 1
        else:
            total += macs
    return total, ", ".join(f"{count} x {name}" for name, count in sorted(unknown.items()))


def _macs(graph: OnnxGraph, node: NodeProto) -> int | None:
    kind = node.op_type
    weight_at = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}.get(kind, 1)
    if len(node.input) <= weight_at:
        return None
    weight, result = graph.shape(node.input[weight_at]), graph.elements(node.output[0])
    first = graph.shape(node.input[0])
    if kind in ("LSTM", "GRU", "RNN"):
        recurrent = graph.elements(node.input[2])
        if weight is None or recurrent is None or first is None:
            return None
        return first[0] * first[1] * (math.prod(weight) + recurrent)  # each step of each sequence uses all weights
    if kind == "ConvTranspose":
        return None if weight is None or first is None else math.prod(first) * math.prod(weight[1:])
    if "Conv" in kind:
        return None if weight is None or result is None else result * math.prod(weight[1:])
    if first is None or result is None or not first:
        return None
    transposed = kind in ("Gemm", "QGemm", "FusedGemm") and _attribute(node, "transA", 0)
    return result * first[0 if transposed else -1]


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def precision_of(graph: OnnxGraph) -> tuple[str, str]:
    """Return the precision of most multiplications, as a target names it and in words."""
    shares = PrecisionShares()
    for node in graph.nodes:
        found = _precision(graph, node)
        if found is not None:
            amount = _macs(graph, node) or max((graph.elements(name) or 1 for name in node.input[1:2]), default=1)
            shares.add(*found, amount)
    if not shares.amounts:  # no arithmetic with weights: what flows through the graph decides
        for node in graph.nodes:
            kind = FLOATS.get(graph.dtype(node.output[0]) or "") if node.output else None
            if kind:
                shares.add(target_precision(kind), kind, 1.0)
    return shares.conclusion()


def _precision(graph: OnnxGraph, node: NodeProto) -> tuple[str, str] | None:
    kind = node.op_type
    if kind in STATIC:
        return "int8", "int8 QOperator"
    if kind in DYNAMIC:
        return "int8", "int8 dynamic"
    if kind == "MatMulNBits":
        return "fp32", "fp32 with 4-bit weights"
    if kind not in WEIGHTED or len(node.input) < 2:
        return None
    weight = _origin(graph, node.input[1])
    data = graph.producers.get(node.input[0])
    if weight is not None and weight.op_type == "DequantizeLinear":
        bits = graph.dtype(weight.input[0])
        if data is not None and data.op_type == "DequantizeLinear" and bits in _INT8:
            return "int8", "int8 QDQ"
        floating = FLOATS.get(graph.dtype(node.output[0]) or "float32", "fp32")
        return target_precision(floating), f"{floating} with {bits or 'quantised'} weights"
    computed = FLOATS.get(graph.dtype(node.output[0]) or graph.dtype(node.input[1]) or "")
    if computed is None:
        return None
    return target_precision(computed), computed


def _origin(graph: OnnxGraph, name: str) -> NodeProto | None:
    """Return the node that makes a value, past reshapes and transpositions."""
    node = graph.producers.get(name)
    for _ in range(8):
        if node is None or node.op_type not in ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze"):
            break
        node = graph.producers.get(node.input[0])
    return node


def ranges_of(graph: OnnxGraph) -> dict[str, int]:
    """Return the greatest value of each integer input that indexes a table of known length."""
    return {
        name: min(limits) - 1
        for name in graph.inputs
        if (graph.dtype(name) or "").startswith(("int", "uint")) and (limits := list(_tables(graph, name)))
    }


def _tables(graph: OnnxGraph, name: str) -> Iterator[int]:
    """Yield the lengths of the tables that values of `name` index."""
    seen, waiting = {name}, [name]
    while waiting:
        value = waiting.pop()
        for node in graph.consumers.get(value, ()):
            for at, table in EMBEDDINGS.get(node.op_type, ()):
                shape = graph.shape(node.input[table]) if len(node.input) > table else None
                if shape and node.input[at] == value:
                    yield shape[0]
            if node.op_type == "Gather" and node.input[1] == value:
                shape = graph.shape(node.input[0])
                if shape:
                    yield shape[_attribute(node, "axis", 0)]
            passes = value == node.input[0] or node.op_type == "Concat"
            if node.op_type in SAME_VALUES and passes and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
