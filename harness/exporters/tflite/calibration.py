"""The measurement of the ranges of a TFLite graph's activations, by TFLite itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from latlab.agents import runtimes
from latlab.harness.exporters.tflite.flatbuffer import serialize
from latlab.harness.exporters.tflite.graph import Graph

__all__ = ["activation_ranges"]


def activation_ranges(graph: Graph, images: Tensor) -> dict[int, tuple[float, float]]:
    """Return the least and the greatest value of each input and each operator's output over all images.

    Args:
        graph: a float32 graph with one input.
        images: images x channels x height x width; they are repeated to fill the graph's batch.
    """
    (source,) = graph.inputs
    batch = graph.tensors[source].shape[0]
    arrays = images.numpy()
    if arrays.ndim == 4:
        arrays = np.moveaxis(arrays, 1, -1)
    tensors = [operator.output for operator in graph.operators]
    ranges = {source: (float(arrays.min()), float(arrays.max()))}
    wanted, graph.outputs = graph.outputs, tensors
    try:
        content = serialize(graph)
    finally:
        graph.outputs = wanted
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(content)
        with runtimes.open("tflite", file.name) as session:
            for first in range(0, len(arrays), batch):
                rows = np.arange(first, first + batch) % len(arrays)
                session.set_inputs([np.ascontiguousarray(arrays[rows])])
                session.invoke()
                for tensor, values in zip(tensors, session.outputs(), strict=True):
                    low, high = ranges.get(tensor, (np.inf, -np.inf))
                    ranges[tensor] = min(low, float(values.min())), max(high, float(values.max()))
    return ranges
