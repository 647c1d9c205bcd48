"""Shapes behind the fused operators of ONNX Runtime, which ONNX's own inference does not know and stops at."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from latlab.harness.models.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TypeProto

__all__ = ["complete_shapes"]

LIKE_FIRST = {
    "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "BiasSoftmax", "BiasAdd", "BiasDropout", "SkipLayerNormalization",
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "GroupNorm", "SkipGroupNorm", "QLinearAdd",
    "QLinearMul", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "LayerNormalization", "DynamicQuantizeLinear",
    "QuantizeLinear", "DequantizeLinear", "MultiHeadAttention",
}  # fmt: skip
"""Operators whose first output has the shape of their first input."""
AS = {"FusedConv": "Conv", "FusedGemm": "Gemm", "NhwcConv": "Conv"}
"""Operators that are another one with something more behind it."""


def complete_shapes(model: ModelProto, graph: OnnxGraph) -> None:
    """Add to a graph the shapes that follow from others, node by node, in the order of execution.

    Args:
        model: the model of the graph.
        graph: what ONNX's inference has found of it.
    """
    import onnx

    versions = {one.domain: one.version for one in model.opset_import}
    constants = {one.name: one for one in model.graph.initializer if one.ByteSize()}
    for node in model.graph.node:  # loops and branches stay as they are
        outputs = [name for name in node.output if name]
        if not outputs or all(graph.shape(name) is not None for name in outputs):
            continue
        shape = _of_fused(node, graph)
        if shape is not None:
            graph.learn(outputs[0], shape, _dtype(node, graph))
            continue
        with suppress(Exception):  # an operator that no schema knows: what comes behind it stays unknown, too
            plain = onnx.NodeProto()
            plain.CopyFrom(node)
            plain.op_type, plain.domain = AS.get(node.op_type, node.op_type), ""
            keep = [one for one in plain.attribute if not one.name.startswith("activation")]
            if node.op_type in AS:
                del plain.attribute[:]
                plain.attribute.extend(keep)
                del plain.input[3:]  # what is added to the result
            known = {name: _type(name, graph) for name in plain.input if name}
            data = {name: constants[name] for name in plain.input if name in constants}
            schema = onnx.defs.get_schema(plain.op_type, versions.get("", 17), "")
            opsets = [onnx.helper.make_opsetid("", versions.get("", 17))]
            found = onnx.shape_inference.infer_node_outputs(schema, plain, known, data, opset_imports=opsets)
            for name, kind in found.items():
                sides = kind.tensor_type.shape.dim
                if kind.tensor_type.HasField("shape") and all(side.dim_value > 0 for side in sides):
                    graph.learn(name, tuple(side.dim_value for side in sides), _dtype(node, graph))


def _of_fused(node: NodeProto, graph: OnnxGraph) -> tuple[int, ...] | None:
    """Return the shape of the first output of a fused operator; None for others."""
    first = graph.shape(node.input[0]) if node.input else None
    if first is None:
        return None
    if node.op_type in LIKE_FIRST:
        return first
    if node.op_type in ("FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul"):
        second = graph.shape(node.input[3 if node.op_type == "QLinearMatMul" else 1])
        if second is None or min(len(first), len(second)) < 2:
            return None
        flags = {one.name: one.i for one in node.attribute}
        a, b = first[::-1], second[::-1]  # the last side comes first
        rows, columns = a[0 if flags.get("transA") else 1], b[1 if flags.get("transB") else 0]
        with suppress(ValueError):
            return (*np.broadcast_shapes(first[:-2], second[:-2]), rows, columns)
        return None
    if node.op_type == "Attention":
        bias = graph.shape(node.input[1])
        return None if bias is None else (*first[:-1], bias[-1] // 3)
    return None


def _type(name: str, graph: OnnxGraph) -> TypeProto:
    """Return the type of a value as ONNX's inference takes it."""
    import onnx

    kind = graph.dtype(name) or "float32"
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return onnx.helper.make_tensor_type_proto(element, graph.shape(name))


def _dtype(node: NodeProto, graph: OnnxGraph) -> str:
    return next((kind for name in node.input if (kind := graph.dtype(name))), "float32")
