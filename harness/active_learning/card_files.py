"""Cards: JSON files that say what the other files of a folder are. The folder may come from anybody."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from latlab.harness.errors import BadInputError
from latlab.harness.text import clean

__all__ = ["card_from", "check_kinds", "known_fields", "read_card"]

MOST_BYTES = 1 << 20

T = TypeVar("T")


def read_card(folder: Path, name: str, parse: Callable[[object], T], what: str, hint: str) -> T:
    """Return what the card `name` of a folder says.

    Args:
        parse: makes it of JSON values; raises `ValueError` for what is none.
        what: what the folder holds, such as "predictor".
        hint: what to do if the folder has no such card.

    Raises:
        BadInputError: there is no card, or it is none.
    """
    path = folder / name
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > MOST_BYTES:
            raise ValueError("it is too large")
        return parse(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir():
            raise BadInputError(f"{folder} holds no {what}: {name} is missing", hint) from None
        raise BadInputError(f"there is no folder {folder}") from None
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path} is no card of a {what}: {clean(str(error))[:200]}") from error


def known_fields(card: type, values: object, format_: int, kinds: Mapping[str, type]) -> dict[str, Any]:
    """Return the JSON values of a card's fields, of the right types; those that it does not know are left out.

    Args:
        card: the dataclass of the card. Its `sources` are devices with a `name` and their number of `architectures`.
        values: what is to be the card.
        format_: the version of the form that is read.
        kinds: types of the fields that are no text.

    Raises:
        ValueError: it is no card, or of a newer latlab.
    """
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if values.get("format") != format_:
        raise ValueError(f"its format is {values.get('format')!r:.20}, this latlab reads {format_}")
    known = {one.name: values[one.name] for one in fields(card) if one.name in values}
    for name, value in known.items():
        if type(value) is not kinds.get(name, str):
            raise ValueError(f"its {name} is {value!r:.40}")
    for one in known.get("sources", ()):
        if not isinstance(one, dict) or [type(one.get(key)) for key in ("name", "architectures")] != [str, int]:
            raise ValueError(f"one of its sources is {one!r:.40}")
    return known


def check_kinds(known: Mapping[str, Any], name: str, *allowed: type) -> None:
    """Raise `ValueError` if a value of the mapping `name` of a card has another type."""
    wrong = [value for value in known.get(name, {}).values() if type(value) not in allowed]
    if wrong:
        raise ValueError(f"its {name} hold {wrong[0]!r:.40}")


def card_from(card: Callable[..., T], known: Mapping[str, Any]) -> T:
    """Return the card with these fields. Raises `ValueError` if one is missing."""
    try:
        return card(**known)
    except TypeError as error:
        raise ValueError(str(error).replace(f"{getattr(card, '__name__', card)}.__init__()", "it")) from None
