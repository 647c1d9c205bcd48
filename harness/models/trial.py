"""Finds shapes that a model runs with, by trying: for the command that an error message proposes.

It runs in a process of its own, because a model that is run with an unsuitable shape may end the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.errors import BadInputError
from latlab.harness.models.description import ModelDescription
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.inputs import Missing, UnsettledInputsError, settle
from latlab.harness.models.onnx_model import portable

__all__ = ["first_that_runs", "propose"]

TRIAL_S = 30.0
"""Longest time in seconds for all trials of a model."""
MOST_TRIALS = 60
"""Most shapes that are tried."""
MOST_CHOICES = 30
"""Most lengths that are tried for one side."""
MOST_COMBINATIONS = 100_000
"""Most combinations of lengths that are put in order."""
MOST_BYTES = 512 << 20
"""Largest model that is tried."""
LENGTHS = (224, 1, 128, 16, 640, 320, 256, 64, 48, 100, 512, 1000, 16000, 32, 2, 3, 4, 8)
"""Lengths that are tried for an open side about whose name nothing is known."""
IMAGE_SIDES = 4
"""Number of sides of a batch of images."""
IMAGE_LENGTHS = (224, 48, 32, 640, 320, 64)
"""Lengths that are tried for an open side of an image, if its name says nothing: photographs, lines of text."""
BY_NAME = (
    (("seq", "token", "length", "len"), (128, 16, 512, 1)),
    (("height", "width", "h", "w", "size"), (224, 640, 320, 256, 48, 32)),
    (("time", "frame", "t", "sample"), (100, 16000, 512, 1280, 32)),
    (("num", "count", "box"), (16, 1, 100)),
)
"""Lengths that are tried for an open side whose name has one of these words in it; the first ones first."""
NUMBERS = (16000, 1)
"""Values that are tried for arguments that are whole numbers, besides 0 and 1 at random: rates, sizes."""
SHAPES = (
    *(
        "1x3x224x224",
        "1x128:int64",
        "1x1x28x28",
        "1x3x32x32",
        "1x512",
        "1x16000",
        "1x80x100",
        "1x128",
        "1x1x16000",
        "1x64x100",
    ),
    *("1x16", "1x100x80", "1x3x640x640", "3x224x224", "1x10", "1x1x64x64", "1x32x32:int64", "scalar:float32"),
    *("scalar:int64", "1x8", "1x4", "1x2", "1x1", "1", "10", "2x3", "1x3x8x8", "1x4x4"),
)
"""Shapes that are tried where a file keeps none."""


def propose(
    description: ModelDescription,
    options: InputOptions,
    error: UnsettledInputsError,
    first_that_runs: Callable[[list[list[InputRequest]]], int],
    shapes: Sequence[str] = (),
) -> tuple[list[str], bool]:
    """Return options that settle what is missing, as words of a command, and whether the model runs with them.

    They are the first of several that it runs with. If there is none, they are plausible ones.

    Args:
        description: the model.
        options: what the user has said.
        error: what is missing.
        first_that_runs: returns the number of the first of several inputs with which the model runs, or -1.
        shapes: shapes to try first where the model keeps none.
    """
    numbers = [one.name for one in description.inputs if one.kind == "int" and not one.optional]
    settings = [[], *([word for name in numbers for word in ("--range", f"{name}={value}")] for value in NUMBERS)]
    attempts = [
        [*words, *setting]
        for words in islice(_attempts(error.missing, shapes), MOST_TRIALS // (3 if numbers else 1))
        for setting in (settings if numbers else [[]])
    ]
    requests: list[list[InputRequest]] = []
    kept = []
    for words in attempts:
        given = InputOptions(
            (*options.inputs, *_values(words, "--input")),
            (*options.dims, *_values(words, "--dim")),
            (*options.ranges, *_values(words, "--range")),
        )
        with suppress(BadInputError):
            requests.append(list(settle(description, given, None).inputs))
            kept.append(words)
    if not kept:
        return attempts[0], False
    found = first_that_runs(requests)
    return (kept[found], True) if 0 <= found < len(kept) else (kept[0], False)


def first_that_runs(runtime: str, path: Path, attempts: Sequence[Sequence[InputRequest]]) -> int:
    """Return the number of the first inputs with which a file runs here, in a process of its own; -1 if there are none.

    A file of more than `MOST_BYTES` is not tried.
    """
    if path.stat().st_size > MOST_BYTES:
        return -1
    requests = [[asdict(one) for one in inputs] for inputs in attempts]
    asked = {"runtime": runtime, "path": str(path.absolute()), "attempts": requests}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "latlab.harness.models.trial"],
            input=json.dumps(asked),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=TRIAL_S,
        )
        return int(done.stdout.strip() or -1)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return -1


def _values(words: Sequence[str], option: str) -> list[str]:
    return [value for name, value in zip(words[::2], words[1::2], strict=True) if name == option]


def _attempts(missing: Sequence[Missing], shapes: Sequence[str]) -> Iterator[list[str]]:
    """Yield options that settle everything, the likeliest first."""
    choices = [_choices(one, shapes)[:MOST_CHOICES] for one in missing]
    combinations: Iterable[tuple[int, ...]] = product(*(range(len(own)) for own in choices))
    if prod(len(own) for own in choices) > MOST_COMBINATIONS:  # then all sides step through their lengths together
        combinations = zip(*(range(MOST_CHOICES) for _ in choices), strict=True)
    for numbers in sorted(combinations, key=sum):
        lengths = [own[min(number, len(own) - 1)] for own, number in zip(choices, numbers, strict=True)]
        yield [word for one, length in zip(missing, lengths, strict=True) for word in one.option(length)]


def _choices(one: Missing, shapes: Sequence[str]) -> tuple[Any, ...]:
    if one.axis is None:
        known = tuple(dict.fromkeys((*shapes, *SHAPES)))
        return known if one.tensor.dtype is None else tuple(dict.fromkeys(shape.partition(":")[0] for shape in known))
    name = str((one.tensor.sides or ())[one.axis] or "").lower()
    if not name and one.axis and isinstance((one.tensor.sides or (None,))[0], int):
        return (1, *LENGTHS)  # behind a fixed first side stands the batch, as in the state of a recurrent network
    if len(one.tensor.sides or ()) == IMAGE_SIDES:
        return (*IMAGE_LENGTHS, *(length for length in LENGTHS if length not in IMAGE_LENGTHS))
    for words, lengths in BY_NAME:
        if any(word == name or (len(word) > 2 and word in name) for word in words):
            return (*lengths, *(length for length in LENGTHS if length not in lengths))
    return LENGTHS


def _run(asked: dict[str, Any]) -> int:
    """Return the number of the first attempt with which the model runs; -1 if there is none."""
    content = portable(Path(asked["path"])) if asked["runtime"] == "onnxruntime" else None
    if content is not None:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(content)
            file.flush()
            return _first_of({**asked, "path": file.name})
    return _first_of(asked)


def _first_of(asked: dict[str, Any]) -> int:
    from latlab.agents import runtimes

    for number, inputs in enumerate(asked["attempts"]):
        requests = [InputRequest(**{**one, "shape": tuple(one["shape"])}) for one in inputs]
        try:
            with runtimes.open(asked["runtime"], asked["path"], inputs=requests) as session:
                session.set_inputs(session.random_inputs(0))
                session.invoke()
        except Exception:
            continue
        return number
    return -1


if __name__ == "__main__":
    sys.stdout.write(f"{_run(json.load(sys.stdin))}\n")
