"""The translation of a traced module to a TFLite graph: it visits the nodes and calls the lowering of each."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn

from latlab.harness.exporters.tflite import (  # noqa: F401 (importing registers their operators)
    attention_ops,
    elementwise,
    shape_ops,
)
from latlab.harness.exporters.tflite.conv_pool_ops import conv2d_layer
from latlab.harness.exporters.tflite.graph import Graph, Value, channels_last
from latlab.harness.exporters.tflite.registry import FUNCTIONS, LAYERS, METHODS, unsupported
from latlab.harness.exporters.tflite.trace import foldable_batch_norms, trace

__all__ = ["lower"]


def lower(module: nn.Module, input_shape: tuple[int, ...]) -> Graph:
    """Return the TFLite graph of `module` in eval mode for one float32 input of `input_shape`.

    Raises:
        ExportError: `unsupported_op`, naming the operator.
    """
    module = nn.Sequential(module)  # the tracer looks inside its root, which may be a layer with a lowering itself
    nodes = trace(module)
    modules = dict(module.named_modules())
    graph = Graph()
    values: dict[fx.Node, Any] = {}
    folds = foldable_batch_norms(nodes, modules)
    batch_norm_of = {conv: modules[str(batch_norm.target)] for batch_norm, conv in folds.items()}
    for node in nodes.nodes:
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "placeholder":
            values[node] = graph.input(input_shape)
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(node.target)(module)
        elif node.op == "output":
            results = args[0] if isinstance(args[0], tuple | list) else [args[0]]
            graph.outputs = [_output(graph, result) for result in results]
        elif node in folds:
            values[node] = values[folds[node]]
        elif node.op == "call_module" and node in batch_norm_of:
            values[node] = conv2d_layer(graph, modules[str(node.target)], args[0], batch_norm_of[node])
        elif node.op == "call_module":
            values[node] = _layer(graph, modules[str(node.target)], args, kwargs)
        elif node.op == "call_method":
            values[node] = _method(graph, node.target, args, kwargs)
        else:
            values[node] = _function(graph, node.target, args, kwargs)
    graph.fold_shifts()
    graph.fuse_activations()
    return graph


def _output(graph: Graph, value: Any) -> int:
    if not isinstance(value, Value):
        unsupported(f"an output of type {type(value).__name__}")
    return graph.reorder(value, channels_last(len(value.shape))).tensor


def _call(lowering: Callable[..., Any] | None, name: str, graph: Graph, args: Any, kwargs: Any) -> Any:
    if lowering is None:
        unsupported(name)
    try:
        return lowering(graph, *args, **kwargs)
    except (TypeError, AttributeError) as error:
        # The lowering does not take these arguments.
        unsupported(f"{name} used like this ({error})")


def _layer(graph: Graph, layer: nn.Module, args: Any, kwargs: Any) -> Any:
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return _call(LAYERS.get(type(layer)), name, graph, (layer, *args), kwargs)


def _is_constant(args: Any, kwargs: Any) -> bool:
    leaves: list[Any] = []
    fx.node.map_aggregate((args, kwargs), leaves.append)
    return not any(isinstance(leaf, Value) for leaf in leaves)


def _method(graph: Graph, name: str, args: Any, kwargs: Any) -> Any:
    # Without a traced value among the arguments the method runs now; in-place methods do not, because they would
    # change the module's parameters.
    if _is_constant(args, kwargs) and not name.endswith("_"):
        return getattr(args[0], name)(*args[1:], **kwargs)
    return _call(METHODS.get(name), f"the method {name!r}", graph, args, kwargs)


def _function(graph: Graph, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__name__', function)}"
    if _is_constant(args, kwargs) and not name.split(".")[-1].startswith("i" if "operator" in name else "_"):
        return function(*args, **kwargs)
    return _call(FUNCTIONS.get(function), name, graph, args, kwargs)
