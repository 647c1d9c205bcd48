"""Reads ONNX files: inputs, operators, weights, precision, and files beside the model's own."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription, Sidecar, TensorInfo
from latlab.harness.models.onnx_graph import OnnxGraph, drop_weights, dtype_name, macs_of, precision_of, ranges_of

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["describe_onnx", "is_onnx", "portable"]

_STANDARD = ("", "ai.onnx")
"""The names of the domain of the standard's own operators."""
_NO_NAMES = ("", "?", "-1", "None", "none", "unknown")
"""What writers put in the place of a name that they do not know."""
MOST_ELEMENTS = 1 << 50
"""Most weights, and multiplications, that are believed: a file that speaks of more is damaged."""
MOST_BYTES = (2 << 30) - 1
"""Most bytes of one ONNX file: protobuf takes no more."""


def is_onnx(head: bytes) -> bool:
    """Return whether a file that begins with `head` may be an ONNX file.

    A protobuf message has no signature. Writers begin with the field `ir_version` (tag 8, a small number), which is
    followed by the tag of another field of `ModelProto`.
    """
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] < 100 and head[2] & 7 in (0, 2) and head[2] >> 3 <= 25


def describe_onnx(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ModelDescription:
    """Return what an ONNX file says.

    Args:
        path: the file.
        shapes: shapes of inputs, by name, to count multiplications for; None for those that the file declares.

    Raises:
        BadInputError: if it is no ONNX file, or a file beside it is missing or lies elsewhere.
    """
    try:
        return _describe(path, shapes or {})
    except BadInputError:
        raise
    except Exception as error:  # a file may parse and make no sense all the same: nodes without inputs, say
        raise BadInputError(f"{path} is not an ONNX file, or is damaged") from error


def _describe(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ModelDescription:
    model = _load(path)
    sidecars = _sidecars(path, model)
    parameters = sum(_elements(tensor) for tensor in _weights(model.graph))
    drop_weights(model)
    graph = OnnxGraph(model, shapes)
    high = ranges_of(graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    optional = {value.name for value in model.graph.input if value.name in weights}
    inputs = [_tensor(value) for value in model.graph.input if value.name not in optional]
    macs, missing = macs_of(graph)
    outputs = [_tensor(value) for value in model.graph.output]
    operators = dict(sorted(Counter(_operator(node) for node in graph.nodes).items()))
    if not all(isinstance(name, str) for name in (*operators, *(one.name for one in (*inputs, *outputs)))):
        raise ValueError("a name is not UTF-8")
    if max(parameters, macs) > MOST_ELEMENTS:
        raise ValueError("more weights than any file holds")
    precision, detail = precision_of(graph)
    opsets = ", ".join(
        f"{one.domain + ' ' if one.domain not in _STANDARD else ''}opset {one.version}" for one in model.opset_import
    )
    producer = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    notes = (
        [f"multiplications of {missing} are not counted: shapes that they depend on are not known"] if missing else []
    )
    if any(node.op_type in ("Loop", "Scan", "If") for node in graph.nodes):
        notes.append("control flow: a loop's body is counted once, and each branch too")
    return ModelDescription(
        path=path,
        format="onnx",
        version=f"{opsets}, IR {model.ir_version}{f', by {producer}' if producer else ''}",
        size_bytes=path.stat().st_size + sum(one.size_bytes for one in sidecars),
        inputs=tuple(replace(one, high=high.get(one.name)) for one in inputs),
        outputs=tuple(outputs),
        operators=operators,
        parameters=parameters,
        macs=None if missing else macs,
        precision=precision,
        precision_detail=detail,
        sidecars=sidecars,
        notes=notes,
    )


def portable(path: Path) -> bytes | None:
    """Return the model as one file that runs anywhere; None if it is one already.

    Weights in files beside it become part of it. Open sides of inputs that are stored as 0, which ONNX Runtime takes
    for a length of 0, become open.

    Raises:
        BadInputError: as `describe_onnx`; or if one file cannot hold all weights.
    """
    model = _load(path)
    sidecars = _sidecars(path, model)
    zeros = [
        side
        for value in (*model.graph.input, *model.graph.output)
        for side in value.type.tensor_type.shape.dim
        if side.HasField("dim_value") and side.dim_value == 0
    ]
    if not sidecars and not zeros:
        return None
    for side in zeros:
        side.ClearField("dim_value")
    if sum(one.size_bytes for one in sidecars) + path.stat().st_size > MOST_BYTES:
        raise BadInputError(
            f"{path} and its weights take more than 2 GB, which one ONNX file cannot hold",
            "Export it in lower precision, or in parts.",
        )
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            _bring_in(path, tensor)
    return bytes(model.SerializeToString(deterministic=True))


def _bring_in(path: Path, tensor: TensorProto) -> None:
    """Put the values of a weight, whose place `_sidecars` has checked, into the model."""
    where, offset, length = _place(path, tensor)
    try:
        with (path.parent / where).open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read() if length is None else file.read(length)
    except OSError as error:
        raise BadInputError(f"cannot read the weights of {path}: {error.strerror}") from error
    del tensor.external_data[:]
    tensor.data_location = tensor.DEFAULT


def _place(path: Path, tensor: TensorProto) -> tuple[str, int, int | None]:
    """Return the file of a weight's values, the first byte there, and their number (None: up to the end)."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where, offset, length = entries.get("location", ""), entries.get("offset") or "0", entries.get("length") or None
    if any(not re.fullmatch("[0-9]{1,18}", text) for text in (offset, length or "0")) or "\0" in where:
        raise BadInputError(f"{path} is damaged: the place of the weight {tensor.name[:100]!r} cannot be right")
    return where, int(offset), None if length is None else int(length)


def _load(path: Path) -> ModelProto:
    import onnx

    try:
        model = onnx.load(path, load_external_data=False, format="protobuf")
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise BadInputError(f"{path} is not an ONNX file, or is damaged") from error
    if not model.graph.node and not model.graph.output:
        raise BadInputError(f"{path} is not an ONNX file, or is damaged: it has no graph")
    return model


def _sidecars(path: Path, model: ModelProto) -> list[Sidecar]:
    """Return the files beside the model's own that hold weights. Raises `BadInputError` for one that cannot be used."""
    found: dict[str, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        where, offset, length = _place(path, tensor)
        found[where] = max(found.get(where, 0), offset + (length or 0))
    folder = path.resolve().parent
    sidecars = []
    for where, end in found.items():
        beside = path.parent / where
        if not where or Path(where).is_absolute() or not beside.resolve().is_relative_to(folder):
            raise BadInputError(
                f"{path} asks for weights in {where!r}, which is outside its own folder",
                "A model may only name files beside it: save it again with its weights beside it.",
            )
        if not beside.is_file():
            raise BadInputError(
                f"{path} keeps its weights in {where}, which is not beside it",
                f"Put {where} into {path.parent}, or save the model again as one file "
                "(torch.onnx.export(..., external_data=False)).",
            )
        size = beside.stat().st_size
        if size < end:
            raise BadInputError(f"{beside} is cut short: it has {size} bytes, and {path.name} reads up to byte {end}")
        sidecars.append(Sidecar(beside, size))
    return sidecars


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield all constant tensors: of the graph, of its subgraphs, and of functions."""
    yield from _weights(model.graph)
    for function in model.functions:
        yield from _constants(function.node)


def _weights(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from (tensor for sparse in graph.sparse_initializer for tensor in (sparse.values, sparse.indices))
    yield from _constants(graph.node)


def _constants(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
        yield from _weights(graph)


def _elements(tensor: TensorProto) -> int:
    if any(side < 0 for side in tensor.dims):
        raise ValueError("a weight has a negative side")
    return min(int(math.prod(tensor.dims)), MOST_ELEMENTS + 1)


def _operator(node: NodeProto) -> str:
    return node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"


def _tensor(value: ValueInfoProto) -> TensorInfo:
    """Return a graph's input or output. An open side may be a name, nothing, 0 or -1."""

    if value.type.WhichOneof("value") != "tensor_type":
        return TensorInfo(value.name, None, None, kind=_type_text(value.type))
    tensor = value.type.tensor_type
    dtype = dtype_name(tensor.elem_type)
    if not tensor.HasField("shape"):
        return TensorInfo(value.name, None, dtype)
    sides = tuple(
        side.dim_value if side.dim_value > 0 else None if side.dim_param in _NO_NAMES else side.dim_param
        for side in tensor.shape.dim
    )
    return TensorInfo(value.name, sides, dtype)


def _type_text(kind: Any) -> str:
    """Return a type that is no tensor in ONNX Runtime's words, e.g. `seq(tensor(float32))`."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return f"tensor({dtype_name(kind.tensor_type.elem_type)})"
    if which in ("sequence_type", "optional_type"):
        inner = getattr(kind, which).elem_type
        return f"{'seq' if which == 'sequence_type' else 'optional'}({_type_text(inner)})"
    return {"map_type": "map", "sparse_tensor_type": "sparse tensor"}.get(which or "", "untyped value")
