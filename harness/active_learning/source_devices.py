"""Source devices: labels of devices other than the target's, imported or measured.

Predictors learn from them before they see a measurement of their target (`Predictor.pretrain`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Connection, Row

from latlab.harness.errors import BadInputError
from latlab.harness.store.comparable import comparable
from latlab.harness.store.damage import warn_of
from latlab.harness.store.drawing import scrambled
from latlab.harness.store.sources import imported_sources
from latlab.harness.store.store import Store, StoreError
from latlab.harness.store.tables import LABELS, Tables
from latlab.harness.store.vocabulary import Status
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace

__all__ = [
    "ALL", "ENOUGH_LABELS", "MIN_LABELS", "NONE", "SourceFilter", "signature", "source_devices", "thinned",
    "wanted_names",
]  # fmt: skip

ALL, NONE = "all", "none"
ENOUGH_LABELS = 2000
"""Most networks of a source whose labels commands pre-train on: more add little, and the time grows with their number.
Those of a measured target are drawn by their strings, and are fewer where several strings are one network."""
MIN_LABELS = 10
"""Fewest labels of a measured target that is a source without being named: fewer say too little about a device."""
COPY = 3
"""Number of labels equal to the target's to the last digit from which a source counts as a copy of the target."""


@dataclass(frozen=True)
class SourceFilter:
    """The rules that decide which sources a target may have.

    Args:
        target: the target that the predictor is for, which is never its own source; None for no target.
        same_device: returns whether a device's name stands for the target's device.
        simulated: whether the target's latencies are simulated. A simulated device is no source for a real one.
        holdout: architectures whose labels stay unseen on every target of the target's device: latencies with another
            number of threads would give away much about the hold-out.
    """

    target: str | None = None
    same_device: Callable[[str], bool] = lambda _: False
    simulated: bool = False
    holdout: Collection[Architecture] = ()

    def is_own(self, target: str) -> bool:
        """Return whether `target` is the filter's target, maybe under another name of its device."""
        if self.target is None:
            return False
        device, _, how = target.partition("/")
        return target == self.target or (how == self.target.partition("/")[2] and self.same_device(device))


def source_devices(
    store: Store,
    space: SearchSpace,
    source_filter: SourceFilter | None = None,
    which: str | Sequence[str] = ALL,
    most: int | None = None,
) -> list[SourceDevice]:
    """Return the source devices in `space`: imported ones, then measured targets, each kind sorted by name.

    Args:
        source_filter: the rules for the target; None to allow everything.
        which: `all`, `none`, or names: of imported sources, targets, or devices (all their targets).
        most: the most labels of each; of those that have more, the networks are drawn at random, but the same ones in
            each call and, as far as they have them, for all devices. None for all labels.

    Raises:
        BadInputError: if the store does not have a name, or it is the target itself.
        StoreError: if the stored sources do not fit the installed space.
    """
    source_filter = source_filter or SourceFilter()
    wanted = wanted_names(which, "sources", "--sources")
    if wanted is not None and not wanted:
        return []
    finished = store.finished(space.name)
    with store.reading() as connection:
        known = imported_sources(connection, store.path, space.name)
        offered = {str(row.name) for row in known} | set(finished) | {t.split("/")[0] for t in finished}
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
    found = _without_copies(found, store, space, source_filter.target)
    named = {t for t in finished if wanted is not None and not wanted.isdisjoint((t, t.split("/")[0]))}
    targets = {
        target
        for target, labels in finished.items()
        if not source_filter.is_own(target) and (target in named or (wanted is None and labels >= MIN_LABELS))
    }
    if targets:
        rows = store.table(target=targets, space=space.name, only=LABELS, networks=most)
        for source, is_simulated in _from_rows(rows[rows["status"] == Status.OK], space, source_filter):
            is_fit = len(source.genes) >= MIN_LABELS and (source_filter.simulated or not is_simulated)
            if source.name in named or is_fit:
                found.append(source)
    return found if most is None else [thinned(source, most) for source in found]


def wanted_names(which: str | Sequence[str], what: str, option: str) -> set[str] | None:
    """Return the names that `all`, `none`, names separated by commas, or a list of names stands for; None for all.

    Args:
        what: what the names are of, in errors.
        option: the option of the command line that takes them.
    """
    if which == ALL:
        return None
    names = which.split(",") if isinstance(which, str) else list(which)
    names = [name.strip() for name in names if name.strip()]
    if names == [NONE]:
        return set()
    if not names or {ALL, NONE} & set(names):
        raise BadInputError(f"{which!r} names no {what}", f"Use {option} all, none, or names separated by commas.")
    return set(names)


