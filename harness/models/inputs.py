"""How the inputs of a model are filled: what its file leaves open, settled by what its user says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlab.agents.protocol.load_request import MAX_INPUT_NAME, MAX_INPUTS, MAX_SIZE, InputRequest
from latlab.agents.runtimes.base import DTYPES
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import InputData
from latlab.harness.models.description import ModelDescription, Side, TensorInfo, shape_text
from latlab.harness.models.input_options import InputOptions, check_size, parse_input, read_arrays

__all__ = ["InputOptions", "SettledInputs", "UnsettledInputsError", "settle"]

BATCH_NAMES = re.compile(r"(?i)(mini_?)?batch([_ ]?(size|dim))?(_?\d+)?|n|b|bs|bsz")
"""Names that people give to the side of the batch."""
MADE_NAMES = re.compile(
    r"(?i)unk_*\d+|dim_?\d+|s\d+|d\d+|(\w+\.)?dynamicdimension[._]?\d+|p2o\..*|none|\?|-1|\w+_dim_0|\w+_dynamic_axes_1"
)
"""Names that converters give to sides of which they know nothing: as the first side, it is the batch."""
MOST_NAMED = 8
"""Most inputs that a message names."""
_INDEXED = re.compile(r"(.+)\[(\d{1,2})\]")
_CUT = "As it is, it cannot be measured: cut off the part that works on that input, and measure the rest."
NUMBERS = {"int": "int64", "float": "float32", "bool": "bool", "number": "float32"}
"""Kinds of TorchScript's arguments that are numbers, and the types that hold them."""


@dataclass(frozen=True)
class SettledInputs:
    """The inputs of a model as they are to be run."""

    inputs: tuple[InputRequest, ...]
    batch_size: int
    data: InputData | None = None
    remarks: tuple[str, ...] = ()
    """What a reader of the latency should know about the inputs."""

    @property
    def text(self) -> str:
        """The shapes as text, e.g. `1x3x224x224` or `ids=1x128 mask=1x128`."""
        if len(self.inputs) == 1:
            return shape_text(self.inputs[0].shape)
        shown = [f"{one.name}={_value_or_shape(one)}" for one in self.inputs[:4]]
        return " ".join([*shown, *([f"and {len(self.inputs) - 4} more"] if len(self.inputs) > 4 else [])])


def _value_or_shape(one: InputRequest) -> str:
    return str(one.low) if one.shape == () and one.low is not None and one.low == one.high else shape_text(one.shape)


class UnsettledInputsError(BadInputError):
    """Shapes of inputs are open or unknown, and the user has said nothing of them."""

    def __init__(self, message: str, hint: str | None, missing: Sequence[Missing], partial: Sequence[_Input]) -> None:
        super().__init__(message, hint)
        self.missing = missing
        """What is missing."""
        self.partial = partial
        """The inputs so far."""


@dataclass(frozen=True)
class Missing:
    """Something that the user has to say: the length of a side, or a whole shape."""

    tensor: TensorInfo
    axis: int | None
    """The open side; None if the whole shape is unknown."""

    def option(self, value: Any) -> list[str]:
        """Return the option that says it: a length for a side, or a shape with a type."""
        if self.axis is None:
            return ["--input", f"{self.tensor.name}={value}"]
        assert self.tensor.sides is not None
        side = self.tensor.sides[self.axis]
        return ["--dim", f"{side or f'{self.tensor.name}[{self.axis}]'}={value}"]


@dataclass
class _Input:
    """An input while it is being settled."""

    tensor: TensorInfo
    sides: list[Side] | None
    dtype: str | None
    low: int | None = None
    high: int | None = None
    from_user: bool = False

    def request(self) -> InputRequest:
        shape = None if self.sides is None else tuple(side for side in self.sides if isinstance(side, int))
        return InputRequest(self.tensor.name, shape, self.dtype, self.low, self.high)


def settle(description: ModelDescription, options: InputOptions, batch_size: int | None) -> SettledInputs:
    """Return how the inputs of a model are to be run.

    An open first side is the batch, unless its name says otherwise; sides of one name have one length; integer inputs
    that index a table are spread over it.

    Args:
        description: the model.
        options: what the user says.
        batch_size: length of the side of the batch; None for what the file or the other options say, else 1.

    Raises:
        UnsettledInputsError: if something stays open.
        BadInputError: if the options contradict the model or each other. The message lists all inputs.
    """
    return _Settling(description, options, batch_size).settle()


