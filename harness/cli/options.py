"""Options and arguments that several commands share, and their JSON output."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latlab.harness.errors import BadInputError
from latlab.harness.store.place import ServerPlace, StorePath, store_path
from latlab.harness.targets import ACCELERATORS, DEFAULT_RUNTIME, PRECISIONS, RUNTIMES
from latlab.harness.text import plain

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ENCODING_NAMES",
    "MOST",
    "SAMPLERS_HELP",
    "STORE",
    "STORE_HELP",
    "AcceleratorOption",
    "BatchOption",
    "DevicesArgument",
    "DimOption",
    "EncodingTableOption",
    "EngineOption",
    "FactOption",
    "InputDataOption",
    "InputOption",
    "InventoryOption",
    "JsonOption",
    "MetricOption",
    "ModelOption",
    "NearOption",
    "NewSessionOption",
    "OneRuntimeOption",
    "OneThreadsOption",
    "PolicyOption",
    "PrecisionOption",
    "PredictorOption",
    "PretrainedOption",
    "RangeOption",
    "RuntimeOption",
    "SeedOption",
    "SourcesOption",
    "SpaceOption",
    "SpacesFromOption",
    "StoreArgument",
    "StoreOption",
    "ThreadsOption",
    "UntilOption",
    "WrittenOption",
    "amount_of",
    "complain",
    "json_option",
    "milliseconds_of",
    "named_store",
    "one_store",
    "percent",
    "print_json",
    "records",
    "seed_in_range",
    "several",
    "store_before",
    "store_option",
    "whole_numbers",
]


ENCODING_NAMES = "totals, costs, zcp, arch2vec, cate, caz"
SAMPLERS_HELP = (
    "random, params, designed, latency-quantiles, or by an encoding E (cosine:E, kmeans:E, diverse:E with E one of "
    f"{ENCODING_NAMES})"
)
STORE = Path("latlab.db")


def named_store(named: str | StorePath) -> StorePath:
    """Return the store that a word of the command line means. A password in it is complained about."""
    place = store_path(named)
    if isinstance(named, str) and isinstance(place, ServerPlace) and place.has_password:
        print(
            "latlab: the password of the store can be read by everybody who lists this machine's processes\n"
            "Put it into the file that PGPASSFILE names (~/.pgpass), or into PGPASSWORD, and leave it out here.",
            file=sys.stderr,
        )
    return place


STORE_HELP = "The store: the file with all measurements, or the address of a PostgreSQL database."
# A store's place is a file or an address, and Typer takes no unions.


def store_option(more: str = "") -> Any:
    """Return the option `--store`.

    Args:
        more: a further sentence of its help.
    """
    return typer.Option("--store", metavar="STORE", parser=named_store, help=f"{STORE_HELP} {more}".strip())


StoreOption = Annotated[Any, store_option()]
StoreArgument = Annotated[
    Any,
    typer.Argument(
        metavar="STORE", parser=named_store, help=f"{STORE_HELP} Or name it with --store.", show_default=False
    ),
]
InventoryOption = Annotated[
    Path | None,
    typer.Option("--inventory", help="The file that describes your devices \\[default: inventory.yaml]"),
]


def json_option(one_line_for: str) -> Any:
    """Return the option `--json`, which says in the same words everywhere what is printed where.

    Args:
        one_line_for: what there is a line of JSON for: `each network`, `the whole result`.
    """
    return typer.Option(
        "--json", help=f"Print JSON Lines on stdout: one line of JSON for {one_line_for}. Messages go to stderr."
    )


EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray|ray://HOST:PORT",
        help="Where the work is done: processes of this machine, or a Ray cluster (pip install latlab\\[ray]).",
    ),
]
JsonOption = Annotated[bool, json_option("the whole result")]
_SEVERAL = "Several, by commas or by repeating the option, are several targets"
_RUNTIME = (
    f"The inference runtime: {', '.join(RUNTIMES)} \\[default: that of the device's targets, else {DEFAULT_RUNTIME}]."
)
_THREADS = "Threads of the runtime \\[default: 1]."
RuntimeOption = Annotated[
    list[str] | None, typer.Option("--runtime", metavar="NAME,...", help=f"{_RUNTIME} {_SEVERAL}.")
]
OneRuntimeOption = Annotated[list[str] | None, typer.Option("--runtime", metavar="NAME", help=_RUNTIME)]
AcceleratorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--accelerator",
        metavar="NAME",
        help=f"The processor that executes the networks: {', '.join(ACCELERATORS)} \\[default: cpu].",
    ),
]
PrecisionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help=f"Number format of weights and activations: {', '.join(PRECISIONS)} \\[default: fp32]. int8 is quantised "
        "after training; not every runtime has all of them.",
    ),
]
ThreadsOption = Annotated[
    list[str] | None, typer.Option("--threads", metavar="N,...", help=f"{_THREADS} {_SEVERAL}: 1,4.")
]
OneThreadsOption = Annotated[list[str] | None, typer.Option("--threads", metavar="N", help=_THREADS)]
BatchOption = Annotated[
    list[str] | None, typer.Option("--batch-size", metavar="N", help="Images per inference \\[default: 1].")
]
MOST = 2**63 - 1
"""The largest whole number that the store and PyTorch take."""


def seed_in_range(seed: int) -> int:
    """Return a seed. The greatest ones are long words, which would not fit beside an option in its help."""
    if not -MOST <= seed <= MOST:
        raise typer.BadParameter(f"{seed} is not in the range from {-MOST} to {MOST}.")
    return seed


SeedOption = Annotated[
    int,
    typer.Option("--seed", metavar="N", callback=seed_in_range, help="Seed of all random draws and of the weights."),
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


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json.dumps(value, allow_nan=False, default=str), flush=True)


DevicesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DEVICE",
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
    str | None, typer.Option("--predictor", help="Which predictor to fit \\[default: latlab's own]")
]
PretrainedOption = Annotated[
    Path | None,
    typer.Option(
        "--pretrained",
        metavar="FOLDER",
        help="Use the predictor that `latlab pretrain` wrote into this folder, instead of training one.",
    ),
]
SourcesOption = Annotated[
    str,
    typer.Option(
        "--sources",
        metavar="all|none|NAME,...",
        help="Which other devices of the store the predictor learns from first; `latlab sources` lists them.",
    ),
]
SpacesFromOption = Annotated[
    str,
    typer.Option(
        "--spaces-from",
        metavar="all|none|NAME,...",
        help="Which other search spaces the predictor learns from, of those in which the target was measured.",
    ),
]
MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        help="Predict another metric of the target's measurements than the latency: "
        "energy_mj, peak_memory_mb, first_ms, open_ms, p50_ms, ...",
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
UntilOption = Annotated[
    list[str] | None,
    typer.Option(
        "--until",
        metavar="GOAL,...",
        help='Stop earlier, at the first of these: "spearman 0.97" or "90% within 5%" of the space, by the '
        'predictor\'s own estimate; "3 min" of measuring; "20 samples". May be repeated.',
    ),
]
NearOption = Annotated[
    str | None,
    typer.Option("--near", metavar="MS", help="Choose networks for accuracy around this latency, such as 20ms."),
]
EncodingTableOption = Annotated[
    Path | None,
    typer.Option("--encoding-table", help="A file with encodings, read instead of computing them (`latlab encode`)."),
]
NewSessionOption = Annotated[
    bool, typer.Option("--new-session", help="Measure all networks again, in a new session; earlier ones stay.")
]


def several(option: str, words: Sequence[str] | None) -> list[str] | None:
    """Return the values of an option that takes several: by commas, by repeating it, or both. None stays None.

    Raises:
        BadInputError: if a value is empty.
    """
    if words is None:
        return None
    values = [value.strip() for word in words for value in word.split(",")]
    if not all(values):
        given = " ".join(f"{option} {word!r}" for word in words)
        raise BadInputError(f"{given} names nothing between its commas", f"Write one value, or several: {option} A,B.")
    return list(dict.fromkeys(values))


def whole_numbers(option: str, words: Sequence[str] | None) -> list[int] | None:
    """Return the values of an option that takes several whole numbers. Raises `BadInputError` if one is none."""
    values = several(option, words)
    if values is None:
        return None
    for value in values:
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise BadInputError(f"{option} takes whole numbers, not {value!r:.40}", f"For example {option} 1,4.")
    return list(dict.fromkeys(map(int, values)))


def one_store(named: StorePath | None, store: StorePath) -> StorePath:
    """Return the store that a command means, which can be named as a word and with `--store`.

    Raises:
        BadInputError: if these are two.
    """
    if named is None or named == store:
        return store
    if store != STORE:
        raise BadInputError(f"{named} and --store {store} are two stores", "Name one.")
    return named


def store_before(context: typer.Context, store: StorePath | None) -> None:
    """Have the commands below use a store that stands before their name: `latlab --store mine.db show`.

    A store that is named behind the command's name counts instead. Commands below other ones are reached, too.

    Raises:
        BadInputError: if the command that is called uses no store.
    """
    if store is None or context.invoked_subcommand is None:
        return
    command: Any = context.command
    called = command.commands[context.invoked_subcommand]
    if not _uses_store(called):
        path = " ".join(["latlab", *([str(context.info_name)] if context.parent else []), called.name])
        raise BadInputError(f"`{path}` uses no store", "Leave --store out.")
    context.default_map = {**(context.default_map or {}), called.name: _with_store(called, store)}


def _uses_store(command: Any) -> bool:
    below = getattr(command, "commands", {}).values()
    return any(one.name == "store" for one in command.params) or any(map(_uses_store, below))


def _with_store(command: Any, store: StorePath) -> dict[str, Any]:
    """Return the defaults of a command, and of those below it, with this store."""
    below = {name: _with_store(one, store) for name, one in getattr(command, "commands", {}).items()}
    return below | {"store": store}


def milliseconds_of(option: str, text: str) -> float:
    """Return the milliseconds that a text such as `20ms`, `20`, `500 us` or `0.02s` stands for.

    Args:
        option: that gives it, for messages.
        text: a number, and its unit unless that is milliseconds.

    Raises:
        BadInputError: it is no positive time.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(ms|us|µs|s)?\s*", text)
    try:
        value = float(found[1]) * {"s": 1e3, "us": 1e-3, "µs": 1e-3}.get(found[2], 1.0) if found else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(
            f"{option} takes a time above 0, not {text!r:.60}",
            "Write a number and its unit, such as 20ms, 500us or 0.5s.",
        )
    return value


def amount_of(option: str, text: str, metric: str) -> float:
    """Return the value of a metric that a text stands for: milliseconds as `milliseconds_of`, else a number.

    The metric's unit may follow the number.

    Raises:
        BadInputError: it is no positive value.
    """
    unit = metric.rpartition("_")[2]
    if unit == "ms":
        return milliseconds_of(option, text)
    found = re.fullmatch(rf"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?:{re.escape(unit)})?\s*", text, re.IGNORECASE)
    try:
        value = float(found[1]) if found else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadInputError(f"{option} takes a number above 0, in {unit}, not {text!r:.60}")
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
