"""Writes ONNX files node by node."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper, save


def onnx_file(
    path: Path,
    inputs: dict[str, tuple[list[int | str | None], int]],
    nodes: list[object],
    weights: list[TensorProto] | None = None,
    outputs: tuple[str, ...] = ("y",),
    output_type: int = TensorProto.FLOAT,
) -> Path:
    """Write an ONNX file.

    Args:
        inputs: shape and element type of each input, by name.
        nodes: what `onnx.helper.make_node` made.
    """
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, sides) for name, (sides, kind) in inputs.items()],
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs],
        weights or [],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
