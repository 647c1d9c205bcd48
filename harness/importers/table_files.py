"""Readers of users' own tables, one row per architecture or one per measurement, and of latlab's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.importers.arch_formats import ARCH_COLUMNS, INDEX_COLUMNS, OFA_COLUMNS, rows_in
from latlab.harness.importers.columns import DEVICES, LatencyColumn, latency_columns
from latlab.harness.importers.grid import FORMS, Grid, as_numbers, is_empty
from latlab.harness.importers.source_table import Floats, Rows
from latlab.harness.importers.units import UNITS
from latlab.search_spaces import Architecture

__all__ = ["Column", "columns_of"]

IGNORED = ("index", "Unnamed: 0", "", "__index_level_0__")
"""Names of columns in which other programs write a table's row numbers."""
PREDICTED = ("lower_ms", "upper_ms", "measured")
"""Columns, beside `arch` and `latency_ms`, by which latlab's latency tables are known."""
HOLDOUT = "holdout"
"""The role (`store.vocabulary.Role`) of labels in latlab's exports that predictors must not learn from."""
MODELS = "model"
"""The space of users' own models in latlab's exports, whose labels belong to no space."""


@dataclass(frozen=True, eq=False)
class Column:
    """The latencies of one device in one space, one per row; NaN if not measured."""

    device: str | None
    """The device's name; None if the table does not say it."""
    rows: Rows
    latency: Floats
    stderr: Floats | None
    unit: str | None = None
    """The unit that the column's name says (`UNITS`), or None."""
    notes: tuple[str, ...] = ()
    """What was left out of the table, and why, in words."""
    key: str | None = None
    """The column's own name, by which a user may ask for it; None where rows say the device."""
    is_prediction: bool = False
    """True if these are predictions of latlab's and no measurements."""
    role: NDArray[np.object_] | None = field(default=None, repr=False)
    """The role of each row in latlab's exports (`store.vocabulary.Role`), or None."""
    simulated: bool = False
    """True if latlab says that some of its rows were simulated."""
    as_written: bool | None = None
    """Whether networks were exported with their dead edges, if latlab says so."""

    def holdout(self) -> frozenset[Architecture]:
        """Return the architectures that latlab has measured to judge predictors."""
        if self.role is None:
            return frozenset()
        return frozenset(self.rows.archs[self.rows.which[row]] for row in np.flatnonzero(self.role == HOLDOUT))


def columns_of(grid: Grid, given: str | None, only: str | None = None, form: str = "auto") -> list[Column]:
    """Return the latencies of each device in a table. A column `space` allows several spaces in one table.

    Args:
        grid: the table.
        given: the space, if the user names it.
        only: a device or a column; if the table has it, no other is read.
        form: the form of the architectures (`ARCH_FORMATS`).

    Raises:
        BadInputError: naming the row and the column that is wrong.
    """
    indices = INDEX_COLUMNS if form == "index" else ()
    columns = {key: values for key, values in grid.columns.items() if key not in IGNORED or key.lower() in indices}
    lower = [key.strip().lower() for key in grid.columns]
    ignored = next((key for key in grid.columns if key.strip().lower() in INDEX_COLUMNS), None)
    if ignored is not None and not any(one in lower for one in (*ARCH_COLUMNS, *indices, OFA_COLUMNS[-1])):
        raise BadInputError(
            f"{grid.name}: no column names the architectures (it has: {', '.join(grid.columns):.200})",
            f"If {ignored} is NAS-Bench-201's official index, say --arch-format index. {FORMS}",
        )
    keep = np.array([str(one) == "ok" for one in columns["status"]]) if "status" in columns else None
    device_key = next((key for one in DEVICES for key in columns if key.strip().lower() == one), None)
    taken = {
        "space",
        "status",
        device_key,
        *(key for key in columns if key.strip().lower() in (*ARCH_COLUMNS, *indices)),
    }
    if all(one in columns for one in OFA_COLUMNS):
        taken |= set(OFA_COLUMNS)
    rest = {key: values for key, values in columns.items() if key not in taken}
    is_table = all(one in columns for one in ("latency_ms", *PREDICTED))
    predicted = is_table and "measured_ms" not in columns
    if is_table:  # latlab's own latency table: only what was measured is a label
        rest = {key: rest[key] for key in (("latency_ms", "std_ms") if predicted else ("measured_ms", "stderr_ms"))
                if key in rest}  # fmt: skip
    latencies, left_out = latency_columns(rest, grid.name)
    if device_key is not None:
        latencies = _of_rows(latencies, device_key, grid.name)
    if only is not None and device_key is None and any(only in (one.key, one.device) for one in latencies):
        latencies = [one for one in latencies if only in (one.key, one.device)]
    notes = (f"left out, because they are no latencies: {', '.join(left_out):.300}",) if left_out else ()
    if predicted:
        notes = ("these are predictions of latlab, not measurements",)
    found = []
    for space, chosen in _by_space(columns, keep, len(grid.where), given):
        part: dict[str, Sequence[Any]] = {key: [values[row] for row in chosen] for key, values in columns.items()}
        where = [grid.where[row] for row in chosen]
        rows = rows_in(part, space, form, where, grid.name)
        for one in latencies:
            latency = as_numbers(part[one.key], where, one.key, grid.name)
            stderr = _errors(part, one, "std_ms" if predicted and "std_ms" in part else one.stderr, where, grid.name)
            column = Column(one.device, rows, latency, stderr, one.unit, notes, one.key, predicted)
            found += [column] if device_key is None else _split(column, part, device_key, only, grid.name)
    if not found:
        raise BadInputError(f"{grid.name}: it has no latencies", FORMS)
    return found


