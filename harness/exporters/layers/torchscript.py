"""TorchScript files taken apart into their layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latlab.harness.exporters.layers.base import LayeredFile

if TYPE_CHECKING:
    from latlab.harness.exporters.layers.base import Array

__all__ = ["LayeredTorchScript"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class LayeredTorchScript(LayeredFile):
    """A TorchScript file of latlab's exporter. Its tensors are numbered, for names do not survive saving.

    The casts at both ends of an fp16 or bf16 file are left out: all files have the same operators between them.
    """

    source = "input"

    def __init__(self, path: Path, precision: str) -> None:
        self.holds = precision
        self._dtype = DTYPES[precision]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            load: Any = torch.jit.load
            self._graph: Any = load(str(path)).graph
        self._cast = precision != "fp32"
        values = self._values(self._graph)
        self.tensors = tuple(f"value_{number}" for number in range(len(values) - 1))

    def _values(self, graph: Any) -> list[Any]:
        """Return the network's input, and the tensors that its operators compute, in order of execution."""
        nodes = [node for node in graph.nodes() if not node.kind().startswith("prim::")]
        source = list(graph.inputs())[1]  # the first one is the module
        if self._cast:
            outputs = list(graph.return_node().inputs())
            if outputs[0].node().kind() == "prim::TupleConstruct":
                outputs = list(outputs[0].node().inputs())
            casts = {value.debugName() for value in outputs} | {nodes[0].output().debugName()}
            source = nodes[0].output()
            nodes = [node for node in nodes if node.output().debugName() not in casts]
        return [source, *(node.output() for node in nodes if node.output().type().kind() == "TensorType")]

    def part(
        self, outputs: Sequence[str], given: Collection[str]
    ) -> tuple[tuple[str, ...], Callable[[Mapping[str, Array]], list[Array]]]:
        graph = self._graph.copy()
        names = (self.source, *self.tensors)
        values = dict(zip(names, self._values(graph), strict=True))
        for _ in range(len(list(graph.outputs()))):
            graph.eraseOutput(0)
        twins = {}
        for name in names:
            if name in given:
                twins[name] = graph.addInput()
                values[name].replaceAllUsesWith(twins[name])
        for name in outputs:
            graph.registerOutput(values[name])
        passes: Any = torch._C
        passes._jit_pass_dce(graph)
        used = tuple(name for name in names if name in twins and list(twins[name].uses()))
        kept = {twins[name].debugName() for name in used}
        for index in reversed(range(len(list(graph.inputs())))):
            if list(graph.inputs())[index].debugName() not in kept:
                graph.eraseInput(index)
        if len(outputs) > 1:
            _return_a_tuple(graph)
        function = passes._create_function_from_graph("forward", graph)

        def run(arrays: Mapping[str, Array]) -> list[Array]:
            with torch.inference_mode():
                results = function(*(torch.from_numpy(arrays[name]).to(self._dtype) for name in used))
            results = results if isinstance(results, tuple) else (results,)
            return [result.float().numpy() for result in results]

        return used, run


def _return_a_tuple(graph: Any) -> None:
    results = list(graph.outputs())
    node = graph.create("prim::TupleConstruct", results)
    node.output().setType(torch._C.TupleType([result.type() for result in results]))
    graph.appendNode(node)
    for _ in results:
        graph.eraseOutput(0)
    graph.registerOutput(node.output())
