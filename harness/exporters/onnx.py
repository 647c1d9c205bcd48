"""The ONNX exporter, which uses PyTorch's trace-based exporter."""

from __future__ import annotations

import warnings
from collections import Counter
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ONNXExporter"]

OPSET = 17
"""The operator set's version: old enough for older devices' runtimes; it has all operators of the built-in spaces."""


class ONNXExporter(Exporter):
    """The exporter of `*.onnx` files with a constant batch size, folded batch norms and fp32 weights.

    `dynamo=False`, because the newer exporter takes ten times as long for the same graph.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    runtime: ClassVar[str] = "onnxruntime"

    @property
    def version(self) -> str:
        return f"latlab {FILES_SINCE}, torch {version('torch')}, onnx {version('onnx')}, opset {OPSET}"

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        import onnx
        import torch
        from torch.onnx.errors import UnsupportedOperatorError

        from latlab.harness.exporters.tracing import onnx_shortcuts

        examples = example if isinstance(example, tuple) else (example,)
        names = ["input"] if len(examples) == 1 else [f"input_{place}" for place in range(len(examples))]
        content = BytesIO()
        with torch.no_grad(), warnings.catch_warnings(), onnx_shortcuts():
            # The exporter warns that it is deprecated, and tracing warns that sizes become constants.
            warnings.simplefilter("ignore")
            try:
                torch.onnx.export(
                    module,
                    examples,
                    content,  # type: ignore[arg-type]  # the trace-based exporter takes a file, too
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=names,
                    output_names=["output"],
                )
            except UnsupportedOperatorError as error:
                raise ExportError("unsupported_op", " ".join(str(error).split())[:300]) from error
        path.write_bytes(content.getbuffer())
        nodes = onnx.load_model_from_string(content.getvalue()).graph.node
        return dict(sorted(Counter(node.op_type for node in nodes).items()))
