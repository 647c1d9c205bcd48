"""Options and arguments that several commands share, and their JSON output."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from latlab.harness.errors import BadInputError
from latlab.harness.targets import ACCELERATORS, DEFAULT_RUNTIME, PRECISIONS, RUNTIMES
from latlab.harness.text import plain

if TYPE_CHECKING:
    import pandas as pd

    from latlab.harness.active_learning.predictor_factory import PredictorOptions
    from latlab.harness.devices.target_selection import TargetOptions
    from latlab.harness.lab import Lab
    from latlab.harness.models.input_options import InputOptions

__all__ = [
    "STORE",
    "AcceleratorOption",
    "BatchOption",
    "DimOption",
    "InputDataOption",
    "InputOption",
    "InventoryOption",
    "JsonOption",
    "ModelOption",
    "PrecisionOption",
    "RangeOption",
    "RuntimeOption",
    "SeedOption",
    "StoreOption",
    "ThreadsOption",
    "WrittenOption",
    "complain",
    "milliseconds_of",
    "open_lab",
    "own_model",
    "percent",
    "predictor_options",
    "print_json",
    "records",
    "target_options",
]


if TYPE_CHECKING:
    Runtime: TypeAlias = str
    Accelerator: TypeAlias = str
    Precision: TypeAlias = str
else:  # the choices that typer offers are those of the one table
    Runtime = StrEnum("Runtime", {name: name for name in RUNTIMES})
    Accelerator = StrEnum("Accelerator", {name: name for name in ACCELERATORS})
    Precision = StrEnum("Precision", {name: name for name in PRECISIONS})
STORE = Path("latlab.db")
StoreOption = Annotated[Path, typer.Option("--store", help="The file with all measurements.")]
InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The file that describes your devices [default: inventory.yaml]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
RuntimeOption = Annotated[
    Runtime | None,
    typer.Option("--runtime", help=f"Inference runtime [default: the device's targets, else {DEFAULT_RUNTIME}]"),
]
AcceleratorOption = Annotated[
    Accelerator | None, typer.Option("--accelerator", help="The processor that executes the networks [default: cpu]")
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Number format of weights and activations [default: fp32]. int8 is quantised after training; not every "
        "runtime has all of them.",
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, max=1024, help="Threads of the runtime [default: 1]")
]
BatchOption = Annotated[
    int | None, typer.Option("--batch-size", min=1, max=65536, help="Images per inference [default: 1]")
]
MOST = 2**63 - 1
"""The largest whole number that the store and PyTorch take."""
SeedOption = Annotated[
    int, typer.Option("--seed", min=-MOST, max=MOST, help="Seed of all random draws and of the weights.")
]
WrittenOption = Annotated[
    bool,
    typer.Option(
        "--as-written",
        help="Time networks as published: keep edges that lead nowhere, and the long forms of activations and means.",
    ),
]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A model of your own: an ONNX, TFLite, TorchScript or torch.export file, or package.module:factory, whose "
        "Python code is run here.",
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:TYPE]",
        help="The shape of an input where the model leaves it open: 1x3x224x224, ids=1x128:int64. May be repeated.",
    ),
]
DimOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dim", metavar="NAME=LENGTH", help="The length of an open side: seq=128, or ids[1]=128. May be repeated."
    ),
]
RangeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--range",
        metavar="NAME=LEAST:GREATEST",
        help="The values of an integer input: ids=0:30521, or rate=16000. May be repeated.",
    ),
]
InputDataOption = Annotated[
    Path | None, typer.Option("--input-data", metavar="FILE.npz", help="The values of the inputs, by name.")
]


def own_model(
    model: list[str] | None,
    inputs: list[str] | None,
    dims: list[str] | None,
    ranges: list[str] | None,
    data: Path | None,
) -> tuple[str | None, InputOptions]:
    """Return the model of one's own and what is said of its inputs.

    Raises:
        BadInputError: there are several models, or inputs without a model.
    """
    from latlab.harness.models.input_options import InputOptions

    if model is not None and len(model) > 1:
        raise BadInputError(
            f"--model is given {len(model)} times: {', '.join(model)}",
            f"Measure one after the other, or compare them side by side: latlab compare {' '.join(model)}",
        )
    options = InputOptions(tuple(inputs or ()), tuple(dims or ()), tuple(ranges or ()), data)
    if model is None and options != InputOptions():
        raise BadInputError("--input, --dim, --range and --input-data are options of --model", "Add --model FILE.")
    return (model[0] if model else None), options


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json.dumps(value, allow_nan=False, default=str), flush=True)


DevicesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DEVICE...",
        help="Devices of the inventory, measured in parallel. `local` is this machine, `all` means every device. "
        "A full target such as pi4/tflite/cpu/fp32/t4/b1 also sets runtime, accelerator, precision, threads and "
        "batch size.",
    ),
]
SpaceOption = Annotated[str, typer.Option("--space", help="A search space; `latlab spaces` lists them.")]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy",
        help="How networks are timed: `default`, `quick` or `thorough` (short passes, added until the interval is "
        "narrow); `help`, `tflite` or `nvbench` (as those projects do); or a policy of the inventory.",
    ),
]
PredictorOption = Annotated[
    str | None, typer.Option("--predictor", help="Which predictor to fit [default: latlab's own]")
]
SourcesOption = Annotated[
    str,
    typer.Option(
        "--sources",
        metavar="all|none|NAME,...",
        help="Which other devices of the store the predictor learns from first; `latlab sources` lists them.",
    ),
]
FactOption = Annotated[
    list[str] | None,
    typer.Option(
        "--fact",
        metavar="NAME=NUMBER",
        help="A fact about the hardware, for predictors that use it: cores, clock_ghz, bandwidth_gbs, tops. "
        "May be repeated.",
    ),
]
NewSessionOption = Annotated[
    bool, typer.Option("--new-session", help="Measure all networks again, in a new session; earlier ones stay.")
]


def open_lab(store: Path, inventory: Path | None) -> Lab:
    """Return a `Lab` on a store, with the devices of an inventory."""
    from latlab.harness.lab import Lab

    return Lab(store, inventory=inventory)


def target_options(
    runtime: str | None, accelerator: str | None, precision: str | None, threads: int | None, batch_size: int | None
) -> TargetOptions:
    """Return how networks are to be run, as the command's options say."""
    from latlab.harness.devices.target_selection import TargetOptions

    return TargetOptions(runtime, accelerator, precision, threads, batch_size)


