"""The TorchScript exporter: trace, freeze, save."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["TorchScriptExporter"]

LARGEST_HALF = 65504.0


class TorchScriptExporter(Exporter):
    """The exporter of `*.pt` files: the graph of `torch.jit.freeze(torch.jit.trace(...))`, batch norms folded.

    A network that generates a sequence is unrolled.

    In fp16 and bf16 all weights and activations have that type. Inputs and outputs stay float32, converted within the
    graph: the file takes the same arrays as the fp32 file, and numpy has no bfloat16.

    torch has deprecated TorchScript. Exports depend on it in this module only, so that torch.export can take its place.
    """

    name: ClassVar[str] = "torchscript"
    suffix: ClassVar[str] = ".pt"
    runtime: ClassVar[str] = "torchscript"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "bf16")
    layered: ClassVar[str] = "latlab.harness.exporters.layers.torchscript:LayeredTorchScript"
    autoregressive: ClassVar[bool] = True

    @property
    def version(self) -> str:
        return f"latlab {FILES_SINCE}, torch {version('torch')}"

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        return self._write(module, example if isinstance(example, tuple) else (example,), path, None)

    def export_in(self, precision: str, module: nn.Module, example: Tensor, path: Path) -> dict[str, int]:
        import torch

        from latlab.harness.exporters.plain_norms import plain_norms

        with plain_norms(module):
            return self._write(module, (example,), path, {"fp16": torch.float16, "bf16": torch.bfloat16}[precision])

    def _write(
        self, module: nn.Module, examples: tuple[Tensor, ...], path: Path, dtype: torch.dtype | None
    ) -> dict[str, int]:
        import torch

        with torch.no_grad(), warnings.catch_warnings(), _without_gradients(module):
            warnings.simplefilter("ignore")  # tracing warns that sizes become constants
            graph = _frozen_graph(module, examples)
            if dtype is not None:
                _convert(graph, dtype)
            create: Any = torch._C._create_function_from_graph
            path.write_bytes(create("forward", graph).save_to_buffer())
        kinds = (node.kind() for node in graph.nodes())
        return dict(sorted(Counter(kind for kind in kinds if kind != "prim::Constant").items()))


def _frozen_graph(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """Return the graph of `module` with its weights as constants, after the passes of `torch.jit.freeze`.

    The public functions would give the same graph in five times the time, and leak: they register a class for each
    module. The class keeps the weights in memory until the process ends, and its name in the file ends in a number that
    counts the traces of this process.
    """
    import torch

    from latlab.harness.exporters.tracing import trace

    passes: Any = torch._C  # private, and not all of it typed
    names = ["x"] if len(examples) == 1 else [f"x{place}" for place in range(len(examples))]
    graph, _ = trace(module, examples, strict=True, argument_names=names)
    passes._jit_pass_inline(graph)
    passes._jit_pass_constant_propagation(graph)
    passes._jit_pass_cse(graph)
    passes._jit_pass_optimize_frozen_graph(graph, True)
    passes._jit_pass_constant_propagation(graph)
    passes._jit_pass_constant_pooling(graph)
    passes._jit_pass_dce(graph)
    # Every node stores the Python stack that made it, with paths of this machine, so the same network would give
    # different bytes.
    blank = graph.create("prim::Constant")
    for node in graph.nodes():
        node.copyMetadata(blank)
    return graph


def _convert(graph: Any, dtype: torch.dtype) -> None:
    """Convert a frozen float32 graph to another floating-point type; inputs and outputs stay float32.

    Batch norms were folded in float32, so each weight is rounded once.
    """
    import torch

    passes: Any = torch._C
    for node in graph.nodes():
        if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t":
            value = node.t("value")
            if value.dtype == torch.float32:
                if dtype == torch.float16 and float(value.abs().max()) > LARGEST_HALF:
                    message = f"a weight of {float(value.abs().max()):.3g} is too large for float16"
                    raise ExportError("unsupported_op", message)
                node.t_("value", value.to(dtype))
    passes._jit_pass_erase_shape_information(graph)
    first = next(graph.nodes())
    for value in graph.inputs():
        converted = _cast(graph, value, dtype, before=first)
        value.replaceAllUsesAfterNodeWith(converted.node(), converted)
    # Outputs may be one tensor or a tuple of them.
    at = graph.return_node()
    (result,) = graph.outputs()
    if result.node().kind() == "prim::TupleConstruct":
        at = result.node()
    for index, value in enumerate(list(at.inputs())):
        at.replaceInput(index, _cast(graph, value, torch.float32, before=at))


def _cast(graph: Any, value: Any, dtype: torch.dtype, before: Any) -> Any:
    """Return `value` converted to `dtype`, by an operator that is inserted before the node `before`."""
    graph.setInsertPoint(before)
    number = {"torch.float32": 6, "torch.float16": 5, "torch.bfloat16": 15}[str(dtype)]  # c10/core/ScalarType.h
    constants = [graph.insertConstant(one) for one in (number, False, False, None)]
    node = graph.create("aten::to", [value, *constants])
    graph.insertNode(node)
    return node.output()


@contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient meanwhile, because only such parameters may become constants."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
