"""The TorchScript exporter: trace, freeze, save."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latlab.harness.exporters.base import FILES_SINCE, Exporter

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TorchScriptExporter"]


class TorchScriptExporter(Exporter):
    """The exporter of `*.pt` files: the graph of `torch.jit.freeze(torch.jit.trace(...))`, batch norms folded, fp32.

    torch has deprecated TorchScript. Exports depend on it in this module only, so that torch.export can take its place.
    """

    name: ClassVar[str] = "torchscript"
    suffix: ClassVar[str] = ".pt"
    runtime: ClassVar[str] = "torchscript"

    @property
    def version(self) -> str:
        return f"latlab {FILES_SINCE}, torch {version('torch')}"

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        import torch

        with torch.no_grad(), warnings.catch_warnings(), _without_gradients(module):
            warnings.simplefilter("ignore")  # tracing warns that sizes become constants
            graph = _frozen_graph(module, example if isinstance(example, tuple) else (example,))
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
