"""TFLite files taken apart into their layers."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from latlab.agents import runtimes
from latlab.harness.exporters.layers.base import Grid, LayeredFile, needed
from latlab.harness.exporters.tflite.flatbuffer import FILE_IDENTIFIER, AlignedBuffer

if TYPE_CHECKING:
    from latlab.harness.exporters.layers.base import Array

__all__ = ["LayeredTFLite"]


class LayeredTFLite(LayeredFile):
    """A TFLite file of one subgraph, as latlab's exporter names its tensors."""

    def __init__(self, path: Path, precision: str) -> None:
        self.holds = "fp32"  # in fp16 only the constants are float16
        self._model: Any = schema.ModelT.InitFromPackedBuf(bytearray(path.read_bytes()), 0)
        self._graph: Any = self._model.subgraphs[0]
        self._names = [tensor.name.decode() for tensor in self._graph.tensors]
        outputs = [int(operator.outputs[0]) for operator in self._graph.operators]
        self._index = {self._names[tensor]: tensor for tensor in (*(int(t) for t in self._graph.inputs), *outputs)}
        self.source = self._names[int(self._graph.inputs[0])]
        self._outputs = tuple(self._names[int(tensor)] for tensor in self._graph.outputs)
        self.tensors = tuple(self._names[tensor] for tensor in outputs)
        self._producers = {
            self._names[int(operator.outputs[0])]: (number, [self._names[int(tensor)] for tensor in operator.inputs])
            for number, operator in enumerate(self._graph.operators)
        }

    def part(
        self, outputs: Sequence[str], given: Collection[str]
    ) -> tuple[tuple[str, ...], Callable[[Mapping[str, Array]], list[Array]]]:
        numbers, used = needed(outputs, given, self._producers)
        graph = copy.copy(self._graph)
        # A tensor that is given to some operators may be computed by another one: it gets a twin that is an input.
        twins = {self._index[name]: len(graph.tensors) + i for i, name in enumerate(used)}
        graph.tensors = [*graph.tensors, *(self._twin(tensor) for tensor in twins)]
        graph.inputs = np.array([twins[self._index[name]] for name in used], np.int32)
        graph.outputs = np.array([self._index[name] for name in outputs], np.int32)
        graph.operators = []
        for number in sorted(numbers):
            operator = copy.copy(self._graph.operators[number])
            operator.inputs = np.array([twins.get(int(tensor), int(tensor)) for tensor in operator.inputs], np.int32)
            graph.operators.append(operator)
        content = self._serialize(graph)

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            session.set_inputs([self.encoded(name, arrays[name]) for name in used])
            session.invoke()
            return [self._decoded(name, array) for name, array in zip(outputs, session.outputs(), strict=True)]

        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            Path(file.name).write_bytes(content)
            session = runtimes.open("tflite", file.name)
        return used, run

    def decoded_outputs(self, arrays: Sequence[Array]) -> list[Array]:
        return [self._decoded(name, array) for name, array in zip(self._outputs, arrays, strict=True)]

    def grid(self, name: str) -> Grid | None:
        quantization = self._quantization(name)
        if quantization is None:
            return None
        step, zero_point = quantization
        return Grid(step, (-128 - zero_point) * step, (127 - zero_point) * step)

    def _twin(self, tensor: int) -> Any:
        twin = copy.copy(self._graph.tensors[tensor])
        twin.name = b"given_" + twin.name
        return twin

    def _serialize(self, graph: Any) -> bytes:
        read = {
            self._graph.tensors[int(t)].buffer
            for operator in graph.operators
            for t in operator.inputs
            if int(t) < len(self._graph.tensors)
        }
        model = copy.copy(self._model)
        model.subgraphs = [graph]
        model.buffers = [
            AlignedBuffer(data=np.asarray(buffer.data, np.uint8))
            if buffer.data is not None and number in read
            else schema.BufferT()
            for number, buffer in enumerate(self._model.buffers)
        ]
        size = sum(buffer.data.nbytes for buffer in model.buffers if buffer.data is not None)
        builder = flatbuffers.Builder(size + 512 * (len(graph.tensors) + len(graph.operators)))
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _quantization(self, name: str) -> tuple[float, int] | None:
        found = self._graph.tensors[self._index[name]].quantization
        if found is None or found.scale is None or not len(found.scale):
            return None
        return float(found.scale[0]), int(found.zeroPoint[0])

    def encoded(self, name: str, array: Array) -> Array:
        quantization = self._quantization(name)
        if quantization is None:
            return array
        integers = np.round(array.astype(np.float64) / quantization[0]) + quantization[1]
        return np.clip(integers, -128, 127).astype(np.int8)

    def _decoded(self, name: str, array: Array) -> Array:
        quantization = self._quantization(name)
        if quantization is None:
            return array
        return (array.astype(np.float32) - quantization[1]) * np.float32(quantization[0])
