"""The registry of lowerings: functions, tensor methods and layers, each with the function that lowers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from torch import nn

from latlab.harness.exporters.base import ExportError

__all__ = ["FUNCTIONS", "LAYERS", "METHODS", "lowers", "lowers_layer", "unsupported"]

Lowering = TypeVar("Lowering", bound=Callable[..., Any])

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Maps e.g. `torch.relu` to its lowering, called as f(graph, *arguments, **keyword arguments)."""

METHODS: dict[str, Callable[..., Any]] = {}
"""Maps e.g. `relu` of `x.relu()` to its lowering, called as f(graph, x, *arguments, **keyword arguments)."""

LAYERS: dict[type[nn.Module], Callable[..., Any]] = {}
"""Maps e.g. `nn.ReLU` to its lowering, called as f(graph, layer, *inputs)."""


def lowers(*functions: Callable[..., Any], methods: tuple[str, ...] = ()) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for these functions and methods. It takes `graph`, then their arguments."""

    def register(lowering: Lowering) -> Lowering:
        FUNCTIONS.update(dict.fromkeys(functions, lowering))
        METHODS.update(dict.fromkeys(methods, lowering))
        return lowering

    return register


def lowers_layer(*layers: type[nn.Module]) -> Callable[[Lowering], Lowering]:
    """Register the decorated function for layers of exactly these classes. It takes `graph`, the layer, its inputs."""

    def register(lowering: Lowering) -> Lowering:
        LAYERS.update(dict.fromkeys(layers, lowering))
        return lowering

    return register


def unsupported(what: str) -> NoReturn:
    """Raise `ExportError` ("unsupported_op"), because no graph is better than a wrong one.

    Args:
        what: the operator that the writer does not support.
    """
    raise ExportError("unsupported_op", f"the TFLite writer does not support {what}")
