"""Tables of encodings: latlab's own, nasflat_latency's and NAS-Bench-Suite-Zero's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.importers.grid import Grid, as_numbers, read_csv, read_parquet
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.encodings.names import PROXIES
from latlab.predictors.encodings.table import EncodingTable
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace

__all__ = ["read_encoding_table", "read_genes"]

MAX_JSON_BYTES = 1_000_000_000
ARCH, OPS, INDEX = "arch", "ops", "index"
"""Columns that name the architecture: its string, its genes, its row in a table of latencies."""
FORMS = (
    "A table of encodings is Parquet, CSV or JSON. It has a column `arch` with strings or `ops` with genes, and "
    "columns of numbers; nasflat_latency's and NAS-Bench-Suite-Zero's files are read, too."
)
NASLIB_OPERATIONS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
"""NASLib's numbers of NAS-Bench-201's operations."""
NASLIB_EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))
"""NASLib's order of its edges, as (node, source)."""
DATASET = "cifar10"
"""The dataset that is read where a file has several."""


def read_encoding_table(path: Path, space: SearchSpace, genes: IntArray | None = None) -> EncodingTable:
    """Read a table of encodings.

    Args:
        path: the file.
        space: the space of its architectures.
        genes: architectures (m, genes) that rows without an architecture are numbered by; default: those of a finite
            space in the official order.

    Raises:
        BadInputError: naming the file, the row and the column that is wrong.
    """
    try:
        if path.suffix.lower() == ".json":
            return _read_json(path, space)
        grid = read_csv(path) if path.suffix.lower() in (".csv", ".tsv") else read_parquet(path)
    except OSError as error:
        raise BadInputError(f"cannot read the table {path}: {error.strerror or error}") from error
    return _from_grid(grid, space, genes)


