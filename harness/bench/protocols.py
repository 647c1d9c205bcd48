"""Protocols: which measurements a predictor gets and what it is scored on. latlab's own, HELP's and NASFLAT's.

`latlab`: every measurement of the target counts in n, the ones that a predictor must have come first, and all other
measured architectures of the table are the test set.

`help` (Lee et al., Hardware-adaptive Efficient Latency Prediction, NeurIPS 2021, and its code): a source pool and a
test pool, cut by position in the table. A device keeps the middle 80 % of each pool by its own latency. This trims the
test set by the quantity to be predicted, which lowers rank correlations. The measurements are ten reference
architectures and n - 10 random ones of the source pool. References in the test pool stay there.

`nasflat` (Akhauri and Abdelfattah, On Latency Predictors for Neural Architecture Search, MLSys 2024, and its code): one
random set of architectures for all sources. Its authors' choice of measurements is the selection `diverse:zcp`. In the
sound form the test set is every architecture that was not measured; `nasflat_as_published` scores the first 128 of the
table, measured or not, as the authors' code does.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from latlab.harness.bench.tables import LatencyTable, Positions
from latlab.harness.errors import BadInputError
from latlab.predictors import Predictor, SourceDevice

__all__ = ["PROTOCOLS", "Protocol", "generator"]


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator for one purpose.

    It depends on the seed and the names of its purpose only, so that all predictors meet the same draws and can be
    compared in pairs.
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


class Protocol(ABC):
    """A protocol chooses sources, first measurements, pool and test set, all as rows of the table."""

    name: str
    """Its name on the command line."""
    samples: tuple[int, ...]
    """The budgets (measurements per target) if the user names none."""
    selections: tuple[str, ...] = ()
    """The selections that it allows; all of them where none is named."""

    @abstractmethod
    def source_samples(self, space: str) -> int:
        """Return the number of measurements per source device if the user names none."""

    @abstractmethod
    def sources(self, table: LatencyTable, devices: Sequence[str], count: int, seed: int) -> list[SourceDevice]:
        """Return the source devices with `count` measurements each."""

    def first(self, table: LatencyTable, device: str, predictor: Predictor) -> Positions:
        """Return the rows that must be measured before all others, as far as the device has their latency."""
        rows = table.rows_of(predictor.wanted())
        return rows[~np.isnan(table.column(device)[rows])]

    def pool(self, table: LatencyTable, device: str) -> Positions:
        """Return the rows that may be measured in addition to `first`."""
        return table.measured(device)

    def test(self, table: LatencyTable, device: str, paid: Positions) -> Positions:
        """Return the rows that predictions are scored on."""
        return np.setdiff1d(table.measured(device), paid)


def _source(table: LatencyTable, device: str, rows: Positions) -> SourceDevice:
    return SourceDevice(device, table.genes[rows], table.column(device)[rows])


class Latlab(Protocol):
    """The project's own protocol."""

    name = "latlab"
    samples = (5, 10, 20)

    def source_samples(self, space: str) -> int:
        return 800 if space.startswith("fbnet") else 900

    def sources(self, table: LatencyTable, devices: Sequence[str], count: int, seed: int) -> list[SourceDevice]:
        """Return random architectures, the same for all devices that have measured them."""
        order = generator(seed, "sources").permutation(len(table.genes))
        measured = {device: order[~np.isnan(table.column(device)[order])] for device in devices}
        return [_source(table, device, rows[:count]) for device, rows in measured.items()]


class Help(Protocol):
    """The protocol of HELP's paper and code."""

    name = "help"
    samples = (20,)
    selections = ("random",)
    trimmed = 0.1
    """The share of a pool that is dropped at either end of a device's latencies."""

    def source_samples(self, space: str) -> int:
        return 900 if space == "nasbench201" else 4000

    def _pool(self, table: LatencyTable, device: str, start: int, stop: int) -> Positions:
        latency = table.column(device)
        rows = np.arange(start, min(stop, len(table.genes)))
        rows = rows[~np.isnan(latency[rows])]
        rows = rows[np.argsort(latency[rows], kind="stable")]
        return rows[int(self.trimmed * len(rows)) : int((1 - self.trimmed) * len(rows))]

    def sources(self, table: LatencyTable, devices: Sequence[str], count: int, seed: int) -> list[SourceDevice]:
        """Return the middle 80 % of the source pool of each device. The pool's size is fixed."""
        if count != self.source_samples(table.space.name):
            raise BadInputError(
                f"protocol help has a source pool of {self.source_samples(table.space.name)} architectures",
                "Leave --source-samples out.",
            )
        return [_source(table, device, self._pool(table, device, 0, count)) for device in devices]

    def first(self, table: LatencyTable, device: str, predictor: Predictor) -> Positions:
        """Return the ten references of HELP's hardware embedding, for every predictor."""
        rows = table.rows_of(table.space.references())
        return rows[~np.isnan(table.column(device)[rows])]

    def pool(self, table: LatencyTable, device: str) -> Positions:
        """Return the middle 80 % of the source pool by the device's latency."""
        return self._pool(table, device, 0, self.source_samples(table.space.name))

    def test(self, table: LatencyTable, device: str, paid: Positions) -> Positions:
        """Return the middle 80 % of the thousand architectures after the source pool, paid or not."""
        start = self.source_samples(table.space.name)
        return self._pool(table, device, start, start + 1000)


class Nasflat(Protocol):
    """The protocol of NASFLAT's paper, with a sound test set."""

    name = "nasflat"
    samples = (20,)

    def source_samples(self, space: str) -> int:
        return 25 if space == "nasbench201" else 800

    def sources(self, table: LatencyTable, devices: Sequence[str], count: int, seed: int) -> list[SourceDevice]:
        """Return one random set of architectures that all of the devices have measured."""
        common = np.flatnonzero(~np.isnan([table.column(device) for device in devices]).any(axis=0))
        if len(common) < count:
            raise BadInputError(
                f"protocol nasflat wants {count} architectures that all of {', '.join(devices)} measured; "
                f"{table.name} has {len(common)}",
                "Lower --source-samples, or use --protocol latlab.",
            )
        rows = generator(seed, "sources").permutation(common)[:count]
        return [_source(table, device, rows) for device in devices]


class NasflatAsPublished(Nasflat):
    """The protocol of NASFLAT's code, whose test set may contain measured architectures."""

    name = "nasflat_as_published"
    scored = 128

    def test(self, table: LatencyTable, device: str, paid: Positions) -> Positions:
        """Return the first 128 rows of the table that the device has measured, paid or not."""
        rows = table.measured(device)
        return rows[rows < self.scored]


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol for protocol in (Latlab(), Help(), Nasflat(), NasflatAsPublished())
}
"""The protocols by name."""
