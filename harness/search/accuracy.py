"""Where accuracies come from: a table, a predictor of accuracy, a model, a function of the user's, or a cheap proxy."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.importers.arch_formats import ARCH_COLUMNS, INDEX_COLUMNS, rows_in
from latlab.harness.importers.grid import FORMS as LATENCY_FORMS
from latlab.harness.importers.grid import Grid, as_numbers, read_csv, read_parquet
from latlab.harness.store.errors import StoreWarning
from latlab.predictors.common.cost_totals import totals
from latlab.search_spaces import SearchSpace

__all__ = ["MOST", "PROXIES", "SOURCES", "AccuracySource", "Proxy", "Remembered", "Table", "as_accuracies", "table_of"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]

PROXIES = ("macs", "params")
"""Costs that may stand for the accuracy: larger networks are more accurate, by and large."""
SOURCES = (
    "A table (.csv, .parquet: columns arch and accuracy), the OFA accuracy predictor (.npz), an ONNX model (.onnx) "
    "over an encoding, module:function (its Python code is run here), or a proxy: macs, params."
)
"""What may be named as a source, for messages."""
MOST = 1e30
"""No accuracy is as large as this, in whatever unit: sums and squares of such numbers are none any more."""
SHOWN = 5
"""Most rows that an error names."""
FORMS = "A table has a column `arch` with canonical strings (or `index`, NAS-Bench-201's), and a column `accuracy`."


class AccuracySource(Protocol):
    """Something that gives accuracies: the higher, the better, in any unit."""

    name: str
    """In words, for results."""
    identity: str
    """Differs wherever accuracies may: a search continues only with the same ones."""
    quick: bool
    """Whether it answers so quickly that nothing is gained by remembering what it said."""

    def __call__(self, genes: Genes) -> Floats:
        """Return the accuracies of networks, given as genes (n, genes): shape (n,), NaN where it is not known.

        Raises:
            BadInputError: the source fails.
        """
        ...


def as_accuracies(found: Any, name: str, count: int) -> Floats:
    """Return what a source has said as accuracies: shape (count,).

    Args:
        found: numbers, booleans count as 0 and 1.
        name: the source's name in errors.
        count: the number of networks that it was asked about.

    Raises:
        BadInputError: they are of another shape, complex, not finite, or larger than `MOST`.
        ValueError, TypeError: they are no numbers.
    """
    values = np.asarray(found)
    if values.dtype.kind in "cmMV":
        raise BadInputError(f"{name} returned values of type {values.dtype}", "Return real numbers.")
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)  # a complex number among objects
        values = values.astype(np.float64)
    if values.shape != (count,):
        raise BadInputError(
            f"{name} returned an array of shape {values.shape} for {count} networks",
            f"It must return one accuracy for each row of genes: shape ({count},).",
        )
    good = np.abs(values) < MOST
    if not good.all():
        row = int(np.argmin(good))
        raise BadInputError(
            f"{name} returned {values[row]} for network {row} of {count}", f"Return finite numbers below {MOST:g}."
        )
    return values


@dataclass
class Proxy:
    """A cost in the place of the accuracy: `macs` or `params`."""

    space: SearchSpace
    cost: str

    def __post_init__(self) -> None:
        self.name, self.identity, self.quick = f"{self.cost}, a proxy", self.cost, True

    def __call__(self, genes: Genes) -> Floats:
        return np.asarray(totals(self.space)(self.space.canonical_genes(genes), self.cost)[:, 0])


@dataclass
class Table:
    """Accuracies by network, as a file has them."""

    name: str
    identity: str
    genes: Genes
    """The networks of the table, shape (m, genes)."""
    _known: Mapping[bytes, float] = field(repr=False)
    quick: bool = True

    def __call__(self, genes: Genes) -> Floats:
        keys = np.ascontiguousarray(genes)
        return np.array([self._known.get(row.tobytes(), np.nan) for row in keys], dtype=np.float64)


def table_of(path: Path, space: SearchSpace, column: str | None = None) -> Table:
    """Return the accuracies in a CSV or Parquet file.

    Args:
        path: its columns are `arch` (or another form that `latlab import` reads, or NAS-Bench-201's `index`), and
            accuracies, the higher, the better.
        column: the column of accuracies; None for the only one that may be.

    Raises:
        BadInputError: it cannot be read, has no accuracies, or architectures of another space.
    """
    try:
        return _table_of(path, space, column)
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror or error}") from error
    except BadInputError as error:  # the readers' own hint speaks of latencies
        raise BadInputError(error.message, FORMS if error.hint == LATENCY_FORMS else error.hint) from None


def _table_of(path: Path, space: SearchSpace, column: str | None) -> Table:
    content = path.read_bytes()
    grid = read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path)
    lower = {key.strip().lower() for key in grid.columns}
    by_index = not lower & {*ARCH_COLUMNS, "ks"} and bool(lower & set(INDEX_COLUMNS))
    chosen = _accuracy_column(grid, column)
    try:
        accuracies = as_numbers(grid.columns[chosen], grid.where, chosen, grid.name)
    except BadInputError as error:
        raise BadInputError(error.message, "Write accuracies as numbers; --accuracy-column names another.") from None
    rows = rows_in(grid.columns, space.name, "index" if by_index else "auto", grid.where, grid.name)
    good = np.flatnonzero(~np.isnan(accuracies))
    if not len(good):
        raise BadInputError(f"{path}: its column {chosen} has no number", "Write accuracies, the higher, the better.")
    _check_values(accuracies, grid.where, chosen, grid.name)
    which, place = np.unique(rows.which[good], return_index=True)
    _check_repeated(rows.which[good], accuracies[good], [grid.where[row] for row in good.tolist()], grid.name)
    genes, found = space.genes(list(rows.archs))[which], accuracies[good[place]]
    known = {row.tobytes(): float(one) for row, one in zip(genes, found, strict=True)}
    sha256 = hashlib.sha256(content).hexdigest()
    return Table(f"{chosen} of {path.name}", f"{sha256} {chosen}", genes, known)


def _check_values(accuracies: Floats, where: Sequence[str], column: str, name: str) -> None:
    """Raise `BadInputError` for the rows whose accuracy is infinite, or so large that it cannot be one."""
    wrong = np.flatnonzero(np.abs(accuracies) >= MOST).tolist()
    if wrong:
        shown = ", ".join(f"{accuracies[row]:g} in {where[row]}" for row in wrong[:SHOWN])
        more = f", and in {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        raise BadInputError(
            f"{name}: {column} is {shown}{more}, which is no accuracy",
            f"Write finite numbers below {MOST:g}, and nothing for an accuracy that is not known.",
        )


def _check_repeated(which: NDArray[np.intp], accuracies: Floats, where: Sequence[str], name: str) -> None:
    """Raise `BadInputError` if two rows of one network have different accuracies."""
    first: dict[int, int] = {}
    for row, network in enumerate(which.tolist()):
        other = first.setdefault(network, row)
        if accuracies[other] != accuracies[row]:
            raise BadInputError(
                f"{name}, {where[other]} and {where[row]}: one network has the accuracies "
                f"{accuracies[other]:.15g} and {accuracies[row]:.15g}",
                "Write one row for each network; of several trainings, their mean.",
            )


def _accuracy_column(grid: Grid, column: str | None) -> str:
    """Return the name of the column of accuracies."""
    taken = {*ARCH_COLUMNS, *INDEX_COLUMNS, "ks", "e", "d", "r", "__index_level_0__", "unnamed: 0", ""}
    others = [key for key in grid.columns if key.strip().lower() not in taken]
    if column is not None:
        if column not in grid.columns:
            raise BadInputError(f"{grid.name} has no column {column!r:.60}", f"It has: {', '.join(others):.300}.")
        return column
    exact = [key for key in others if key.strip().lower() == "accuracy"]
    likely = exact or [key for key in others if "acc" in key.lower()] or others
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise BadInputError(f"{grid.name} has no column of accuracies", "Call it accuracy.")
    raise BadInputError(
        f"{grid.name} has several columns that may be accuracies: {', '.join(likely):.300}",
        "Choose one with --accuracy-column.",
    )


class Remembered:
    """A source whose answers are remembered, so that nothing is asked about a network twice.

    What a function says may depend on files that its identity does not cover. So the source is asked once more about a
    few of the networks that are known already. If it now says something else, all are forgotten, with a warning.

    Args:
        source: the source.
        known: accuracies that an earlier run has left, by the bytes of the genes.
        follow: called after each answer, so that what is known can be saved.
    """

    CHUNK = 2000
    """Most networks that the source is asked about at once."""
    CHECKED = 5
    """Most networks of an earlier run that the source is asked about again."""
    SAME = 1e-5
    """Accuracies that differ by this share are the same: sums of 32-bit numbers depend on how many are asked for."""

    def __init__(
        self, source: AccuracySource, known: dict[bytes, float] | None = None, follow: Callable[[], None] | None = None
    ) -> None:
        self.name, self.identity, self.quick = source.name, source.identity, True
        self._source, self.known, self._follow = source, known if known is not None else {}, follow
        self._unchecked = bool(known)

    def _check(self) -> None:
        """Forget what an earlier run has left if the source now says something else."""
        keys = list(self.known)
        keys = [keys[at] for at in np.unique(np.linspace(0, len(keys) - 1, self.CHECKED).round().astype(int))]
        before = np.array([self.known[key] for key in keys])
        now = self._source(np.stack([np.frombuffer(key, np.int64) for key in keys]))
        apart = ~np.isclose(now, before, rtol=self.SAME, atol=self.SAME * float(np.abs(before).max()), equal_nan=True)
        if apart.any():
            self.known.clear()
            row = int(np.argmax(apart))
            warnings.warn(
                f"{self.name} says {now[row]:.6g} of a network of which it said {before[row]:.6g} in an earlier run. "
                "All accuracies that were remembered are forgotten and asked for again.",
                StoreWarning,
                stacklevel=3,
            )
        self._unchecked = False

    def __call__(self, genes: Genes) -> Floats:
        if self._unchecked:
            self._check()
        keys = [row.tobytes() for row in np.ascontiguousarray(genes)]
        new = list({key: row for row, key in enumerate(keys) if key not in self.known}.values())
        for start in range(0, len(new), self.CHUNK):
            rows = new[start : start + self.CHUNK]
            answers = self._source(genes[rows])
            self.known.update(zip((keys[row] for row in rows), answers.tolist(), strict=True))
            if self._follow is not None:
                self._follow()
        return np.array([self.known[key] for key in keys], dtype=np.float64)
