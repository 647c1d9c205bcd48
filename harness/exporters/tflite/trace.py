"""The tracing of an `nn.Module` to a list of nodes, and the choice of batch norms to fold into convolutions."""

from __future__ import annotations

import torch
from torch import fx, nn

from latlab.harness.exporters.base import ExportError

__all__ = ["foldable_batch_norms", "folded", "trace"]


def trace(module: nn.Module) -> fx.Graph:
    """Return the operators of `module`, with `torch.nn` layers as single nodes and dead code removed.

    Raises:
        ExportError: `unsupported_op`, if the control flow depends on the input.
    """
    try:
        graph = fx.Tracer().trace(module)
    except fx.proxy.TraceError as error:
        raise ExportError("unsupported_op", f"control flow that depends on the input: {error}") from error
    # No operator that can be lowered has side effects. torch's own check would need a compiled GraphModule.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return graph


def foldable_batch_norms(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    """Return the batch norms to fold, each with the convolution before it, whose output no other node reads."""
    pairs = {}
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before = node.args[0] if node.args else None
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and type(modules[str(before.target)]) is nn.Conv2d
            and len(before.args) == 1
            and len(before.users) == 1
        ):
            pairs[node] = before
    return pairs


def folded(batch_norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch norm in eval mode as (scale, shift) per channel: y = x * scale + shift.

    Raises:
        ExportError: `unsupported_op`, if it has no running statistics.
    """
    if batch_norm.running_mean is None or batch_norm.running_var is None:
        raise ExportError("unsupported_op", "batch norm without running statistics")
    scale = torch.rsqrt(batch_norm.running_var + batch_norm.eps)
    if batch_norm.weight is not None:
        scale = scale * batch_norm.weight
    shift = -batch_norm.running_mean * scale
    if batch_norm.bias is not None:
        shift = shift + batch_norm.bias
    return scale.detach(), shift.detach()