def predictor_options(name: str | None, sources: str, facts: Sequence[str] | None) -> PredictorOptions:
    """Return which predictor is fitted, as the command's options say. Raises `BadInputError`."""
    from latlab.harness.active_learning.predictor_factory import PredictorOptions, parse_facts

    if name is not None and not name.strip():
        raise BadInputError("--predictor is empty", "Name a predictor, or leave it out.")
    return PredictorOptions(name, sources, parse_facts(facts or ()))


def milliseconds_of(text: str) -> float:
    """Return the milliseconds that a text such as `20ms`, `20`, `500 us` or `0.02s` stands for.

    Raises:
        BadInputError: it is no positive time.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(ms|us|µs|s)?\s*", text)
    try:
        value = float(found[1]) * {"s": 1e3, "us": 1e-3, "µs": 1e-3}.get(found[2], 1.0) if found else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(f"{text!r:.60} is no time", "Write a number and its unit, such as 20ms, 500us or 0.5s.")
    return value


def percent(option: str, text: str | None) -> float | None:
    """Return the number in a text such as `3%`. Raises `BadInputError` if it is none, or not from 0 to 1000."""
    if text is None:
        return None
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1000:
        raise BadInputError(f"{option} takes a percentage from 0 to 1000, not {text!r}", "For example 3%.")
    return value


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON types, with null for missing values."""
    import pandas as pd

    return [
        {str(key): None if pd.api.types.is_scalar(value) and pd.isna(value) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]


def complain(message: str, hint: str | None, as_json: bool) -> None:
    """Print an error and its hint on stderr, and for `--json` also as a JSON line on stdout."""
    if as_json:
        print_json({"error": message, "hint": hint})
    print(plain(f"latlab: {message}"), file=sys.stderr)
    if hint:
        print(plain(hint), file=sys.stderr)