def _from_labels(
    connection: Connection, store: Store, space: SearchSpace, chosen: Sequence[Row[Any]]
) -> list[SourceDevice]:
    if not chosen:
        return []
    tables = Tables(connection)
    rows = tables.source_archs(space.name)
    ids = np.array([row[0] for row in rows], dtype=np.intp)
    try:
        genes = space.genes([space.parse(row[1]) for row in rows])
    except ArchitectureError as error:
        raise StoreError(
            f"the store {store.path} has sources of another {space.name} than is installed: {error}",
            "Remove them (latlab sources remove), or import into another store.",
        ) from error
    place = np.zeros(ids.max(initial=0) + 1, dtype=np.intp)
    place[ids] = np.arange(len(ids))
    sources = []
    for source in chosen:
        # As tuples: numpy takes a hundred times longer over SQLAlchemy's rows.
        labels = np.array(tables.source_labels(source.id), dtype=np.float64).reshape(-1, 3)
        labels = labels[np.isin(labels[:, 0], ids)]
        if len(labels):
            stderr = None if np.isnan(labels[:, 2]).all() else labels[:, 2]
            sources.append(SourceDevice(source.name, genes[place[labels[:, 0].astype(np.intp)]], labels[:, 1], stderr))
    warn_of(store.path, tables.damaged)
    return sources


def _from_rows(
    rows: pd.DataFrame, space: SearchSpace, source_filter: SourceFilter
) -> Iterator[tuple[SourceDevice, bool]]:
    """Yield measured targets as sources, sorted by name, and whether they are simulated.

    Args:
        rows: finished rows, columns as in `LABELS`.
    """
    networks, texts = pd.factorize(rows["arch"])  # each text is parsed once, however many targets it has
    written = space.genes([space.parse(text) for text in texts])
    canonical: NDArray[np.int64] | None = None
    for target, theirs in rows.assign(network=networks).groupby("target", sort=True):
        alike = comparable(theirs)
        genes = written
        if not alike["as_written"].iloc[0]:
            canonical = space.canonical_genes(written) if canonical is None else canonical
            genes = canonical
        source = _from_target(str(target), alike, genes, space, source_filter)
        yield source, bool(theirs["simulated"].any())


def _from_target(
    target: str, rows: pd.DataFrame, genes: NDArray[np.int64], space: SearchSpace, source_filter: SourceFilter
) -> SourceDevice:
    """Return a measured target as a source.

    Args:
        rows: its comparable rows; their column `network` is the place in `genes`.
        genes: genes of networks, shape (networks, num_genes); if they are canonical, a network that was measured under
            several names is in the source once.
    """
    genes = genes[rows["network"].to_numpy()]
    # As a dictionary does: the place of the first, and the label of the last.
    _, first, same = np.unique(genes, axis=0, return_index=True, return_inverse=True)
    last = np.zeros(len(first), dtype=np.intp)
    last[same.ravel()] = np.arange(len(genes))
    order = np.argsort(first)
    genes, last = genes[first[order]], last[order]
    if source_filter.target is not None and source_filter.same_device(target.partition("/")[0]):
        unseen = {form.genes for arch in source_filter.holdout for form in (arch, space.canonical(arch))}
        seen = np.array([tuple(one) not in unseen for one in genes.tolist()], dtype=bool)
        genes, last = genes[seen], last[seen]
    table = rows[["latency_ms", "stderr_ms"]].to_numpy(dtype=np.float64)[last]
    return SourceDevice(target, genes, table[:, 0], np.nan_to_num(table[:, 1]))


def _without_copies(
    sources: list[SourceDevice], store: Store, space: SearchSpace, target: str | None
) -> list[SourceDevice]:
    """Leave out sources that hold the target's own labels, because somebody exported and imported them again."""
    if not sources or target is None:
        return sources
    rows = store.table(target=target, space=space.name, only=("arch", "latency_ms", "status"))
    rows = rows[rows["status"] == Status.OK]
    own = [space.parse(arch).genes for arch in rows["arch"]]
    found = []
    for source in sources:
        theirs = dict(zip(map(tuple, source.genes.tolist()), source.latency_ms.tolist(), strict=True))
        same = sum(theirs.get(genes) == latency for genes, latency in zip(own, rows["latency_ms"], strict=True))
        if same < COPY:
            found.append(source)
    return found


def thinned(source: SourceDevice, most: int) -> SourceDevice:
    """Return a source with at most `most` of its labels, chosen at random, but the same in every call.

    Architectures are chosen by a hash of their genes. So sources with the same architectures keep the same ones, and
    can be compared by them.
    """
    if len(source.genes) <= most:
        return source
    factors = np.random.default_rng(0).integers(1, 2**63, source.genes.shape[1], dtype=np.uint64) | np.uint64(1)
    # Sums of few genes differ in few bits, hence scrambled.
    keys = scrambled((source.genes.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64))
    kept = np.sort(np.argpartition(keys, most)[:most])
    stderr = None if source.stderr_ms is None else source.stderr_ms[kept]
    return SourceDevice(source.name, source.genes[kept], source.latency_ms[kept], stderr)


def signature(sources: Sequence[SourceDevice]) -> dict[str, Any]:
    """Return what a saved predictor records of its sources: names, sizes, and a SHA-256 over all their data."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0")
        for array in (source.genes, source.latency_ms, source.stderr_ms):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    devices = [{"name": source.name, "architectures": len(source.genes)} for source in sources]
    return {"sources": devices, "sha256": digest.hexdigest()}
