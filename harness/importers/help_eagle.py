"""Readers of files of plain values (pickles, PyTorch's archives) as HELP and EAGLE publish them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.source_table import Floats, Rows, fitting_space, rows_of
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace, get

__all__ = [
    "EAGLE",
    "HELP",
    "eagle_rows",
    "help_rows",
    "is_architectures",
    "is_eagle",
    "is_latencies",
    "latencies",
    "official_rows",
    "stem",
]

HELP = "HELP (Lee et al., NeurIPS 2021), MIT licence"
EAGLE = "EAGLE / LatBench (Dudziak et al., BRP-NAS, NeurIPS 2020); see its publisher for the licence"
NASBENCH201 = "nasbench201"
FBNET = "fbnet"
FBNET_GENES = 22


def is_latencies(value: Any) -> bool:
    """Return whether `value` is a non-empty list of numbers, HELP's form of a device's latencies."""
    return isinstance(value, list) and len(value) > 0 and all(type(item) in (int, float) for item in value)


def is_architectures(value: Any) -> bool:
    """Return whether `value` is a list of architectures, or a dict that holds one under "arch"."""
    value = _inner(value)
    return isinstance(value, list) and len(value) > 0 and all(type(item) in (list, dict, tuple) for item in value)


def is_eagle(value: Any) -> bool:
    """Return whether `value` is a dict with tuples as keys, EAGLE's form of a device's latencies."""
    return isinstance(value, dict) and len(value) > 0 and all(type(key) is tuple for key in value)


def _inner(value: Any) -> Any:
    return value.get("arch") if isinstance(value, dict) and type(value.get("arch")) is list else value


def official_rows() -> Rows:
    """Return all of NAS-Bench-201 in the official order, which HELP uses, too."""
    space = get(NASBENCH201)
    archs = list(space.enumerate())
    return Rows(space, archs, np.arange(len(archs)), _indices(len(archs)))


def latencies(value: Sequence[float]) -> Floats:
    """Return a list of HELP's as an array.

    If a number is too large for a float, all become infinite and are refused later.
    """
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        return np.full(len(value), np.inf)


def help_rows(value: Any, given: str | None, name: str) -> Rows:
    """Return the rows for HELP's architectures of FBNet (22 operation indices each) or OFA (`ks`, `e`, `d`, `r`).

    HELP timed FBNet in its CIFAR-100 setting, so that is the default space for them.

    Args:
        value: the file's content.
        given: the space, or None to find it.
        name: the file's name in errors.

    Raises:
        BadInputError: naming the index of the architecture that is wrong.
    """
    genes = [_genes(item, name, place) for place, item in enumerate(_inner(value))]
    if given is None and all(len(one) == FBNET_GENES for one in genes):
        given = FBNET
    space = fitting_space(genes, given, name, "from_genes")
    where = _indices(len(genes))
    return rows_of(space, _architectures(space, genes, where, name), where)


def _genes(item: Any, name: str, place: int) -> list[int]:
    if isinstance(item, dict):
        item = item.get("op_idx_list", item)
    if isinstance(item, dict):
        parts = [item.get(key) for key in ("r", "d", "ks", "e")]
        item = [one for part in parts for one in (part if isinstance(part, list | tuple) else [part])]
    if not all(type(one) is int for one in item):
        raise BadInputError(
            f"{name}, index {place}: not an architecture as HELP writes them",
            "FBNet's are lists of 22 operation indices, OFA's dicts of ks, e, d and r.",
        )
    return list(item)


def eagle_rows(value: dict[Any, Any], name: str) -> tuple[Rows, Floats]:
    """Return the rows and the latencies (in seconds) of EAGLE's dict for one device.

    EAGLE's operation indices are NAS-Bench-201's own (none, skip, 1x1, 3x3, pool), and its edges have the order of the
    architecture string. The published table confirms it: with this order of operations and edges, and with no other,
    exactly the connected networks are present, and every latency agrees with the table's.

    Raises:
        BadInputError: naming the key that is wrong.
    """
    space, keys = get(NASBENCH201), list(value)
    where = [f"key {key!r:.60}" for key in keys]
    latency = [value[key] for key in keys]
    wrong = [place for place, one in enumerate(latency) if type(one) not in (int, float)]
    if wrong:
        raise BadInputError(f"{name}, {where[wrong[0]]}: {latency[wrong[0]]!r:.60} is no latency")
    rows = rows_of(space, _architectures(space, keys, where, name), where)
    return rows, np.array(latency, dtype=np.float64)


def _architectures(
    space: SearchSpace, genes: Sequence[Sequence[int]], where: Sequence[str], name: str
) -> list[Architecture]:
    found = []
    for place, one in enumerate(genes):
        try:
            found.append(space.from_genes(one))
        except ArchitectureError as error:
            raise BadInputError(
                f"{name}, {where[place]}: {error}", "Is --space right? `latlab spaces` describes them."
            ) from error
    return found


def _indices(count: int) -> list[str]:
    return [f"index {place}" for place in range(count)]


def stem(path: Path) -> str:
    """Return the file's name up to the first dot: the device that the file is named after."""
    return path.name.split(".")[0] or path.name
