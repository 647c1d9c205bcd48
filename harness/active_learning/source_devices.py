"""Source devices: what the store knows of other devices than the one under source_filter, imported or measured.

Predictors learn from them before they see a measurement of their target (`Predictor.pretrain`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Row

from latlab.harness.errors import BadInputError
from latlab.harness.store.comparable import comparable
from latlab.harness.store.sources import _imported
from latlab.harness.store.store import Store, StoreError
from latlab.harness.store.vocabulary import Status
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace

__all__ = ["ALL", "ENOUGH_LABELS", "MIN_LABELS", "NONE", "SourceFilter", "signature", "source_devices", "thinned"]

ALL, NONE = "all", "none"
ENOUGH_LABELS = 2000
"""Of a source, for a predictor that a command fits: more tell little, and pre-training takes as long as there are."""
MIN_LABELS = 10
"""Measured targets with fewer labels say too little about a device to be taken as a source unasked."""
COPY = 3
"""Labels that a source shares with the target to the last digit, from which on it is taken for a copy of it."""


@dataclass(frozen=True)
class SourceFilter:
    """What the sources are for.

    Args:
        target: the target under source_filter, which is never its own source.
        same_device: whether a device's name is another name of the target's device, or that itself.
        simulated: whether the target's latencies are made up; a simulated device is no source for a real one.
        holdout: architectures whose labels on the target's device stay unseen whichever target of it they are of: a
            second thread count would tell much of the hold-out's answers.
    """

    target: str | None = None
    same_device: Callable[[str], bool] = lambda _: False
    simulated: bool = False
    holdout: Collection[Architecture] = ()

    def is_own(self, target: str) -> bool:
        """Whether `target` is the one under source_filter, be it under another device's name."""
        if self.target is None:
            return False
        device, _, how = target.partition("/")
        return target == self.target or (how == self.target.partition("/")[2] and self.same_device(device))


# Importing


# Listing


# Handing out


def source_devices(
    store: Store, space: SearchSpace, source_filter: SourceFilter | None = None, which: str | Sequence[str] = ALL
) -> list[SourceDevice]:
    """What the store knows of other devices in `space`: imported sources, then measured targets, each by name.

    Args:
        which: `all`, `none`, or names: of imported sources, targets, or devices (all their targets).

    Raises:
        BadInputError: for a name that the store does not have.
    """
    source_filter = source_filter or SourceFilter()
    wanted = _wanted(which)
    if wanted is not None and not wanted:
        return []
    rows = store.table(space=space.name)
    rows = rows[rows["status"] == Status.OK]
    with store.transaction() as connection:
        known = _imported(connection, space.name)
        offered = {str(row.name) for row in known} | set(rows["target"]) | {t.split("/")[0] for t in rows["target"]}
        for name in wanted or ():
            if name not in offered:
                raise BadInputError(
                    f"the store {store.path} has no source {name} in {space.name}",
                    f"It has: {', '.join(sorted(offered)) or 'none'}. `latlab sources` lists them.",
                )
            if source_filter.target is not None and source_filter.is_own(name):
                raise BadInputError(f"{name} is the target itself, which cannot be its own source")
        chosen = [row for row in known if wanted is None or row.name in wanted]
        found = _from_labels(connection, store, space, chosen)
    own = rows[rows["target"] == source_filter.target]
    found = [source for source in found if not _is_copy(source, own, space)]
    for target, theirs in rows.groupby("target", sort=True):
        target = str(target)
        is_named = wanted is not None and (target in wanted or target.split("/")[0] in wanted)
        if source_filter.is_own(target) or (wanted is not None and not is_named):
            continue
        if not is_named and (len(theirs) < MIN_LABELS or (theirs["simulated"].any() and not source_filter.simulated)):
            continue
        source = _from_rows(target, comparable(theirs), space, source_filter)
        if is_named or len(source.genes) >= MIN_LABELS:
            found.append(source)
    return found


def _wanted(which: str | Sequence[str]) -> set[str] | None:
    """Names; None for all."""
    if which == ALL:
        return None
    names = which.split(",") if isinstance(which, str) else list(which)
    names = [name.strip() for name in names if name.strip()]
    if names == [NONE]:
        return set()
    if not names or {ALL, NONE} & set(names):
        raise BadInputError(f"{which!r} names no sources", "Use --sources all, none, or names separated by commas.")
    return set(names)