def _errors(
    part: Mapping[str, Sequence[Any]], one: LatencyColumn, key: str | None, where: Sequence[str], name: str
) -> Floats | None:
    """Return the standard errors of a column in the unit of its latencies, or None if there are none."""
    if key is None:
        return None
    stderr = as_numbers(part[key], where, key, name)
    if one.stderr_unit is not None and one.unit is not None:
        stderr = stderr * (UNITS[one.stderr_unit] / UNITS[one.unit]) if one.stderr_unit != one.unit else stderr
    return None if np.isnan(stderr).all() else stderr


def _of_rows(latencies: Sequence[LatencyColumn], device_key: str, name: str) -> list[LatencyColumn]:
    """Return the one column of latencies of a table whose rows say the device."""
    generic = [one for one in latencies if one.device is None]
    chosen = generic or (list(latencies) if len(latencies) == 1 else [])
    if len(chosen) != 1:
        raise BadInputError(
            f"{name}: each row names its device (column {device_key}), but no column is called latency",
            "Call the column of latencies latency_ms (or latency_s, latency_us).",
        )
    return chosen


def _split(column: Column, part: Mapping[str, Sequence[Any]], key: str, only: str | None, name: str) -> list[Column]:
    """Return a column for each device that the rows name."""
    where = column.rows.where
    devices = np.array(
        [_device(value, place, key, name) for value, place in zip(part[key], where, strict=True)], dtype=object
    )
    names = list(dict.fromkeys(devices))
    found = []
    for one in [only] if only in names else names:
        mine = devices == one
        latency = np.where(mine, column.latency, np.nan)
        found.append(replace(column, device=str(one), latency=latency, key=None, **_facts(part, mine)))
    return found


def _device(value: Any, where: str, key: str, name: str) -> str:
    """Return a row's device; a number is a name like any other."""
    if is_empty(value):
        raise BadInputError(f"{name}, {where}: {key} is empty", "Each row names its device.")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _facts(part: Mapping[str, Sequence[Any]], mine: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what a device's rows of latlab's own export say of themselves; nothing of other tables."""
    if not all(one in part for one in ("role", "simulated", "as_written", "policy_hash")):
        return {}
    simulated, written = (
        np.array([str(value) in ("True", "true", "1", "1.0") for value in part[one]])[mine]
        for one in ("simulated", "as_written")
    )
    return {
        "role": np.where(mine, np.array([str(one) for one in part["role"]], dtype=object), ""),
        "simulated": bool(simulated.any()),
        "as_written": bool(written[0]) if len(set(written.tolist())) == 1 else None,
    }


def _by_space(
    columns: Mapping[str, Sequence[Any]], keep: NDArray[np.bool_] | None, count: int, given: str | None
) -> list[tuple[str | None, NDArray[np.intp]]]:
    """Return the rows of each space. Rows of `latlab export` that have no label or are of user models are left out."""
    rows = np.arange(count) if keep is None else np.flatnonzero(keep)
    if "space" not in columns:
        return [(given, rows)]
    spaces = np.array([str(one) for one in columns["space"]], dtype=object)[rows]
    wanted = [given] if given is not None else [str(one) for one in dict.fromkeys(spaces) if one != MODELS]
    return [(space, rows[spaces == space]) for space in wanted if (spaces == space).any()]
