"""Fitted predictors as files: arrays in a safetensors file, everything else in a JSON file next to it. No pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from latlab.search_spaces import SearchSpace

__all__ = ["Arrays", "load", "restoring", "save"]

Arrays = Mapping[str, NDArray[Any]]


def save(folder: str | Path, predictor: str, space: SearchSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write `<predictor>.safetensors` and `<predictor>.json` into `folder`, which is made where it is missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stem = predictor.replace("-", "_")
    # Not safetensors' own save_file: it writes a file that only its owner may read.
    content = to_bytes({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    (folder / f"{stem}.safetensors").write_bytes(content)
    everything = {"predictor": predictor, "space": space.name, **facts}
    (folder / f"{stem}.json").write_text(json.dumps(everything, indent=1))


def load(folder: str | Path, predictor: str, space: SearchSpace) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays, among which `genes` of shape (n, genes) must be, and the facts that `save` wrote.

    Raises:
        ValueError: the folder holds no such predictor, one of another space, or files that cannot be read; the message
            says which, and for the last that the predictor is to be fitted again.
    """
    folder = Path(folder)
    stem = predictor.replace("-", "_")
    files = [folder / f"{stem}.json", folder / f"{stem}.safetensors"]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} holds no predictor {predictor}: {file.name} is missing")
    with restoring(folder):
        try:
            facts, arrays = json.loads(files[0].read_text()), load_file(files[1])
        except OSError as error:
            raise ValueError(f"its files cannot be read: {error}") from error
        saved_for = facts["space"]
    if saved_for != space.name:
        raise ValueError(f"{folder} holds a predictor of {saved_for}, not of {space.name}")
    with restoring(folder):
        width = arrays["genes"].shape[1]
        if width != space.num_genes:
            raise ValueError(f"its architectures have {width} genes, those of {space.name} {space.num_genes}")
    return arrays, facts


@contextmanager
def restoring(folder: str | Path) -> Iterator[None]:
    """Turn whatever goes wrong with the contents of `folder` inside the block into one `ValueError`.

    A folder of another version of latlab, or a damaged one, shows in many ways: a key that is missing, an array of
    another shape, weights that fit no network. The user can do one thing about all of them, and the message says it.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(
            f"{folder} does not hold a predictor of this version of latlab ({reason}): fit the predictor again"
        ) from error
