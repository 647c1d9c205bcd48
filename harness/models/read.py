"""Finds out what a model file is, by its content, and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription
from latlab.harness.models.onnx_model import describe_onnx, is_onnx
from latlab.harness.models.tflite_model import describe_tflite, is_tflite

__all__ = ["MODEL_SUFFIXES", "format_of", "read_model"]

MODEL_SUFFIXES = (".onnx", ".tflite", ".lite", ".pt", ".pth", ".jit", ".ts", ".torchscript", ".pt2", ".pte", ".ort")
"""Usual suffixes of model files. They only tell a model from a device's name: the content decides what it is."""
EXECUTORCH = b"ET"
"""What stands at bytes 4 to 6 of an ExecuTorch program; two digits follow."""
ORT = b"ORTM"
"""What stands at bytes 4 to 8 of ONNX Runtime's own format."""


def format_of(path: Path) -> str:
    """Return the format of a model file: `onnx`, `tflite`, `torchscript`, `pt2` or `pte`.

    Raises:
        BadInputError: if there is no such file, or it is of another kind.
    """
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise BadInputError(f"there is no model file {str(path)[:100]}...") from error
    if not there:
        raise BadInputError(f"there is no model file {path}")
    if path.is_dir():
        raise BadInputError(f"{path} is a folder, not a model file", "Name the file in it.")
    if not path.is_file():
        raise BadInputError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise BadInputError(f"cannot read the model {path}: {error.strerror}") from error
    if not head:
        raise BadInputError(f"{path} is empty: it is no model")
    if head.startswith(b"version https://git-lfs"):
        raise BadInputError(f"{path} is only a pointer of Git LFS to the model", "Fetch it: git lfs pull.")
    if is_tflite(head):
        return "tflite"
    if head[4:6] == EXECUTORCH and head[6:8].isdigit():
        return "pte"
    if head[4:8] == ORT:
        raise BadInputError(f"{path} is in ONNX Runtime's own format", "Give the .onnx file that it was made from.")
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith((b"\x80", b"(dp")):
        raise BadInputError(f"{path} is a pickle, which can run any code: latlab does not open it", _SAVE)
    if is_onnx(head):
        return "onnx"
    raise BadInputError(
        f"{path} is not a model that latlab knows",
        "It reads ONNX, TFLite, TorchScript, torch.export (.pt2) and ExecuTorch (.pte) files, and factories.",
    )


_SAVE = "Save one with torch.jit.trace(module, example).save(file), or give package.module:factory."


def _archive(path: Path) -> str:
    from latlab.harness.models.torch_model import kind_of_archive

    kind = kind_of_archive(path)
    if kind == "pickle":
        raise BadInputError(f"{path} is not a TorchScript file (a state_dict or a pickled module is none)", _SAVE)
    if kind is None:
        raise BadInputError(f"{path} is an archive without a model that latlab knows")
    return kind


def read_model(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> ModelDescription:
    """Return what a model file says about itself.

    Args:
        path: the file.
        shapes: shapes of inputs, by name, for which to count multiplications where the file leaves them open.

    Raises:
        BadInputError: if the file cannot be read, or is no model. The message names it.
    """
    kind = format_of(path)
    if kind == "onnx":
        return describe_onnx(path, shapes)
    if kind == "tflite":
        return describe_tflite(path)
    if kind == "pte":
        from latlab.harness.models.executorch_model import describe_executorch

        return describe_executorch(path)
    from latlab.harness.models.torch_model import describe_exported_program, describe_torchscript

    return describe_torchscript(path) if kind == "torchscript" else describe_exported_program(path)
