"""Predictors as the command line writes them: `ridge`, or with constructor options, `roost:synthetic=off`."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from importlib.metadata import entry_points
from types import NoneType
from typing import Any, get_args, get_type_hints

from latlab import predictors
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.active_learning.pretrained import Pretrained
from latlab.harness.errors import BadInputError
from latlab.predictors import Predictor
from latlab.predictors.encodings.table import EncodingTable
from latlab.search_spaces import SearchSpace

__all__ = ["PredictorSpec", "parse_specs"]

Option = bool | int | float | str
PRETRAINED = "pretrained"
"""The option of any predictor that names the folder of a pre-trained one."""
TABLE = "encoding_table"
"""The argument of constructors that is given by an option of its own (`--encoding-table`)."""
ALLOWED = {
    bool: "on or off",
    int: "a whole number, 0 or more",
    float: "a number, 0 or more",
    str: "a text that is no number",
}
"""The kinds of options that text can give, and how they are called."""
WORDS = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@dataclass(frozen=True)
class PredictorSpec:
    """A predictor's name, and keyword arguments for its constructor."""

    name: str
    options: tuple[tuple[str, Option], ...] = ()
    pretrained: Pretrained | None = None
    """The folder of a pre-trained predictor, which is used instead of training one."""

    @property
    def text(self) -> str:
        """The text that the command line would use, with the options in alphabetical order."""
        options = ",".join(f"{key}={_written(value)}" for key, value in sorted(self.options))
        if self.pretrained is not None:
            card = self.pretrained.card
            options = f"{PRETRAINED}={self.pretrained.folder}@{card.trained_at}"
        return f"{self.name}:{options}" if options else self.name

    def create(self, space: SearchSpace, seed: int, encodings: EncodingTable | None = None) -> Predictor:
        """Return a new predictor, or the pre-trained one.

        Args:
            encodings: what a predictor with the option `encoding` reads instead of computing it.

        Raises:
            BadInputError: an option has a value that the predictor does not take.
        """
        if self.pretrained is not None:
            return self.pretrained.predictor(space)
        options: dict[str, Any] = dict(self.options)
        if encodings is not None and "encoding" in options:
            options[TABLE] = encodings
        try:
            return predictors.create(self.name, space, seed=seed, **options)
        except ValueError as error:
            raise BadInputError(f"the predictor {self.text}: {error}") from error


def parse_specs(text: str) -> list[PredictorSpec]:
    """Parse `a,b:key=value,key=value,c`.

    A part with `=` but without `:` is a further option of the predictor before it.

    Raises:
        BadInputError: there is no such predictor or option.
    """
    found: list[tuple[str, dict[str, Option]]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, option = part.partition(":")
        if not colon and "=" in part:
            if not found:
                raise BadInputError(f"--predictor {text}: {part!r} has no predictor before it")
            name, option = "", part
        else:
            found.append((name, {}))
        if option:
            key, equals, value = option.partition("=")
            if not equals or not key:
                raise BadInputError(
                    f"--predictor {text}: {option!r} is no option", "Write them as NAME:key=value,key=value."
                )
            if key.strip() in found[-1][1]:
                raise BadInputError(f"--predictor {text}: {key.strip()} is given twice")
            found[-1][1][key.strip()] = _read(value.strip())
    if not found:
        raise BadInputError("--predictor names none", f"Installed are: {', '.join(predictors.names())}.")
    return [_spec(name, options) for name, options in found]


def _spec(name: str, options: dict[str, Option]) -> PredictorSpec:
    folder = options.pop(PRETRAINED, None)
    if folder is None:
        spec = PredictorSpec(name, tuple(sorted(options.items())))
        _check(spec)
        return spec
    if options:
        raise BadInputError(f"predictor {name} is trained already: {', '.join(options)} cannot be chosen any more")
    return PredictorSpec(name, pretrained=PredictorOptions(name, pretrained=str(folder)).folder)


def _check(spec: PredictorSpec) -> None:
    """Check that the constructor takes the options, so that a wrong one fails now and not at the first task."""
    points = list(entry_points(group="latlab.predictors", name=spec.name))
    if not points:
        raise BadInputError(f"unknown predictor {spec.name!r}; installed are: {', '.join(predictors.names())}")
    known = _option_kinds(points[0].load())
    for key, value in spec.options:
        if key not in known:
            raise BadInputError(
                f"predictor {spec.name} has no option {key!r}",
                f"Its options are: {', '.join(known)}." if known else "It has no options.",
            )
        if not any(_fits(value, kind) for kind in known[key]):
            wanted = " or ".join(sorted(ALLOWED[kind] for kind in known[key]))
            raise BadInputError(f"predictor {spec.name}: {key} is {_written(value)!r}, but must be {wanted}")


def _option_kinds(predictor: type[Predictor]) -> dict[str, set[type]]:
    """Return the options of a predictor that text can give, with their kinds: all where its code states none."""
    try:
        hints = get_type_hints(predictor.__init__)
    except NameError:  # of a plug-in whose annotations are not importable
        hints = {}
    names = [name for name in inspect.signature(predictor).parameters if name not in ("space", "seed", TABLE)]
    kinds = {name: set(get_args(hints[name]) or (hints[name],)) if name in hints else set(ALLOWED) for name in names}
    return {name: found - {NoneType} for name, found in kinds.items() if found <= {*ALLOWED, NoneType}}


def _fits(value: Option, kind: type) -> bool:
    """Return whether a value is of a kind; a number must be finite and no less than 0."""
    if kind in (bool, str):
        return type(value) is kind and value != ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return (kind is float or isinstance(value, int)) and value >= 0 and math.isfinite(value)


def _read(text: str) -> Option:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _written(value: Option) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
