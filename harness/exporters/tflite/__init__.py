"""The TFLite exporter. It writes the file directly: fx trace, folding of batch norms, NHWC, flatbuffer.

`trace.py` turns the module into nodes. `lowering.py` walks them and calls one function per operator
(`conv_pool_ops.py`, `elementwise.py`, `shape_ops.py`), which adds to a `Graph` (`graph.py`). `flatbuffer.py` serialises
the graph.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TFLiteExporter"]


class TFLiteExporter(Exporter):
    """The exporter of `*.tflite` files with NHWC inputs and outputs, fp32."""

    name: ClassVar[str] = "tflite"
    suffix: ClassVar[str] = ".tflite"
    runtime: ClassVar[str] = "tflite"
    channels_last: ClassVar[bool] = True

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
