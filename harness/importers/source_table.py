"""The common result of all formats: a source device with checked labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlab.harness.architectures import is_block_space, space_named
from latlab.harness.errors import BadInputError
from latlab.harness.importers.units import LATENCY_MS, UNITS, check_unit
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace, get, names

__all__ = ["UNITS", "Rows", "SourceTable", "device_name", "fitting_space", "labelled", "rows_of"]

LOOKED_AT = 20
"""The number of rows that decide which space a file is of."""
UNLIKE = 300.0
"""The latencies of two networks of a space do not have such a ratio on one device, unless a runtime folds one to
nothing because its output is constant."""
RESERVED = ("all", "none")
"""Words with a meaning of their own on the command line, so no source may have them as its name."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SourceTable:
    """The latencies of one device in one space, from a file; arrays have shape (m,), in the order of `archs`."""

    name: str
    space: str
    archs: Sequence[Architecture]
    """The m architectures, all different."""
    latency_ms: Floats
    stderr_ms: Floats | None
    format: str
    unit: str
    files: tuple[str, ...]
    sha256: str
    """Hash of all files that it was made from."""
    citation: str
    """The publication of the data, and its licence if it is known."""
    notes: tuple[str, ...] = ()
    """Sentences about what was done to the labels."""
    is_prediction: bool = False
    """True if these are predictions of latlab's and no measurements."""
    simulated: bool = False
    """True if latlab says that some of the labels were simulated."""
    as_written: bool | None = None
    """Whether networks were exported with their dead edges, if latlab says so."""
    holdout: frozenset[Architecture] = frozenset()
    """Architectures that latlab has measured to judge predictors, which must not learn from them."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The architectures of a file: the different ones, and for each row the index of its own."""

    space: SearchSpace
    archs: Sequence[Architecture]
    which: NDArray[np.intp]
    """The index into `archs` of each row."""
    where: Sequence[str]
    """The name of each row in errors."""


def rows_of(space: SearchSpace, archs: Sequence[Architecture], where: Sequence[str]) -> Rows:
    """Return the rows for `archs`, one architecture per row, with possible repetitions."""
    positions: dict[Architecture, int] = {}
    which = np.array([positions.setdefault(arch, len(positions)) for arch in archs], dtype=np.intp)
    return Rows(space, list(positions), which, where)


def fitting_space(
    values: Sequence[Any], given: str | None, name: str, parse: str, where: Sequence[str] = ()
) -> SearchSpace:
    """Return the space `given`, or the only installed one that accepts the first `LOOKED_AT` of `values`.

    Args:
        values: architectures in some form.
        given: a space's name, or None.
        name: the file's name in errors.
        parse: the method of a space that reads the values: `parse` or `from_genes`.
        where: each row's name in errors, if there is one.

    Raises:
        BadInputError: naming the spaces to choose from, or what is wrong with the values.
    """
    if given is not None:
        return space_named(given)
    looked_at = values[:LOOKED_AT]
    wrong = {space: _wrong(space, parse, looked_at) for space in map(get, names())}
    fitting = [space for space, rows in wrong.items() if not rows]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        nearly, rows = min(wrong.items(), key=lambda one: len(one[1]))
        if 2 * len(rows) < len(looked_at):
            first = min(rows)
            place = f", {where[first]}" if where else ""
            raise BadInputError(
                f"{name}{place}: {rows[first]}",
                f"Of the first {len(looked_at)} rows, {len(looked_at) - len(rows)} are architectures of {nearly.name}.",
            )
        shown = f"{values[0]!s:.120}" if len(values) else "nothing"
        raise BadInputError(
            f"{name}: its architectures are of no space that latlab knows; the first is {shown}",
            "`latlab spaces` describes them; --space NAME says which is meant, and tells what is wrong with it.",
        )
    raise BadInputError(
        f"{name}: its architectures fit several spaces: {', '.join(space.name for space in fitting)}",
        "Say which one was measured: --space NAME.",
    )


def _wrong(space: SearchSpace, parse: str, values: Sequence[Any]) -> dict[int, Exception]:
    """Return the places of the values that are no architectures of a space, and why."""
    found: dict[int, Exception] = {}
    for place, value in enumerate(values):
        try:
            getattr(space, parse)(value)
        except (ArchitectureError, TypeError) as error:
            found[place] = error
    return found