def _from_labels(
    connection: Connection, store: Store, space: SearchSpace, chosen: Sequence[Row[Any]]
) -> list[SourceDevice]:
    if not chosen:
        return []
    rows = connection.exec_driver_sql("SELECT id, arch FROM source_archs WHERE space = ?", (space.name,)).all()
    ids = np.array([row[0] for row in rows])
    try:
        genes = space.genes([space.parse(row[1]) for row in rows])
    except ArchitectureError as error:
        raise StoreError(
            f"the store {store.path} has sources of another {space.name} than is installed: {error}",
            "Remove them (latlab sources remove), or import into another store.",
        ) from error
    place = np.zeros(ids.max() + 1, dtype=np.intp)
    place[ids] = np.arange(len(ids))
    sources = []
    for source in chosen:
        cursor = connection.exec_driver_sql(
            "SELECT arch_id, latency_ms, stderr_ms FROM source_labels WHERE source_id = ?", (source.id,)
        )
        # As tuples: numpy takes a hundred times longer over SQLAlchemy's rows.
        labels = np.array([tuple(row) for row in cursor], dtype=np.float64)
        stderr = None if np.isnan(labels[:, 2]).all() else labels[:, 2]
        sources.append(SourceDevice(source.name, genes[place[labels[:, 0].astype(np.intp)]], labels[:, 1], stderr))
    return sources


def _from_rows(target: str, rows: pd.DataFrame, space: SearchSpace, source_filter: SourceFilter) -> SourceDevice:
    """Networks exported without their dead edges are their canonical forms, which are timed once."""
    archs = [space.parse(arch) for arch in rows["arch"]]
    if not rows["as_written"].iloc[0]:
        archs = [space.canonical(arch) for arch in archs]
    labels = dict(zip(archs, zip(rows["latency_ms"], rows["stderr_ms"], strict=True), strict=True))
    if source_filter.target is not None and source_filter.same_device(target.partition("/")[0]):
        for arch in source_filter.holdout:
            labels.pop(arch, None)
            labels.pop(space.canonical(arch), None)
    table = np.array(list(labels.values()), dtype=np.float64).reshape(-1, 2)
    return SourceDevice(target, space.genes(list(labels)), table[:, 0], np.nan_to_num(table[:, 1]))


def _is_copy(source: SourceDevice, own: pd.DataFrame, space: SearchSpace) -> bool:
    """Whether a source has the target's own labels: somebody exported and imported them again."""
    if own.empty:
        return False
    latencies: NDArray[np.float64] = own["latency_ms"].to_numpy(dtype=np.float64)
    theirs = dict(zip(map(tuple, source.genes.tolist()), source.latency_ms, strict=True))
    mine = zip((space.parse(arch).genes for arch in own["arch"]), latencies, strict=True)
    return sum(bool(theirs.get(genes) == latency) for genes, latency in mine) >= COPY


def thinned(source: SourceDevice, most: int) -> SourceDevice:
    """At most `most` of a source's labels, at random but the same whenever asked.

    Architectures are taken in the order of a hash of their genes, so that sources of the same architectures keep the
    same ones, by which they can be compared.
    """
    if len(source.genes) <= most:
        return source
    factors = np.random.default_rng(0).integers(1, 2**63, source.genes.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = (source.genes.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
    # The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014): sums of few genes differ in few bits.
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    keys ^= keys >> np.uint64(31)
    kept = np.sort(np.argpartition(keys, most)[:most])
    stderr = None if source.stderr_ms is None else source.stderr_ms[kept]
    return SourceDevice(source.name, source.genes[kept], source.latency_ms[kept], stderr)


def signature(sources: Sequence[SourceDevice]) -> dict[str, Any]:
    """What a saved predictor keeps of its sources: their names, sizes, and a hash of everything in them."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0")
        for array in (source.genes, source.latency_ms, source.stderr_ms):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    devices = [{"name": source.name, "architectures": len(source.genes)} for source in sources]
    return {"sources": devices, "sha256": digest.hexdigest()}
