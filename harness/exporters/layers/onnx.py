"""ONNX files taken apart into their layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from latlab.harness.exporters.layers.base import Grid, LayeredFile, needed

if TYPE_CHECKING:
    from latlab.harness.exporters.layers.base import Array

__all__ = ["LayeredONNX"]

QUANTIZED = "_DequantizeLinear_Output"
"""What ONNX Runtime's tools append to the name of a tensor for its value after quantisation."""


class LayeredONNX(LayeredFile):
    """An ONNX file. The tools that make fp16 and int8 files keep the names of the float32 file's tensors."""

    def __init__(self, path: Path, precision: str) -> None:
        self.holds = "fp16" if precision == "fp16" else "fp32"  # what int8 leaves as floats is float32
        self._model = onnx.load(path)
        graph = self._model.graph
        self.source = graph.input[0].name
        self._half = precision == "fp16"
        self._producers = {
            output: (number, list(node.input)) for number, node in enumerate(graph.node) for output in node.output
        }
        helpers = ("QuantizeLinear", "DequantizeLinear", "Constant", "Shape")
        self.tensors = tuple(node.output[0] for node in graph.node if node.op_type not in helpers)
        if precision == "fp32":  # leave out shapes, which are integers
            kinds = {
                value.name: value.type.tensor_type.elem_type
                for value in onnx.shape_inference.infer_shapes(self._model).graph.value_info
            }
            self.tensors = tuple(
                name for name in self.tensors if kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT
            )
        outputs = [output.name for output in graph.output]
        # The graph's own output of an int8 file comes from a DequantizeLinear.
        self.tensors += tuple(name for name in outputs if name not in self.tensors)
        small = [one for one in graph.initializer if not one.dims]  # among them the scales and zero points
        self._weights = {one.name: numpy_helper.to_array(one) for one in small}
        self._float = {self.source, *outputs}

    def part(
        self, outputs: Sequence[str], given: Collection[str]
    ) -> tuple[tuple[str, ...], Callable[[Mapping[str, Array]], list[Array]]]:
        graph = self._model.graph
        numbers, used = needed(outputs, given, self._producers)
        inputs = {name: f"given_{name}" for name in used}
        nodes = [_copy(graph.node[number], inputs) for number in sorted(numbers)]
        results = {}
        for name in outputs:
            quantized, results[name] = self._quantized(name)
            nodes += quantized
        read = {name for node in nodes for name in node.input}
        part = helper.make_graph(
            nodes,
            "part",
            [helper.make_tensor_value_info(inputs[name], self._type(name), None) for name in used],
            [helper.make_tensor_value_info(result, self._type(name), None) for name, result in results.items()],
            [weights for weights in graph.initializer if weights.name in read],
        )
        model = helper.make_model(part, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        session = _session(model.SerializeToString())

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and fails
                feed = {inputs[name]: arrays[name].astype(self._dtype(name)) for name in used}
            return [array.astype(np.float32) for array in session.run(list(results.values()), feed)]

        return used, run

    def grid(self, name: str) -> Grid | None:
        producer = self._producers.get(name + QUANTIZED) or self._producers.get(name)
        if producer is None or self._model.graph.node[producer[0]].op_type != "DequantizeLinear":
            return None
        reads = producer[1]
        scale, zero_point = (self._weights[one] for one in reads[1:])
        limits = np.iinfo(zero_point.dtype)
        step, zero = float(scale), int(zero_point)
        return Grid(step, (limits.min - zero) * step, (limits.max - zero) * step)

    def _quantized(self, name: str) -> tuple[list[onnx.NodeProto], str]:
        """Return the operators that quantise the computed value of a tensor as the file does, and their result's name.

        They are copies: the file's own ones may read the given value of the tensor in the same part.
        """
        if name + QUANTIZED not in self._producers:
            return [], name
        back = self._model.graph.node[self._producers[name + QUANTIZED][0]]
        there = self._model.graph.node[self._producers[back.input[0]][0]]
        copies = [_copy(there, {}), _copy(back, {back.input[0]: "integers_" + name})]
        for node in copies:
            node.name = f"result_{node.name}"
        copies[0].output[:], copies[1].output[:] = ["integers_" + name], ["result_" + name]
        return copies, "result_" + name

    def _dtype(self, name: str) -> type[np.floating[Any]]:
        return np.float16 if self._type(name) == TensorProto.FLOAT16 else np.float32

    def _type(self, name: str) -> int:
        return int(TensorProto.FLOAT16 if self._half and name not in self._float else TensorProto.FLOAT)


def _copy(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.input[:] = [renamed.get(name, name) for name in node.input]
    return copied


def _session(content: bytes) -> Any:
    """Return an ONNX Runtime session on the CPU with one thread. `runtimes.open` would want the shapes in the file."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
