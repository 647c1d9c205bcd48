"""Labels of a target in other search spaces than the one that is predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from latlab import search_spaces
from latlab.harness.active_learning.session_spread import ComparedSessions
from latlab.harness.active_learning.source_devices import ALL, wanted_names
from latlab.harness.active_learning.target_labels import target_labels
from latlab.harness.errors import BadInputError
from latlab.harness.store.comparable import comparable
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Role
from latlab.predictors import OtherSpace
from latlab.search_spaces import SearchSpace

__all__ = ["other_spaces", "spaces_of"]


def other_spaces(
    store: Store,
    target: str,
    space: SearchSpace,
    which: str | Sequence[str] = ALL,
    rows: pd.DataFrame | None = None,
) -> list[OtherSpace]:
    """Return the labels of a target in other search spaces, one value for each space, sorted by name.

    Labels of the user's own models and of single blocks belong to no space. Hold-outs are left out. Of the others only
    those are used that mean the same (`comparable`).

    Args:
        target: the full target.
        space: the space that is predicted.
        which: `all`, `none`, or names of spaces, as a list or separated by commas.
        rows: the target's labels on one level (`ComparedSessions`); None to read them.

    Raises:
        BadInputError: if the target has no labels in a space that is named.
    """
    found = spaces_of(store, target) if rows is None else _installed(rows["space"])
    names = [name for name in found if name != space.name]
    wanted = wanted_names(which, "search spaces", "--spaces-from")
    for name in wanted or ():
        if name not in names:
            raise BadInputError(
                f"in another space {name} there are no labels of {target}, in the store {store.path}",
                f"It has: {', '.join(names) or 'none'}.",
            )
    chosen = names if wanted is None else [name for name in names if name in wanted]
    if not chosen:
        return []
    if rows is None:
        own = target_labels(store, target)
        own = own[own["role"] != Role.HOLDOUT]
        rows = ComparedSessions(store, target, own).on_one_level(own)
    parts = [(name, rows[rows["space"] == name]) for name in chosen]
    return [_labels(search_spaces.get(name), part) for name, part in parts if len(part)]


def spaces_of(store: Store, target: str) -> list[str]:
    """Return the installed search spaces in which a target has labels, sorted."""
    return _installed(space for one, space in store.labelled() if one == target)


def _installed(spaces: Iterable[str]) -> list[str]:
    return sorted(set(search_spaces.names()).intersection(spaces))


def _labels(space: SearchSpace, rows: pd.DataFrame) -> OtherSpace:
    alike = comparable(rows)
    genes = space.genes([space.parse(text) for text in alike["arch"]])
    if not alike["as_written"].iloc[0]:
        genes = space.canonical_genes(genes)
    labels = alike[["latency_ms", "stderr_ms"]].to_numpy(dtype=float)
    return OtherSpace(space, genes, labels[:, 0], labels[:, 1])
