"""Cards: JSON files that say what the other files of a folder are. The folder may come from anybody."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from latlab.harness.errors import BadInputError
from latlab.harness.text import clean

__all__ = ["read_card"]

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
