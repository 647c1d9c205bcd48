"""A factory: Python code of the user's that makes a module, which is exported here."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import FLOATS, ModelDescription, PrecisionShares, TensorInfo

__all__ = ["call_factory", "describe_factory", "is_factory"]

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_factory(model: str) -> bool:
    """Return whether a text has the form `package.module:factory`, and names no file."""
    return bool(_FACTORY.fullmatch(model)) and not Path(model).exists()


def call_factory(model: str) -> Any:
    """Return the module that the factory makes, or that the name stands for, in eval mode.

    This runs the user's code, as they asked.

    Raises:
        BadInputError: if that fails, or gives no `torch.nn.Module`.
    """
    from torch import nn

    package, _, attribute = model.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script's path lacks the current folder, where users keep code
    try:
        module: Any = importlib.import_module(package)
        for name in attribute.split("."):
            module = getattr(module, name)
        if not isinstance(module, nn.Module):
            module = module()
    except SystemExit as error:
        raise BadInputError(f"{model} ended the program (exit code {error.code}) instead of making a module") from error
    except Exception as error:
        raise BadInputError(f"{model} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(module, nn.Module):
        raise BadInputError(f"{model} gave a {type(module).__name__}, not a torch.nn.Module")
    return module.eval()


def describe_factory(model: str, module: Any) -> ModelDescription:
    """Return what can be said of a module: its inputs by the signature of `forward`, and its weights."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    variadic = [one for one in parameters if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    named = [one for one in parameters if one not in variadic]
    tensors = [*module.parameters(), *module.buffers()]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    shares = PrecisionShares()
    for tensor in floating:
        kind = FLOATS.get(str(tensor.dtype).removeprefix("torch."), "fp32")
        shares.add("fp32" if kind == "fp64" else kind, kind, tensor.numel())
    precision, detail = shares.conclusion()
    kinds: dict[str, int] = {}
    for part in module.modules():
        if not list(part.children()):
            kinds[type(part).__name__] = kinds.get(type(part).__name__, 0) + 1
    return ModelDescription(
        path=Path(model),
        format="module",
        version=type(module).__name__,
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        inputs=tuple(TensorInfo(one.name, None, None, optional=one.default is not one.empty) for one in named)
        or (TensorInfo("input", None, None),),
        outputs=(),
        operators=dict(sorted(kinds.items())),
        parameters=sum(tensor.numel() for tensor in module.parameters()),
        macs=None,
        precision=precision,
        precision_detail=detail,
        notes=["a factory: the module keeps no shapes of its inputs"],
    )