def labelled(rows: Rows, latency: Floats, unit: str, name: str, device: str, stderr: Floats | None = None, *,
             insist: bool = False, batch_size: int | None = None, called: str | None = None, is_stated: bool = True,
             **facts: Any) -> SourceTable:  # fmt: skip
    """Return one column of latencies as a source device. Repeated architectures get the mean of their rows.

    Args:
        rows: the architectures of the rows.
        latency: each row's latency in `unit`; NaN if it was not measured.
        unit: one of `UNITS`.
        name: the file's name in errors.
        device: the device's name.
        stderr: each row's standard error in `unit`, if known.
        insist: whether to accept latencies that are impossible for the space.
        batch_size: the images of an inference; None where only the device's name may tell.
        called: the column's name in errors; by default the device's.
        is_stated: whether somebody has said the unit.
        facts: the other fields of `SourceTable`.

    Raises:
        BadInputError: a latency is not positive and finite, there is none, or their median is implausible.
    """
    scale = UNITS[unit]
    measured = ~np.isnan(latency)
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(measured & ~((latency > 0) & np.isfinite(scale * latency)))
    if len(wrong):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInputError(
            f"{name}, {rows.where[wrong[0]]}: the latency of {called or device} is {latency[wrong[0]]:g}{more}; "
            "it must be positive",
            "Leave out what was not measured, or write NaN.",
        )
    if not measured.any():
        raise BadInputError(f"{name}: {device} has no latency at all", "Leave it out.")
    if not insist:
        check_unit(rows.space, latency[measured], unit, name, device, batch_size, is_stated=is_stated)
        _check_alike(rows, latency, measured, f"the latency of {called or device}", name)
    impossible = np.flatnonzero(measured & ~_is_possible(scale * latency))
    if len(impossible):
        raise BadInputError(
            f"{name}, {rows.where[impossible[0]]}: the latency of {device} is {latency[impossible[0]]:g} {unit}; "
            f"nothing takes less than {LATENCY_MS[0]:g} ms or more than {LATENCY_MS[1]:g} ms",
            "Check the unit (--unit), or leave it out.",
        )
    with np.errstate(over="ignore"):
        _check_errors(rows, None if stderr is None else scale * stderr, measured, name, device)
    which = rows.which[measured]
    kept, inverse, counts = np.unique(which, return_inverse=True, return_counts=True)
    labels, notes = scale * latency[measured], list(facts.pop("notes", ()))
    if not is_stated:
        notes.append(f"{labels.min():.3g} to {labels.max():.3g} ms: no column names a unit, so they are taken as ms")
    errors = None if stderr is None else scale * stderr[measured]
    if len(kept) < len(which):
        notes.append(_merged(rows, labels, np.flatnonzero(measured), inverse, counts))
        means = np.bincount(inverse, labels) / counts
        errors = None if errors is None else np.sqrt(np.bincount(inverse, errors**2)) / counts
    else:
        order = np.argsort(which)
        means, errors = labels[order], None if errors is None else errors[order]
    return SourceTable(
        name=device_name(device, name),
        space=rows.space.name,
        archs=[rows.archs[index] for index in kept],
        latency_ms=means,
        stderr_ms=errors,
        unit=unit,
        notes=tuple(notes),
        **facts,
    )


def _check_alike(rows: Rows, latency: Floats, measured: NDArray[np.bool_], what: str, name: str) -> None:
    """Check that no latency is far from all others, as if it were in another unit. Blocks do differ that much."""
    if is_block_space(rows.space.name):
        return
    median = float(np.median(latency[measured]))
    with np.errstate(over="ignore"):
        far = np.flatnonzero(measured & ~((latency / median < UNLIKE) & (median / latency < UNLIKE)))
    wrong = [
        row for row in far.tolist() if latency[row] > median or not rows.space.is_constant(rows.archs[rows.which[row]])
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInputError(
            f"{name}, {rows.where[wrong[0]]}: {what} is {latency[wrong[0]]:g}{more}, where the median is {median:g}",
            "Are all in one unit? If they are right as they are, --insist.",
        )


def _is_possible(latency_ms: Floats) -> NDArray[np.bool_]:
    return np.asarray((latency_ms >= LATENCY_MS[0]) & (latency_ms <= LATENCY_MS[1]))


def _check_errors(rows: Rows, stderr: Floats | None, measured: NDArray[np.bool_], name: str, device: str) -> None:
    """Check that standard errors are finite and not negative, where they are known."""
    if stderr is None:
        return
    wrong = np.flatnonzero(measured & ~np.isnan(stderr) & ~((stderr >= 0) & (stderr <= LATENCY_MS[1])))
    if len(wrong):
        raise BadInputError(
            f"{name}, {rows.where[wrong[0]]}: the standard error of {device} is {stderr[wrong[0]]:g} ms",
            f"It must be from 0 to {LATENCY_MS[1]:g} ms; leave it empty where it is not known.",
        )


def _merged(
    rows: Rows, labels: Floats, places: NDArray[np.intp], inverse: NDArray[np.intp], counts: NDArray[np.intp]
) -> str:
    """Return a note about which labels are means of several rows."""
    several = np.flatnonzero(counts > 1)
    low, high = np.full(len(counts), np.inf), np.zeros(len(counts))
    np.minimum.at(low, inverse, labels)
    np.maximum.at(high, inverse, labels)
    apart = float((high / low)[several].max())
    first = np.flatnonzero(inverse == several[0])[:2]
    return (
        f"{len(several)} architectures are there more than once (the first: {rows.where[places[first[0]]]} and "
        f"{rows.where[places[first[1]]]}), up to {100 * (apart - 1):.3g} % apart: their means are taken"
    )


def device_name(text: str, where: str) -> str:
    """Return `text` as a source's name: slashes, commas and blanks become hyphens.

    Slashes separate the parts of a target, commas and blanks the names on the command line.

    Raises:
        BadInputError: no valid name is left.
    """
    name = re.sub(r"[/,\s]+", "-", text.strip()).strip("-")
    if not name or len(name) > 100 or not name.isprintable() or name in RESERVED:
        raise BadInputError(
            f"{where}: {text!r:.60} cannot be a source's name",
            "Choose one with --device NAME, or rename the column.",
        )
    return name
