"""Latency tables: one row per architecture, one column of milliseconds per device, NaN if nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError
from latlab.harness.importers.grid import Grid, read_csv, read_parquet
from latlab.harness.importers.hat import hat_columns, is_hat
from latlab.harness.importers.source_table import labelled
from latlab.harness.importers.table_files import Column, columns_of
from latlab.predictors.base import FloatArray, IntArray
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["LatencyTable", "Positions", "read_table"]

Positions = NDArray[np.intp]
"""Row indices of a table."""


@dataclass(frozen=True)
class LatencyTable:
    """The latencies of m architectures.

    `genes` is int64 of shape (m, genes); each device's `latency_ms` has shape (m,), with NaN where it has none.
    """

    name: str
    space: SearchSpace
    genes: IntArray
    latency_ms: Mapping[str, FloatArray]

    def measured(self, device: str) -> Positions:
        """Return the rows for which `device` has a latency."""
        return np.flatnonzero(~np.isnan(self.column(device)))

    def column(self, device: str) -> FloatArray:
        """Return a device's latencies in milliseconds, NaN if not measured.

        Raises:
            BadInputError: the table has no such device.
        """
        if device not in self.latency_ms:
            raise BadInputError(
                f"{self.name} has no column {device!r}", f"Its devices are: {', '.join(self.latency_ms)}."
            )
        return self.latency_ms[device]

    @cached_property
    def _row_of(self) -> dict[bytes, int]:
        return {genes.tobytes(): row for row, genes in enumerate(self.genes)}

    def rows_of(self, archs: Sequence[Architecture]) -> Positions:
        """Return the rows of `archs`, in their order. Architectures that the table lacks are left out."""
        found = (self._row_of.get(genes.tobytes()) for genes in self.space.genes(archs))
        return np.array([row for row in found if row is not None], dtype=np.intp)


def read_table(path: Path, space: str) -> LatencyTable:
    """Read a Parquet or CSV file of any form that `latlab import` reads, or HAT's tables of all devices in one file.

    Rows of one architecture become one, with the mean of its latencies.

    Raises:
        BadInputError: naming the file, and the column and row that is wrong.
    """
    space_named(space)
    if not path.is_file():
        raise BadInputError(f"cannot read the table {path}: there is no such file")
    grid = read_csv(path) if path.suffix.lower() in (".csv", ".tsv") else read_parquet(path)
    columns = _hat(grid, space) if is_hat(list(grid.columns)) else columns_of(grid, space)
    rows = columns[0].rows
    return LatencyTable(
        str(path),
        rows.space,
        rows.space.genes(rows.archs),
        {column.device or path.stem: _latencies(column, str(path)) for column in columns},
    )


def _latencies(column: Column, name: str) -> FloatArray:
    """Return the latency of each architecture, checked and averaged."""
    source = labelled(
        column.rows,
        column.latency,
        column.unit or "ms",
        name,
        column.device or name,
        insist=True,
        format="",
        files=(),
        sha256="",
        citation="",
    )
    row_of = {arch: row for row, arch in enumerate(column.rows.archs)}
    latency = np.full(len(row_of), np.nan)
    latency[[row_of[arch] for arch in source.archs]] = source.latency_ms
    return latency


def _hat(grid: Grid, space: str) -> list[Column]:
    """Return HAT's sets as devices. A set is a task on a device; sets have different architectures."""
    (column,) = hat_columns(grid, "", space)
    sets = list(zip(grid.columns["task"], grid.columns["device"], strict=True))
    return [
        Column(
            f"{task}_{device}",
            column.rows,
            np.where([one == (task, device) for one in sets], column.latency, np.nan),
            None,
        )
        for task, device in dict.fromkeys(sets)
    ]
