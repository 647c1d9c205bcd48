"""float16 constants for a TFLite graph, in the form of TFLite's own float16 quantisation."""

from __future__ import annotations

import numpy as np

from latlab.harness.exporters.base import ExportError
from latlab.harness.exporters.tflite.graph import FLOAT32, Graph, Operator

__all__ = ["store_as_half"]


def store_as_half(graph: Graph) -> None:
    """Store all float constants of `graph` as float16, each with a DEQUANTIZE operator that makes it float32 again.

    That is what the TFLite converter writes for `target_spec.supported_types = [tf.float16]`: half the file; the CPU
    unpacks the constants once, when it loads the file, and computes in float32; a GPU computes in float16.

    Raises:
        ExportError: `unsupported_op`, if a constant is too large for float16.
    """
    unpacked: dict[int, int] = {}
    operators = []
    for operator in graph.operators:
        # PADV2's filling is the lowest float32, which float16 lacks; XNNPACK has no PADV2 anyway.
        for tensor in operator.inputs if operator.code != "PADV2" else ():
            data = graph.tensors[tensor].data
            if data is None or data.dtype != FLOAT32 or tensor in unpacked:
                continue
            with np.errstate(over="ignore"):
                half = data.astype(np.float16)
            if not np.isfinite(half[np.isfinite(data)]).all():
                raise ExportError("unsupported_op", f"a constant of {np.abs(data).max():.3g} is too large for float16")
            unpacked[tensor] = graph.tensor(data.shape)
            operators.append(Operator("DEQUANTIZE", (graph.tensor(data.shape, half),), unpacked[tensor]))
        operator.inputs = tuple(unpacked.get(tensor, tensor) for tensor in operator.inputs)
        operators.append(operator)
    graph.operators = operators
