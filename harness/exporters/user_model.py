"""A user's own model: a file in one of the formats, or a Python factory whose module is exported here."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, CacheError, ExportError, Parity, export_module
from latlab.harness.targets import DEFAULT_RUNTIME, RUNTIMES, Target

__all__ = ["OwnModel", "locate"]

SUFFIX_RUNTIMES = {suffix: name for name, runtime in RUNTIMES.items() for suffix in runtime.suffixes}
"""The runtime of a model file, by its suffix."""
NO_COMPARISON = Parity(0, 0.0, 0.0, 0.0, True, "a file of the user's own: there is nothing to compare it with")
"""The parity of a file that the user brings: there is no PyTorch module to compare it with."""


@dataclass(frozen=True)
class OwnModel:
    """The model that `--model` names."""

    name: str
    """The file or factory, followed by the shape of its input if it is known."""
    runtime: str
    batch_size: int
    artifact: Callable[[Path], Artifact]
    """Returns the file to push, for a cache folder. A factory's module is exported first."""

    def target(self, usual: Target) -> Target:
        """Return `usual` with this model's runtime and batch size.

        The model's format decides: if the device's usual runtime takes that format it is kept, else it is replaced.
        """
        fits = usual.format == RUNTIMES[self.runtime].format
        return replace(usual, runtime=usual.runtime if fits else self.runtime, batch_size=self.batch_size)


def locate(model: str, input_shape: Sequence[int] | None, runtime: str | None, batch_size: int | None) -> OwnModel:
    """Return the model that `net.onnx`, `net.tflite`, `net.pt` or `package.module:factory` names.

    Args:
        model: a path or a factory.
        input_shape: the input's shape with the batch, as the file (or the factory's module) takes it.
        runtime: the runtime of a factory's module, by default `onnxruntime`. A file's suffix decides for a file.
        batch_size: the batch size where the file leaves it open. It must agree with `input_shape` if both are given.

    Raises:
        BadInputError: naming the file or the factory.
    """
    if input_shape is not None and (not input_shape or min(input_shape) < 1):
        raise BadInputError(f"an input shape has positive sides, not {_text(input_shape)}")
    if input_shape is not None and batch_size is not None and input_shape[0] != batch_size:
        raise BadInputError(f"--batch-size {batch_size} contradicts --input {_text(input_shape)}")
    suffix = Path(model).suffix.lower()
    if suffix in SUFFIX_RUNTIMES:
        needed = SUFFIX_RUNTIMES[suffix]
        if runtime not in (None, needed):
            raise BadInputError(f"{model} runs in {needed}, not in {runtime}", "Leave --runtime out.")
        return _from_file(Path(model), needed, input_shape, batch_size)
    if ":" in model:
        return _from_factory(model, input_shape, runtime or DEFAULT_RUNTIME)
    raise BadInputError(
        f"{model!r} is not a model", "Give a .onnx, .tflite or .pt file, or package.module:factory with --input."
    )


def _text(shape: Sequence[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape)


def _from_file(path: Path, runtime: str, input_shape: Sequence[int] | None, batch_size: int | None) -> OwnModel:
    if not path.is_file():
        raise BadInputError(f"there is no model file {path}")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    shape = _settled(path, _declared(path, runtime), input_shape, batch_size)

    def artifact(_: Path) -> Artifact:
        return Artifact(
            key=digest,
            path=path,
            sha256=digest,
            size_bytes=path.stat().st_size,
            format=RUNTIMES[runtime].format,
            batch_size=shape[0] if shape else 1,
            input_shape=shape,
            parity=NO_COMPARISON,
            build_s=0.0,
            export_s=0.0,
            parity_s=0.0,
            exporter="none",
            exporter_version="",
            operators={},
        )

    name = f"{path.name} {_text(shape)}" if shape else path.name
    return OwnModel(name, runtime, shape[0] if shape else 1, artifact)


def _declared(path: Path, runtime: str) -> tuple[int | None, ...] | None:
    """Return the shape that the file declares for its only input, None for open sides.

    The result is None if the file does not declare it or has several inputs.
    """
    if runtime == "onnxruntime":
        return _declared_in_onnx(path)
    if runtime == "torchscript":
        if not zipfile.is_zipfile(path) or not any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
            raise BadInputError(
                f"{path} is not a TorchScript file (a state_dict or a pickled module is none)",
                "Save one with torch.jit.trace(module, example).save(file), or give package.module:factory.",
            )
        return None
    try:
        with runtimes.open(runtime, path) as session:
            return session.inputs[0].shape if len(session.inputs) == 1 else None
    except AgentError as error:
        raise BadInputError(f"cannot read the model {path}: {error.message}") from error


def _declared_in_onnx(path: Path) -> tuple[int | None, ...] | None:
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise BadInputError(f"cannot read the model {path}: it is not an ONNX file") from error
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        return None
    sides = inputs[0].type.tensor_type.shape.dim
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in sides)


def _settled(
    path: Path, declared: tuple[int | None, ...] | None, asked: Sequence[int] | None, batch_size: int | None
) -> tuple[int, ...]:
    """Return the shape to run, or () if the runtime must read it from the file (several inputs)."""
    if declared is None:
        if asked is None and path.suffix in (".pt", ".pth"):
            raise BadInputError(f"{path} does not say what input it takes", "Add --input, for example 1x3x224x224.")
        return tuple(asked or ())
    if asked is None:
        first = (batch_size or 1,) if declared and declared[0] is None else declared[:1]
        asked_sides = (*first, *declared[1:])
        if any(side is None for side in asked_sides):
            raise BadInputError(
                f"{path} leaves the shape of its input open: {_text(declared)}",
                f"Say which to run, for example --input {_text([side or 224 for side in asked_sides])}.",
            )
        asked = [side for side in asked_sides if side is not None]
        if batch_size is not None and asked[:1] != [batch_size]:
            raise BadInputError(f"{path} is fixed at batch {asked[0]}: --batch-size {batch_size} cannot be had")
    elif len(asked) != len(declared) or any(d not in (None, a) for d, a in zip(declared, asked, strict=True)):
        raise BadInputError(f"{path} takes {_text(declared)}, not {_text(asked)}")
    return tuple(asked)


def _from_factory(model: str, input_shape: Sequence[int] | None, runtime: str) -> OwnModel:
    if input_shape is None:
        raise BadInputError(f"{model} needs the shape of its input", "Add --input, for example 1x3x224x224.")
    if runtime not in RUNTIMES:
        raise BadInputError(f"unknown runtime {runtime!r}", f"Choose one of: {', '.join(RUNTIMES)}.")
    module = _call(model)

    def artifact(cache: Path) -> Artifact:
        try:
            return export_module(module, RUNTIMES[runtime].format, tuple(input_shape), cache / "own")
        except ExportError as error:
            raise BadInputError(
                f"{model} cannot be exported: {error.message} ({error.kind})",
                "A factory's module takes one float32 tensor; export any other yourself and give the file.",
            ) from error
        except CacheError as error:
            raise BadInputError(str(error)) from error

    return OwnModel(f"{model} {_text(input_shape)}", runtime, input_shape[0], artifact)


def _call(model: str) -> Any:
    """Return the module that the factory makes, or that the name stands for.

    This runs the user's code, as they asked.
    """
    from torch import nn

    package, _, attribute = model.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script's path lacks the current folder, where users keep code
    try:
        module = getattr(importlib.import_module(package), attribute)
        if not isinstance(module, nn.Module):
            module = module()
    except Exception as error:
        raise BadInputError(f"{model} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise BadInputError(f"{model} gave a {type(module).__name__}, not a torch.nn.Module")
    return module.eval()
