"""How predictors are kept: arrays in a safetensors file, everything else in a JSON file beside it. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from latlab.search_spaces import SearchSpace

__all__ = ["Arrays", "load", "save"]

Arrays = Mapping[str, NDArray[Any]]


def save(folder: Path, predictor: str, space: SearchSpace, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Write `<predictor>.safetensors` and `<predictor>.json` into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = predictor.replace("-", "_")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / f"{stem}.safetensors")
    everything = {"predictor": predictor, "space": space.name, **facts}
    (folder / f"{stem}.json").write_text(json.dumps(everything, indent=1))


def load(folder: Path, predictor: str, space: SearchSpace) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What `save` wrote: arrays and facts.

    Raises:
        ValueError: the folder holds no such predictor, or one of another space.
    """
    stem = predictor.replace("-", "_")
    try:
        facts = json.loads((folder / f"{stem}.json").read_text())
        arrays = load_file(folder / f"{stem}.safetensors")
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no predictor {predictor}: {error.filename} is missing") from error
    if facts["space"] != space.name:
        raise ValueError(f"{folder} holds a predictor of {facts['space']}, not of {space.name}")
    return arrays, facts
