"""A model of the user's own: a file in one of the formats, or a Python factory that is exported here."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, CacheError, ExportError, Parity, export_module
from latlab.harness.targets import RUNTIME_FORMATS

__all__ = ["OwnModel", "locate"]

SUFFIX_RUNTIMES = {".onnx": "onnxruntime", ".tflite": "tflite", ".pt": "torchscript", ".pth": "torchscript"}
NO_COMPARISON = Parity(0, 0.0, 0.0, 0.0, True, "a file of the user's own: there is nothing to compare it with")


@dataclass(frozen=True)
class OwnModel:
    """What `--model` names, resolved."""

    name: str
    runtime: str
    batch_size: int
    artifact: Callable[[Path], Artifact]
    """Given the cache folder: the file to push, exported first where it must be."""


def locate(model: str, input_shape: Sequence[int] | None, runtime: str, batch_size: int) -> OwnModel:
    """Resolve `net.onnx`, `net.tflite`, `net.pt` or `package.module:factory`.

    Args:
        input_shape: with the batch, as the file (or the factory's module) takes it.
        runtime: for a factory; a file's suffix decides by itself.

    Raises:
        BadInputError: naming the file or the factory.
    """
    if input_shape is not None and (not input_shape or min(input_shape) < 1):
        raise BadInputError(f"an input shape has positive sides, not {'x'.join(map(str, input_shape))}")
    suffix = Path(model).suffix.lower()
    if suffix in SUFFIX_RUNTIMES:
        return _from_file(Path(model), SUFFIX_RUNTIMES[suffix], input_shape, batch_size)
    if ":" in model:
        return _from_factory(model, input_shape, runtime, batch_size)
    raise BadInputError(
        f"{model!r} is not a model",
        "Give a .onnx, .tflite or .pt file, or package.module:factory with --input.",
    )


def _from_file(path: Path, runtime: str, input_shape: Sequence[int] | None, batch_size: int) -> OwnModel:
    if not path.is_file():
        raise BadInputError(f"there is no model file {path}")
    if runtime == "torchscript" and input_shape is None:
        raise BadInputError(f"{path} does not say what input it takes", "Add --input, for example 1x3x224x224.")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    shape = tuple(input_shape) if input_shape else ()

    def artifact(_: Path) -> Artifact:
        return Artifact(
            key=digest,
            path=path,
            sha256=digest,
            size_bytes=path.stat().st_size,
            format=RUNTIME_FORMATS[runtime],
            batch_size=batch_size,
            input_shape=shape,
            parity=NO_COMPARISON,
            build_s=0.0,
            export_s=0.0,
            parity_s=0.0,
            exporter="none",
            exporter_version="",
            operators={},
        )

    return OwnModel(path.name, runtime, shape[0] if shape else batch_size, artifact)


def _from_factory(model: str, input_shape: Sequence[int] | None, runtime: str, batch_size: int) -> OwnModel:
    if input_shape is None:
        raise BadInputError(f"{model} needs the shape of its input", "Add --input, for example 1x3x224x224.")
    if runtime not in RUNTIME_FORMATS:
        raise BadInputError(f"unknown runtime {runtime!r}", f"Choose one of: {', '.join(RUNTIME_FORMATS)}.")
    module = _call(model)

    def artifact(cache: Path) -> Artifact:
        try:
            return export_module(module, RUNTIME_FORMATS[runtime], tuple(input_shape), cache / "own")
        except ExportError as error:
            raise BadInputError(f"{model} cannot be exported: {error.message} ({error.kind})") from error
        except CacheError as error:
            raise BadInputError(str(error)) from error

    return OwnModel(model, runtime, input_shape[0], artifact)


def _call(model: str) -> Any:
    """The module that the factory makes. The user's own code runs here, as they asked."""
    from torch import nn

    package, _, attribute = model.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script's path lacks the current folder, where a user's code lies
    try:
        factory = getattr(importlib.import_module(package), attribute)
        module = factory()
    except Exception as error:
        raise BadInputError(f"{model} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInputError(f"{model} gave a {type(module).__name__}, not a torch.nn.Module")
    return module.eval()