class _Settling:
    def __init__(self, description: ModelDescription, options: InputOptions, batch_size: int | None) -> None:
        self._model, self._options, self._batch_size = description, options, batch_size
        self._lengths: dict[str, int] = {}
        """Lengths of open sides, by name."""
        self._said: dict[str, str] = {}
        """Which option said so."""
        self._data: InputData | None = None
        self._inputs = [
            _Input(
                one,
                [] if one.kind in NUMBERS else None if one.sides is None else list(one.sides),
                NUMBERS.get(one.kind, one.dtype),
                high=one.high,
            )
            for one in description.inputs
        ]

    def settle(self) -> SettledInputs:
        long = [one.tensor.name for one in self._inputs if len(one.tensor.name) > MAX_INPUT_NAME]
        if len(self._inputs) > MAX_INPUTS or long:
            what = f"an input's name has {len(long[0])} characters" if long else f"it has {len(self._inputs)} inputs"
            most = f"{MAX_INPUTS} inputs, with names of {MAX_INPUT_NAME} characters"
            raise BadInputError(f"{self._model.path}: {what}; latlab measures models with at most {most}")
        self._read_data()
        self._read_inputs()
        self._inputs = [one for one in self._inputs if not one.tensor.optional or one.from_user]
        strange = [one.tensor for one in self._inputs if one.tensor.kind not in ("tensor", "list of tensors", *NUMBERS)]
        if strange:
            error = self._error(
                f"its input {strange[0].name!r} is of the kind {strange[0].kind}, which latlab cannot make up"
            )
            raise BadInputError(error.message, _CUT)
        self._read_dims()
        batch = self._settle_batch()
        self._fill()
        self._read_ranges()
        missing = self._missing()
        if missing:
            words = [
                one.tensor.name if one.axis is None else f"{one.tensor.name} {one.tensor.shape_text}" for one in missing
            ]
            which = ", ".join(list(dict.fromkeys(words))[:MOST_NAMED])
            which += f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
            what = "does not say the shape of its input" if missing[0].axis is None else "leaves open the shape of"
            message = f"{self._model.path} {what} {which}. {self._listing()}"
            raise UnsettledInputsError(message, None, missing, self._inputs)
        for one in self._inputs:
            if one.dtype is None:  # the file keeps no types: its weights say what it computes in
                one.dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(self._model.precision, "float32")
            if one.dtype not in DTYPES or (one.dtype == "bfloat16" and self._model.format == "onnx"):
                error = self._error(
                    f"its input {one.tensor.name!r} is of type {one.dtype}, which latlab cannot make up"
                )
                raise BadInputError(error.message, _CUT)
            check_size(f"{self._model.path}: input {one.tensor.name!r}", one.request().shape or ())
        return SettledInputs(
            tuple(one.request() for one in self._inputs), self._batch(batch), self._data, tuple(self._remarks())
        )

    def _read_data(self) -> None:
        if self._options.data is None:
            return
        path = Path(self._options.data)
        arrays = read_arrays(path)
        unknown = set(arrays) - {one.tensor.name for one in self._inputs}
        if unknown and len(arrays) == len(self._inputs) and all(re.fullmatch(r"arr_\d+", name) for name in arrays):
            arrays = dict(zip([one.tensor.name for one in self._inputs], arrays.values(), strict=True))
        elif unknown:
            raise self._error(f"{path} has the array {sorted(unknown)[0]!r}, which is none of its inputs")
        for one in self._inputs:
            if one.tensor.name not in arrays:
                if one.tensor.optional:
                    continue
                raise self._error(f"{path} lacks the input {one.tensor.name!r}")
            shape, dtype = arrays[one.tensor.name]
            self._give(one, shape, dtype, str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._data = InputData(path, digest)

    def _read_inputs(self) -> None:
        names = [one.tensor.name for one in self._inputs]
        seen: set[str] = set()
        for place, text in enumerate(self._options.inputs):
            name, shape, dtype = parse_input(text)
            if name is None:
                required = [one.tensor.name for one in self._inputs if not one.tensor.optional] or names
                if len(self._options.inputs) != len(required):
                    raise self._error(f"--input {text} does not say of which of its {len(required)} inputs")
                name = required[place]
            if name not in names:
                raise self._error(f"it has no input {name!r}")
            if name in seen:
                raise self._error(f"--input says the shape of {name!r} twice")
            seen.add(name)
            one = self._inputs[names.index(name)]
            self._give(one, shape, dtype, f"--input {text}")

    def _give(self, one: _Input, shape: Sequence[int] | None, dtype: str | None, said: str) -> None:
        """Take the shape and the type that an option says of an input."""
        one.from_user = True
        declared = one.tensor.sides
        if dtype is not None and one.dtype not in (None, dtype):
            raise self._error(f"{said}: the input {one.tensor.name!r} is {one.dtype}, not {dtype}")
        one.dtype = one.dtype or dtype
        if shape is None:
            return
        if declared is not None:
            fits = len(declared) == len(shape)
            fits = fits and all(d == s for d, s in zip(declared, shape, strict=True) if isinstance(d, int))
            if not fits:
                raise self._error(
                    f"its input {one.tensor.name!r} takes {shape_text(declared)}, not {shape_text(shape)}"
                )
            for side, length in zip(declared, shape, strict=True):
                if isinstance(side, str):
                    self._set(side, length, said)
        one.sides = list(shape)

    def _set(self, side: str, length: int, said: str) -> None:
        if self._lengths.get(side, length) != length:
            raise self._error(f"{said} makes {side!r} {length}, but {self._said[side]} makes it {self._lengths[side]}")
        self._lengths[side] = length
        self._said[side] = said

    def _read_dims(self) -> None:
        sides = {side for one in self._inputs for side in one.tensor.sides or () if isinstance(side, str)}
        names = [one.tensor.name for one in self._inputs]
        for text in self._options.dims:
            side, _, number = text.rpartition("=")
            if not side or not number.isascii() or not number.isdigit() or not 0 < int(number[:20]) <= MAX_SIZE:
                raise self._error(f"--dim {text} is not of the form NAME=LENGTH")
            indexed = _INDEXED.fullmatch(side)
            if side in sides:
                self._set(side, int(number), f"--dim {text}")
            elif indexed and indexed[1] in names:
                one, axis = self._inputs[names.index(indexed[1])], int(indexed[2])
                if one.tensor.sides is None or axis >= len(one.tensor.sides):
                    raise self._error(f"--dim {text}: the input {indexed[1]!r} has no side {axis}")
                declared = one.tensor.sides[axis]
                if isinstance(declared, str):
                    self._set(declared, int(number), f"--dim {text}")
                elif declared not in (None, int(number)):
                    raise self._error(f"--dim {text}: that side is {declared}")
                elif one.sides is not None:
                    one.sides[axis] = int(number)
            else:
                named = f"they are {', '.join(sorted(sides))}" if sides else "none has a name"
                raise self._error(f"--dim {text}: no open side has that name; {named}")

    def _settle_batch(self) -> int | None:
        """Settle the sides of the batch, and return its length; None if no open side is the batch."""
        named = [(side, at) for one in self._inputs for at, side in enumerate(one.tensor.sides or ())]
        names = {side for side, at in named if isinstance(side, str) and _is_batch(side, at)}
        given = {self._lengths[name] for name in names if name in self._lengths}
        first = [one for one in self._inputs if one.tensor.sides and one.tensor.sides[0] is None]
        given |= {one.sides[0] for one in first if one.sides and isinstance(one.sides[0], int)}
        if not names and not first:
            return None
        if self._batch_size is not None and given - {self._batch_size}:
            other = next(iter(given - {self._batch_size}))
            raise self._error(f"--batch-size {self._batch_size} contradicts the batch of {other} in the other options")
        length = self._batch_size or next(iter(sorted(given)), 1)
        for name in names - set(self._lengths):
            self._set(name, length, f"--batch-size {length}" if self._batch_size else "the usual batch of 1")
        for one in first:
            if one.sides and one.sides[0] is None:
                one.sides[0] = length
        return length

    def _fill(self) -> None:
        for one in self._inputs:
            if one.sides is not None:
                one.sides = [self._lengths.get(side, side) if isinstance(side, str) else side for side in one.sides]

    def _missing(self) -> list[Missing]:
        missing: list[Missing] = []
        seen: set[str] = set()
        for one in self._inputs:
            if one.sides is None:
                missing.append(Missing(one.tensor, None))
            for axis, side in enumerate(one.sides or ()):
                if not isinstance(side, int) and side not in seen:
                    missing.append(Missing(one.tensor, axis))
                    seen |= {side} if side else set()
        return missing

    def _batch(self, opened: int | None) -> int:
        """Return the batch size: of the open side, or else of the first sides, where the inputs agree on one."""
        if opened is not None:
            return opened
        firsts = {one.sides[0] for one in self._inputs if one.sides is not None and len(one.sides) > 1}
        first = next(iter(firsts)) if len(firsts) == 1 else 1
        batch = first if isinstance(first, int) and first <= 65536 else 1
        if self._batch_size not in (None, batch):
            raise self._error(f"it is fixed at batch {batch}: --batch-size {self._batch_size} cannot be had")
        return batch

    def _read_ranges(self) -> None:
        names = [one.tensor.name for one in self._inputs]
        for one in self._inputs:
            one.low = 0 if one.high is not None else None
        for text in self._options.ranges:
            name, equals, numbers = text.rpartition("=")
            match = re.fullmatch(r"(-?[0-9]{1,18})(?::(-?[0-9]{1,18}))?", numbers)
            if not equals and len(names) == 1:
                name = names[0]
            if match is None or int(match[1]) > int(match[2] or match[1]):
                raise self._error(f"--range {text} is not of the form NAME=LEAST:GREATEST or NAME=VALUE")
            if name not in names:
                raise self._error(f"--range {text}: it has no input {name!r}")
            one, low, high = self._inputs[names.index(name)], int(match[1]), int(match[2] or match[1])
            if (one.dtype or "float32").startswith(("float", "bool")):
                raise self._error(f"--range {text}: the input {name!r} is {one.dtype or 'float32'}, not of integers")
            if one.tensor.high is not None and (low < -one.tensor.high - 1 or high > one.tensor.high):
                raise self._error(f"--range {text}: {name!r} indexes a table of {one.tensor.high + 1} rows")
            least, most = _limits(one.dtype or "int64")
            if low < least or high > most:
                raise self._error(f"--range {text}: an {one.dtype} holds {least} to {most}")
            one.low, one.high = low, high

    def _remarks(self) -> list[str]:
        if self._data is not None:
            return [f"inputs from {self._data.path.name}"]
        remarks = []
        for one in self._inputs:
            if not (one.dtype or "").startswith(("int", "uint")) or one.dtype in ("int8", "uint8"):
                continue
            if one.high is None:
                remarks.append(f"values of {one.tensor.name}: 0 and 1 (--range {one.tensor.name}=0:N sets others)")
            else:
                values = f"values of {one.tensor.name}: {one.low} to {one.high}"
                remarks.append(values if one.low != one.high else f"value of {one.tensor.name}: {one.low}")
        return remarks

    def _error(self, message: str) -> BadInputError:
        return BadInputError(f"{self._model.path}: {message}. {self._listing()}")

    def _listing(self) -> str:
        """Return all inputs in words."""
        inputs = [
            f"{one.name} {one.dtype or ''} {one.shape_text if one.sides is not None else ''}".strip()
            + (f" ({one.kind})" if one.kind != "tensor" else " (optional)" if one.optional else "")
            for one in self._model.inputs
        ]
        shown = inputs if len(inputs) <= 12 else [*inputs[:10], f"and {len(inputs) - 10} more"]
        return f"Its inputs: {'; '.join(' '.join(text.split()) for text in shown) or 'none'}"


def _is_batch(side: str, axis: int) -> bool:
    """Return whether a named open side is the batch."""
    return bool(BATCH_NAMES.fullmatch(side)) or (axis == 0 and bool(MADE_NAMES.fullmatch(side)))


def _limits(dtype: str) -> tuple[int, int]:
    import numpy as np

    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
