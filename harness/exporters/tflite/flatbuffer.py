"""The writer of a `Graph` as a TFLite flatbuffer, with the schema classes that ship with ai_edge_litert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from latlab.harness.exporters.tflite.graph import Graph, Operator, TensorInfo

__all__ = ["FILE_IDENTIFIER", "AlignedBuffer", "serialize", "tensor_names"]

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
ALIGNMENT = 16
"""Alignment of constants in bytes, as the schema demands (`force_align`): runtimes map them without copying."""

OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
"""The schema's options table of each operator; operators not listed have none."""

TENSOR_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}
INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "DEQUANTIZE": 2}
"""Versions of the operators that take int8; for others it is 2."""


class AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are copied once and begin at a multiple of `ALIGNMENT`.

    The generated class aligns to 1 byte, which breaks readers that use the constants in place.
    """

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the generated classes' name)
        content = memoryview(self.data).cast("B")
        builder.StartVector(1, len(content), ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        packed: int = schema.BufferEnd(builder)
        return packed


def _version(operator: Operator, tensors: list[TensorInfo]) -> int:
    """Return the lowest version of the operator that covers this use (TensorFlow's `op_version.cc`)."""
    info = tensors[operator.inputs[0]]
    first = info.shape
    if info.data is not None and info.data.dtype == np.float16:
        return 3  # DEQUANTIZE of half precision
    int8 = info.dtype == np.int8
    if operator.code == "CONV_2D" and tensors[operator.inputs[1]].shape[3] != first[3]:
        return 6  # grouped
    if operator.code == "DEPTHWISE_CONV_2D" and operator.options.get("dilationWFactor", 1) != 1:
        return 3 if int8 else 2
    if operator.code == "FULLY_CONNECTED" and operator.options.get("keepNumDims", False):
        return 5
    if operator.code == "TRANSPOSE" and len(first) > 4:
        return 4
    if int8 and operator.code == "MUL" and _grows(operator, tensors):
        return 3
    return INT8_VERSIONS.get(operator.code, 2) if int8 else 1


def _grows(operator: Operator, tensors: list[TensorInfo]) -> bool:
    """Return true if a MUL multiplies the product of its integers by 1 or more, which its version 2 cannot."""
    a, b, out = (tensors[tensor].quantization for tensor in (*operator.inputs, operator.output))
    return bool(a and b and out and a.scales[0] * b.scales[0] >= out.scales[0])


def _array(values: Sequence[int]) -> np.ndarray:
    return np.array(values, np.int32)


def _operator(operator: Operator, code_index: int, renumbered: dict[int, int]) -> Any:
    packed = schema.OperatorT(
        opcodeIndex=code_index,
        inputs=_array([renumbered[tensor] for tensor in operator.inputs]),
        outputs=_array([renumbered[operator.output]]),
    )
    table = OPTIONS.get(operator.code)
    if table is not None:
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, table)
        packed.builtinOptions = getattr(schema, f"{table}T")(**operator.options)
    return packed


def tensor_names(graph: Graph) -> dict[int, str]:
    """Return the name in the file of each tensor that is used, in the order in which they are written."""
    names = {tensor: f"input_{i}" for i, tensor in enumerate(graph.inputs)}
    for i, operator in enumerate(graph.operators):
        for tensor in operator.inputs:
            names.setdefault(tensor, f"{operator.code.lower()}_{i}_constant_{len(names)}")
        names[operator.output] = f"{operator.code.lower()}_{i}"
    for i, tensor in enumerate(graph.outputs):
        names.setdefault(tensor, f"output_{i}")
    kept = {info.name for info in graph.tensors if info.name is not None}
    for tensor, name in names.items():
        while name in kept:  # of another tensor, which has kept the name that it has in the fp32 file
            name += "_"
        names[tensor] = graph.tensors[tensor].name or name
    return names


def _quantization(info: TensorInfo) -> Any:
    if info.quantization is None:
        return None
    scales = np.asarray(info.quantization.scales, np.float32)
    zeros = np.full(len(scales), info.quantization.zero_point, np.int64)
    return schema.QuantizationParametersT(scale=scales, zeroPoint=zeros, quantizedDimension=info.quantization.axis)


def serialize(graph: Graph) -> memoryview:
    """Return the file's bytes. The same graph gives the same bytes."""
    names = tensor_names(graph)
    renumbered = {tensor: i for i, tensor in enumerate(names)}  # only used tensors, in order of use

    buffers = [schema.BufferT()]  # buffer 0 is the empty one that activations refer to
    tensors = []
    size = 4096
    for tensor, name in names.items():
        info = graph.tensors[tensor]
        buffer = 0
        dtype = info.dtype
        if info.data is not None:
            dtype = info.data.dtype
            buffers.append(AlignedBuffer(data=np.ascontiguousarray(info.data)))
            buffer = len(buffers) - 1
            size += info.data.nbytes + 2 * ALIGNMENT
        tensors.append(
            schema.TensorT(
                shape=_array(info.shape),
                type=TENSOR_TYPES[dtype],
                buffer=buffer,
                name=name,
                quantization=_quantization(info),
                hasRank=True,
            )
        )
        size += 160 if info.quantization is None else 240 + 12 * len(info.quantization.scales)

    codes: dict[tuple[str, int], int] = {}
    operators = []
    for operator in graph.operators:
        code = codes.setdefault((operator.code, _version(operator, graph.tensors)), len(codes))
        operators.append(_operator(operator, code, renumbered))
        size += 160
    model = schema.ModelT(
        version=SCHEMA_VERSION,
        description="latlab",
        operatorCodes=[_operator_code(code, version) for code, version in codes],
        subgraphs=[
            schema.SubGraphT(
                name="main",
                tensors=tensors,
                operators=operators,
                inputs=_array([renumbered[tensor] for tensor in graph.inputs]),
                outputs=_array([renumbered[tensor] for tensor in graph.outputs]),
            )
        ],
        buffers=buffers,
    )
    # A builder that has to grow copies all of its content, so it starts large enough.
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


def _operator_code(code: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, code)
    # Readers from before 2020 know the deprecated field only. It is a byte; its value 127 refers to the new field.
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version)
