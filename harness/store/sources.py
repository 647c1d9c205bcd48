"""Source devices: latency tables that others measured, imported into the store, listed and removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from sqlalchemy import Connection, Row

from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import SourceTable
from latlab.harness.store.damage import damaged, warn_of, without
from latlab.harness.store.dialects import dialect_of, run
from latlab.harness.store.place import StorePath
from latlab.harness.store.schema import Source
from latlab.harness.store.store import Store
from latlab.harness.store.tables import Tables
from latlab.harness.store.vocabulary import USER_MODEL_SPACE
from latlab.harness.targets import PRECISIONS
from latlab.search_spaces.block_space import SUFFIX

__all__ = ["ImportResult", "keep", "listing", "precision_of", "remove"]

_STATED = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(PRECISIONS)})(?![A-Za-z0-9])")


@dataclass(frozen=True)
class ImportResult:
    """The result of importing one table."""

    name: str
    space: str
    architectures: int
    is_new: bool
    """False if the same file had been imported before."""
    notes: tuple[str, ...]


def keep(store: Store, tables: Sequence[SourceTable]) -> list[ImportResult]:
    """Add imported tables to the store, all or none; a table that is there already stays as it is.

    Returns:
        A result per table, in the same order.

    Raises:
        BadInputError: if a table of another file has the same name and space.
    """
    with store.transaction() as connection:
        return [_keep(connection, table) for table in tables]


def _keep(connection: Connection, table: SourceTable) -> ImportResult:
    known = run(
        connection,
        "SELECT id, sha256, unit, origin FROM sources WHERE name = ? AND space = ?",
        (table.name, table.space),
    ).one_or_none()
    kept = ImportResult(table.name, table.space, len(table.archs), known is None, table.notes)
    if known is not None:
        if (known.sha256, known.unit) == (table.sha256, table.unit):
            return kept
        raise BadInputError(
            f"the store has a source {table.name} of {table.space} already, from {known.origin} (in {known.unit})",
            f"Remove it first (latlab sources remove {table.name}), or call this one otherwise: --device NAME.",
        )
    values = (
        table.name, table.space, table.format, ", ".join(table.files), table.sha256, table.unit, table.citation,
        "; ".join(table.notes), datetime.now(UTC).isoformat(timespec="milliseconds"),
    )  # fmt: skip
    source = dialect_of(connection).insert(
        connection,
        "INSERT INTO sources (name, space, format, origin, sha256, unit, citation, notes, imported_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    ids = _arch_ids(connection, table)
    stderr = [None] * len(ids) if table.stderr_ms is None else table.stderr_ms.tolist()
    labels = zip([source] * len(ids), ids, table.latency_ms.tolist(), stderr, strict=True)
    run(
        connection,
        "INSERT INTO source_labels (source_id, arch_id, latency_ms, stderr_ms) VALUES (?, ?, ?, ?)",
        sorted(labels),
    )
    return kept


def _arch_ids(connection: Connection, table: SourceTable) -> list[int]:
    """Return the ids of the table's architectures, in its order; new ones are added."""

    def known() -> dict[str, int]:
        rows = run(connection, "SELECT arch, id FROM source_archs WHERE space = ?", (table.space,))
        return {row[0]: row[1] for row in rows}

    ids = known()
    missing = [(table.space, arch.text) for arch in table.archs if arch.text not in ids]
    if missing:
        run(connection, "INSERT INTO source_archs (space, arch) VALUES (?, ?)", missing)
        ids = known()
    return [ids[arch.text] for arch in table.archs]


def remove(store: Store, name: str, space: str | None = None) -> list[tuple[str, int]]:
    """Remove an imported source, of one space or of all.

    Returns:
        The space and the number of architectures of each table that was removed.

    Raises:
        BadInputError: if there is no imported source of that name.
    """
    with store.transaction() as connection:
        found = run(
            connection,
            "SELECT s.id, s.space, count(*) AS labels FROM sources s JOIN source_labels l ON l.source_id = s.id "
            "WHERE s.name = ? AND s.space = coalesce(?, s.space) GROUP BY s.id",
            (name, space),
        ).all()
        if not found:
            known = _names(imported_sources(connection, store.path))
            raise BadInputError(
                f"the store {store.path} has no imported source {name}{f' of {space}' if space else ''}",
                f"It has: {known or 'none'}. What was measured here cannot be removed.",
            )
        for source in found:
            run(connection, "DELETE FROM sources WHERE id = ?", (source.id,))
        run(connection, "DELETE FROM source_archs WHERE space NOT IN (SELECT DISTINCT space FROM sources)")
        return [(str(source.space), int(source.labels)) for source in found]


def _names(rows: Iterable[Row[Any]]) -> str:
    return ", ".join(sorted({str(row.name) for row in rows}))


def imported_sources(connection: Connection, path: StorePath, space: str | None = None) -> list[Row[Any]]:
    """Return the rows of imported sources without damaged ones, which it warns of.

    Args:
        connection: to the store.
        path: the store, for the warning.
        space: only those of this space.
    """
    with dialect_of(connection).tolerant(connection):
        found = run(
            connection,
            "SELECT s.*, (SELECT count(*) FROM source_labels l WHERE l.source_id = s.id) AS architectures "
            "FROM sources s WHERE s.space = coalesce(?, s.space) ORDER BY s.space, s.name",
            (space,),
        ).all()
    columns = {name: [one._mapping[name] for one in found] for name in Source.__table__.columns.keys()}  # noqa: SIM118
    bad = damaged("sources", columns["id"], columns)
    warn_of(path, list(bad.values()))
    return without(bad, found)


def precision_of(name: str) -> str | None:
    """Return the precision that the name of a source states, or None.

    A measured target has it as a part of its own. Published tables have it in the names of devices, as EAGLE
    (`embedded_tpu_edge_tpu_int8`); where the name says nothing, nothing is assumed.

    >>> precision_of("mobile_dsp_snapdragon_855_hexagon_690_int8"), precision_of("pixel3")
    ('int8', None)
    """
    stated = _STATED.findall(name.replace("_", " "))
    return str(stated[-1]) if stated else None


def _origin(labels: int, imported: int, simulated: bool) -> str:
    """Return where the labels of a target are from, in words."""
    if simulated:
        return "simulated"
    if not imported:
        return "measured here"
    return "labels imported for it" if imported == labels else f"measured here, and {imported} imported labels"


def listing(store: Store) -> pd.DataFrame:
    """Return every device that the store has latencies of, imported or measured, one row per space.

    Returns:
        Columns name, space, precision, kind (imported or measured), architectures, origin, unit, citation, notes,
        imported_at. The precision of an imported source is what its name says, or None.
    """
    columns = ["name", "space", "precision", "kind", "architectures", "origin", "unit", "citation", "notes"]
    columns.append("imported_at")
    with store.reading() as connection:
        rows = [
            {**row._mapping, "kind": "imported", "precision": precision_of(row.name)}
            for row in imported_sources(connection, store.path)
        ]
        tables = Tables(connection)
        labelled = tables.labelled()
    warn_of(store.path, tables.damaged)
    for one in labelled:
        target, space = str(one["target"]), str(one["space"])
        if space != USER_MODEL_SPACE and not space.endswith(SUFFIX):
            rows.append(
                {
                    "name": target,
                    "space": space,
                    "kind": "imported" if one["imported"] == one["labels"] else "measured",
                    "architectures": one["architectures"],
                    "origin": _origin(one["labels"], one["imported"], one["simulated"]),
                    "precision": precision_of(target),
                }
            )
    return pd.DataFrame(rows, columns=columns)
