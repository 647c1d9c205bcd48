"""The ONNX exporter, which uses PyTorch's trace-based exporter."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ONNXExporter"]

OPSET = 17
"""The operator set's version: old enough for older devices' runtimes; it has all operators of the built-in spaces."""


class ONNXExporter(Exporter):
    """The exporter of `*.onnx` files with a constant batch size and folded batch norms.

    A network that generates a sequence has a `Loop` over its steps (`onnx_loop.py`).

    Inputs and outputs are float32 in every precision, so that all files take the same arrays. bf16 is not among the
    precisions: ONNX Runtime has hardly any bfloat16 kernel for the CPU.

    `dynamo=False`, because the newer exporter takes ten times as long for the same graph.
    """

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    runtime: ClassVar[str] = "onnxruntime"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    layered: ClassVar[str] = "latlab.harness.exporters.layers.onnx:LayeredONNX"
    autoregressive: ClassVar[bool] = True

    @property
    def version(self) -> str:
        return f"latlab {FILES_SINCE}, torch {version('torch')}, onnx {version('onnx')}, opset {OPSET}"

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        import onnx

        from latlab.search_spaces.torch_modules import Autoregressive

        if isinstance(module, Autoregressive) and not isinstance(example, tuple):
            from latlab.harness.exporters.onnx_loop import looped

            def convert(*arguments: Any) -> Any:
                return onnx.load_model_from_string(_converted(*arguments))

            model = looped(module, example, convert)
            path.write_bytes(model.SerializeToString(deterministic=True))
            return _histogram(model)
        examples = example if isinstance(example, tuple) else (example,)
        names = ["input"] if len(examples) == 1 else [f"input_{place}" for place in range(len(examples))]
        content = _converted(module, examples, names, ["output"])
        path.write_bytes(content)
        return _histogram(onnx.load_model_from_string(content))

    def version_in(self, precision: str) -> str:
        tools = "" if precision == "fp32" else f", onnxruntime {version('onnxruntime')} (tools)"
        return self.version + tools + (", 7-bit weights" if precision == "int8" else "")

    def export_in(self, precision: str, module: nn.Module, example: Tensor, path: Path) -> dict[str, int]:
        import onnx

        from latlab.harness.exporters.calibration import calibration_images
        from latlab.harness.exporters.onnx_precisions import to_float16, to_int8
        from latlab.harness.exporters.plain_norms import plain_norms

        def float32(images: Tensor) -> Any:
            self.export(module, images, path)
            return onnx.load(path)

        if precision == "fp16":
            with plain_norms(module):
                model = to_float16(float32(example))
        else:
            shape = tuple(example.shape)
            model = to_int8(float32(example), lambda: float32(example[:1]), calibration_images(shape), shape[0])
        path.write_bytes(model.SerializeToString(deterministic=True))
        return _histogram(model)


def _converted(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: dict[str, dict[int, str]] | None = None,
) -> bytes:
    """Return `module` as an ONNX file.

    Args:
        dynamic_axes: names of axes whose size is not fixed, by the input or output and the number of the axis.
    """
    import torch
    from torch.onnx.errors import UnsupportedOperatorError

    from latlab.harness.exporters.tracing import onnx_shortcuts

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
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=dynamic_axes,
            )
        except UnsupportedOperatorError as error:
            raise ExportError("unsupported_op", " ".join(str(error).split())[:300]) from error
    return content.getvalue()


def _histogram(model: Any) -> dict[str, int]:
    return dict(sorted(Counter(_operators(model.graph)).items()))


def _operators(graph: Any) -> Iterator[str]:
    """Iterate over the operators of a graph, those in the bodies of its loops included."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)