def read_genes(space: SearchSpace, path: Path) -> list[Architecture]:
    """Return the architectures of a file with one per line: its string, or its genes as numbers; `#` begins a comment.

    Raises:
        BadInputError: the file cannot be read, or a line names no architecture of the space.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise BadInputError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInputError(f"cannot read {path}: {reason}") from error
    found = [
        space.from_genes(_parsed(space, line, f"{path}, line {number}", "Write a string, or genes as numbers."))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.startswith("#")
    ]
    if not found:
        raise BadInputError(f"{path} holds no architecture", "Write one per line: its string, or its genes as numbers.")
    return found


def _from_grid(grid: Grid, space: SearchSpace, genes: IntArray | None) -> EncodingTable:
    names = [name for name in grid.columns if name not in (ARCH, OPS, INDEX) and not name.startswith("Unnamed")]
    if not names:
        raise BadInputError(f"{grid.name} has no column of numbers", FORMS)
    vectors = np.stack([as_numbers(grid.columns[name], grid.where, name, grid.name) for name in names], axis=1)
    if ARCH in grid.columns or OPS in grid.columns:
        own = [
            _parsed(space, value, f"{grid.name}, {where}")
            for value, where in zip(grid.columns[ARCH if ARCH in grid.columns else OPS], grid.where, strict=True)
        ]
        return _table(grid.name, names, own, vectors)
    if genes is None and space.finite:
        genes = space.genes(list(space.enumerate()))
    if INDEX not in grid.columns and (genes is None or len(genes) != len(vectors)):
        raise BadInputError(f"{grid.name} does not say which architecture a row has", FORMS)
    if genes is None:
        raise BadInputError(
            f"{grid.name} has row numbers instead of architectures, and there is no table of latencies to count in",
            "Add a column `arch`.",
        )
    rows = np.arange(len(vectors))
    if INDEX in grid.columns:
        numbers = as_numbers(grid.columns[INDEX], grid.where, INDEX, grid.name)
        bad = np.flatnonzero(~((numbers >= 0) & (numbers < len(genes)) & (numbers == np.floor(numbers))))
        if len(bad):
            raise BadInputError(
                f"{grid.name}, {grid.where[bad[0]]}: index is {numbers[bad[0]]:g}, which is no row of a table of "
                f"{len(genes)} architectures"
            )
        rows = numbers.astype(np.int64)
    return _table(grid.name, names, [tuple(row) for row in genes[rows].tolist()], vectors)


def _table(name: str, columns: list[str], genes: list[tuple[int, ...]], vectors: FloatArray) -> EncodingTable:
    infinite = np.isinf(vectors)
    vectors = np.where(infinite, np.nan, vectors)
    if not np.isfinite(vectors).any():
        raise BadInputError(f"{name} has no number at all", FORMS)
    seen: dict[tuple[int, ...], int] = {}
    for row, own in enumerate(genes):
        if own in seen and not np.array_equal(vectors[row], vectors[seen[own]], equal_nan=True):
            raise BadInputError(f"{name} has two different rows of one architecture, with the genes {list(own)}")
        seen.setdefault(own, row)
    return EncodingTable(name, columns, np.array(list(seen), np.int64), vectors[list(seen.values())])


def _parsed(space: SearchSpace, value: Any, where: str, hint: str = FORMS) -> tuple[int, ...]:
    """Return the genes of a string or a list of genes."""
    try:
        if isinstance(value, str) and not re.fullmatch(r"[\s\d,;_\[\]()-]+", value):
            return space.parse(value).genes
        numbers = re.findall(r"-?\d+", value) if isinstance(value, str) else list(value)
        return space.from_genes([int(number) for number in numbers]).genes
    except (ArchitectureError, TypeError, ValueError) as error:
        raise BadInputError(f"{where}: {error}", hint) from error


def _read_json(path: Path, space: SearchSpace) -> EncodingTable:
    """Read {architecture: {proxy: number}}, or NAS-Bench-Suite-Zero's {dataset: {operations: {proxy: {score}}}}."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BadInputError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not a JSON file that can be read: {error!s:.200}", FORMS) from error
    if not isinstance(content, Mapping) or not content or not all(isinstance(one, Mapping) for one in content.values()):
        raise BadInputError(f"{path} holds no encodings by architecture", FORMS)
    suite = all(
        isinstance(inner, Mapping) and inner and all(isinstance(x, Mapping) for x in inner.values())
        for inner in content.values()
    ) and not any(name in PROXIES for one in content.values() for name in one)
    if suite:
        if len(content) > 1 and DATASET not in content:
            raise BadInputError(f"{path} has the datasets {', '.join(map(str, content))}, and none is {DATASET}")
        content = content[DATASET if DATASET in content else next(iter(content))]
    first = next(iter(content.values()))
    names = [name for name in first if name in PROXIES]
    if not names:
        raise BadInputError(f"{path} has none of the proxies {', '.join(PROXIES)}", FORMS)
    genes, vectors = [], []
    for text, values in content.items():
        where = f"{path}, {text!r:.60}"
        genes.append(_naslib(space, text, where) if suite else _parsed(space, text, where))
        try:
            row = [values[name]["score"] if isinstance(values[name], Mapping) else values[name] for name in names]
            vectors.append([np.nan if one is None else float(one) for one in row])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"{where}: not a number of each of {', '.join(names)} ({error!r})", FORMS) from error
    return _table(str(path), names, genes, np.array(vectors, np.float64))


def _naslib(space: SearchSpace, text: str, where: str) -> tuple[int, ...]:
    """Return the genes of NASLib's operation indices, such as (4, 0, 3, 1, 4, 3), or of any other spelling."""
    numbers = [int(one) for one in re.findall(r"\d+", text)] if re.fullmatch(r"[\s\d,()\[\]]+", text) else []
    if space.name != "nasbench201" or len(numbers) != len(NASLIB_EDGES):
        return _parsed(space, text, where)
    if max(numbers) >= len(NASLIB_OPERATIONS):
        raise BadInputError(f"{where}: operations are numbers from 0 to {len(NASLIB_OPERATIONS) - 1}")
    op_of = {edge: NASLIB_OPERATIONS[number] for edge, number in zip(NASLIB_EDGES, numbers, strict=True)}
    nodes = ("|".join(f"{op_of[node, source]}~{source}" for source in range(node)) for node in (1, 2, 3))
    return _parsed(space, "+".join(f"|{node}|" for node in nodes), where)
