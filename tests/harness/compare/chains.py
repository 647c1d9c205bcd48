"""Small models for comparisons: chains of convolutions as ONNX and TFLite files, and files that fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["chain", "crashes_when_run"]


def chain(path: Path, layers: int, channels: int = 8) -> Path:
    """Write a chain of equal convolutions, all with the same weights."""
    weight = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)).astype(np.float32) / 9
    nodes = [
        helper.make_node("Conv", [f"x{number}", "w"], [f"x{number + 1}"], pads=[1, 1, 1, 1]) for number in range(layers)
    ]
    shape = [1, channels, 16, 16]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    _save(graph, path)
    return path


def crashes_when_run(path: Path) -> Path:
    """Write a model that is a valid file, but whose operator the runtime does not have."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "broken", ends[:1], ends[1:])
    _save(graph, path)
    return path


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
