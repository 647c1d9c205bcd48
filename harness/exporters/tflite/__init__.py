"""The TFLite exporter. It writes the file directly: fx trace, folding of batch norms, NHWC, flatbuffer.

`trace.py` turns the module into nodes. `lowering.py` walks them and calls one function per operator
(`conv_pool_ops.py`, `elementwise.py`, `shape_ops.py`), which adds to a `Graph` (`graph.py`). `flatbuffer.py` serialises
the graph. For other precisions than fp32 the graph is changed before: `half_precision.py` for fp16; for int8
`integer_form.py` (operators that delegates have in int8), `calibration.py` (ranges) and `quantization.py`.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latlab.harness.exporters.tflite.graph import Graph

__all__ = ["TFLiteExporter"]


class TFLiteExporter(Exporter):
    """The exporter of `*.tflite` files with NHWC inputs and outputs.

    fp16 files have float32 inputs and outputs, and float16 weights. int8 files have int8 inputs and outputs: a float
    image would need an operator that the fp32 network does not have and that the Edge TPU leaves to the CPU. As with
    fp32, making numbers from the bytes of a picture is then not part of the latency.
    """

    name: ClassVar[str] = "tflite"
    suffix: ClassVar[str] = ".tflite"
    runtime: ClassVar[str] = "tflite"
    channels_last: ClassVar[bool] = True
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    layered: ClassVar[str] = "latlab.harness.exporters.layers.tflite:LayeredTFLite"

    @property
    def version(self) -> str:
        return f"latlab {FILES_SINCE}, ai-edge-litert {version('ai-edge-litert')} (schema)"

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        import torch

        from latlab.harness.exporters.tflite.flatbuffer import serialize
        from latlab.harness.exporters.tflite.lowering import lower

        if isinstance(example, tuple):
            raise ExportError("unsupported_op", "the TFLite writer supports one input only")
        if example.dtype != torch.float32:
            raise ExportError("unsupported_op", f"the TFLite writer does not support inputs of {example.dtype}")
        with torch.no_grad():
            graph = lower(module, tuple(example.shape))
            path.write_bytes(serialize(graph))
        return graph.histogram()

    def export_in(self, precision: str, module: nn.Module, example: Tensor, path: Path) -> dict[str, int]:
        import torch

        from latlab.harness.exporters.tflite.flatbuffer import serialize
        from latlab.harness.exporters.tflite.half_precision import store_as_half
        from latlab.harness.exporters.tflite.lowering import lower

        shape = tuple(example.shape)
        with torch.no_grad():
            if precision == "int8":
                graph = _int8(module, shape)
            else:
                graph = lower(module, shape)
                _keep_names(graph)
                store_as_half(graph)
            path.write_bytes(serialize(graph))
        return graph.histogram()


def _int8(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    """Return the int8 graph of `module` for an input of `shape`.

    The ranges are measured at batch size 1, because all activations of a large batch would not fit into the memory. So
    a network has the same integers at every batch size.
    """
    from latlab.harness.exporters.calibration import calibration_images
    from latlab.harness.exporters.tflite.calibration import activation_ranges
    from latlab.harness.exporters.tflite.quantization import quantize

    graph = _integer_form(module, shape)
    measured = _integer_form(module, (1, *shape[1:])) if shape[0] > 1 else graph
    if [operator.code for operator in measured.operators] != [operator.code for operator in graph.operators]:
        measured = graph  # e.g. a module that mixes the rows of a batch
    found = activation_ranges(measured, calibration_images(shape))
    of_same_place = zip(graph.activations(), measured.activations(), strict=True)
    quantize(graph, {tensor: found[other] for tensor, other in of_same_place})
    return graph


def _integer_form(module: nn.Module, shape: tuple[int, ...]) -> Graph:
    """Return the float graph of `module` in operators that have an int8 form."""
    from latlab.harness.exporters.tflite.integer_form import to_integer_form
    from latlab.harness.exporters.tflite.lowering import lower

    graph = lower(module, shape)
    _keep_names(graph)
    to_integer_form(graph)
    return graph


def _keep_names(graph: Graph) -> None:
    """Give all tensors the names that they have in the fp32 file, by which layers are compared."""
    from latlab.harness.exporters.tflite.flatbuffer import tensor_names

    for tensor, name in tensor_names(graph).items():
        graph.tensors[tensor].name = name
