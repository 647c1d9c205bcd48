"""What several commands take, and how all of them print JSON."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from latlab.harness.errors import BadInputError

__all__ = [
    "STORE",
    "AcceleratorOption",
    "BatchOption",
    "InputOption",
    "InventoryOption",
    "JsonOption",
    "ModelOption",
    "RuntimeOption",
    "SeedOption",
    "StoreOption",
    "ThreadsOption",
    "WrittenOption",
    "parse_shape",
    "print_json",
]


class Runtime(StrEnum):
    """Inference runtimes."""

    onnxruntime = "onnxruntime"
    tflite = "tflite"
    torchscript = "torchscript"
    benchmark_model = "benchmark_model"


class Accelerator(StrEnum):
    """What executes networks."""

    cpu = "cpu"
    cuda = "cuda"
    gpu = "gpu"
    nnapi = "nnapi"


STORE = Path("latlab.db")
StoreOption = Annotated[Path, typer.Option("--store", help="The file that everything measured goes to.")]
InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The file that describes your devices [default: inventory.yaml]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
RuntimeOption = Annotated[
    Runtime | None,
    typer.Option("--runtime", help="Inference runtime [default: the device's targets, else onnxruntime]"),
]
AcceleratorOption = Annotated[
    Accelerator | None, typer.Option("--accelerator", help="What executes the networks [default: cpu]")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="Threads of the runtime [default: 1]")
]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, max=65536, help="Images per inference [default: 1]")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Of every draw and of the weights.")]
WrittenOption = Annotated[
    bool,
    typer.Option(
        "--as-written",
        help="Time networks as published: edges that lead nowhere stay, activations and means in their long forms.",
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="A model of your own: net.onnx, net.tflite, net.pt or package.module:factory."),
]
InputOption = Annotated[
    str | None, typer.Option("--input", help="The shape of the model's input, for example 1x3x224x224.")
]


def parse_shape(text: str | None) -> list[int] | None:
    """1x3x224x224. Raises `BadInputError`."""
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if not all(part.strip().isdigit() for part in parts):
        raise BadInputError(f"{text!r} is not a shape", "Write it like 1x3x224x224.")
    return [int(part) for part in parts]


def print_json(value: Any) -> None:
    """One line on stdout."""
    print(json.dumps(value, allow_nan=False, default=str), flush=True)
