"""What lowers which operator: one registry for functions, one for tensor methods, one for layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from torch import nn

from latlab.harness.exporters.base import ExportError

__all__ = ["FUNCTIONS", "LAYERS", "METHODS", "lowers", "lowers_layer", "unsupported"]

Lowering = TypeVar("Lowering", bound=Callable[..., Any])

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""`torch.relu` -> f(graph, *its arguments, **its keyword arguments)."""

METHODS: dict[str, Callable[..., Any]] = {}
"""`relu` of `x.relu()` -> f(graph, x, *its arguments, **its keyword arguments)."""

LAYERS: dict[type[nn.Module], Callable[..., Any]] = {}
"""`nn.ReLU` -> f(graph, layer, *its inputs)."""


def lowers(*functions: Callable[..., Any], methods: tuple[str, ...] = ()) -> Callable[[Lowering], Lowering]:
    """Registers what it decorates for these functions and methods; it takes `graph`, then their arguments."""

    def register(lowering: Lowering) -> Lowering:
        FUNCTIONS.update(dict.fromkeys(functions, lowering))
        METHODS.update(dict.fromkeys(methods, lowering))
        return lowering

    return register


def lowers_layer(*layers: type[nn.Module]) -> Callable[[Lowering], Lowering]:
    """Registers what it decorates for layers of exactly these classes; it takes `graph`, layer, inputs."""

    def register(lowering: Lowering) -> Lowering:
        LAYERS.update(dict.fromkeys(layers, lowering))
        return lowering

    return register


def unsupported(what: str) -> NoReturn:
    """Gives up on a network: never a wrong graph."""
    raise ExportError("unsupported_op", f"the TFLite writer does not support {what}")
