"""Labels that a user brings along, as measurements of a target: everything that reads measurements then uses them.

They are the rows of a campaign with the selection `imported`, one per architecture, without passes. How they were timed
is not known, so their campaign has a policy of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection

from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import SourceTable
from latlab.harness.store.dialects import run
from latlab.harness.store.store import Campaign, Store
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.targets import Target
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["POLICY", "KeptLabels", "keep_labels", "remove_labels"]

POLICY = TimingPolicy("imported", warmup=0, runs=1, trim=0.0, passes=1, spread=0)
"""The policy of imported campaigns: one pass that nobody has seen."""
INTERVAL = 1.96
"""Standard errors from the label to the ends of its 95 % interval."""


@dataclass(frozen=True)
class KeptLabels:
    """The result of importing one table as labels of a target."""

    target: str
    space: str
    new: int
    """Architectures that had no imported label."""
    changed: int
    """Architectures whose imported label was another one, which is replaced."""
    same: int
    """Architectures whose label was there already."""
    known: int
    """Architectures that latlab has measured on this target, too: what it has measured counts."""
    errors: int
    """Labels with a standard error."""
    simulated: bool
    as_written: bool
    notes: tuple[str, ...]

    @property
    def labels(self) -> int:
        """Number of labels in the table."""
        return self.new + self.changed + self.same


def keep_labels(
    store: Store, targets: Sequence[Target], tables: Sequence[SourceTable], as_written: bool = False
) -> list[KeptLabels]:
    """Keep tables as labels of targets, all or none. Importing again changes only what is different in the file.

    Args:
        targets: the target of each table.
        tables: the tables.
        as_written: whether networks were timed as published, with their dead edges, where a table does not say it.

    Returns:
        A result per table, in the same order.

    Raises:
        BadInputError: if two tables are of one target and space, or a table holds predictions.
        LatlabError: if another latlab is writing the store.
    """
    seen: set[tuple[str, str]] = set()
    for target, table in zip(targets, tables, strict=True):
        if table.is_prediction:
            raise BadInputError(
                f"{table.files[-1]}: it holds predictions of latlab, which are no labels",
                "Import measured labels (`latlab export` writes them), or this table as a source, without --as-target.",
            )
        if (str(target), table.space) in seen:
            raise BadInputError(
                f"{table.files[-1]}: there are two tables for {target} in {table.space}",
                "Import one at a time; --device NAME chooses one of a file's devices.",
            )
        seen.add((str(target), table.space))
    with store.writing():
        campaigns = [_campaign(store, target, table, as_written) for target, table in zip(targets, tables, strict=True)]
        with store.transaction() as connection:
            return [_keep(connection, one, table) for one, table in zip(campaigns, tables, strict=True)]


def _campaign(store: Store, target: Target, table: SourceTable, as_written: bool) -> tuple[Campaign, str]:
    """Return the campaign of a table, and the id of the facts that are known of its device."""
    options = {"as_written": as_written if table.as_written is None else table.as_written}
    facts = {
        "imported": {"files": list(table.files), "sha256": table.sha256, "unit": table.unit, "format": table.format},
        "simulated": table.simulated,
    }
    campaign = store.campaign(target, table.space, POLICY, 0, Selection.IMPORTED, options)
    return campaign, store.fingerprint(facts)


def _keep(connection: Connection, where: tuple[Campaign, str], table: SourceTable) -> KeptLabels:
    campaign, fingerprint = where
    known = {
        row.arch: row
        for row in run(
            connection,
            "SELECT id, arch, latency_ms, stderr_ms, role FROM measurements WHERE campaign_id = ?",
            (campaign.id,),
        )
    }
    measured = {
        row[0]
        for row in run(
            connection,
            "SELECT DISTINCT m.arch FROM measurements m JOIN campaigns c ON c.id = m.campaign_id "
            "WHERE c.target = ? AND c.space = ? AND c.selection NOT IN (?, ?, ?) AND m.status = ?",
            (campaign.target, table.space, Selection.IMPORTED.value, Selection.SUSTAIN.value, Selection.COMPARE.value,
             Status.OK.value),
        )
    }  # fmt: skip
    stderr = np.full(len(table.archs), np.nan) if table.stderr_ms is None else table.stderr_ms
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    new: list[tuple[Any, ...]] = []
    changed: list[tuple[Any, ...]] = []
    for arch, latency, error in zip(table.archs, table.latency_ms.tolist(), stderr.tolist(), strict=True):
        label = _label(latency, error if error == error else None)
        role = (Role.HOLDOUT if arch in table.holdout else Role.LISTED).value
        row = known.get(arch.text)
        if row is None:
            new.append((campaign.id, 1, arch.text, role, Status.OK.value, len(known) + len(new), fingerprint, "{}",
                        "{}", "{}", "", now, now, *label))  # fmt: skip
        elif (row.latency_ms, row.stderr_ms, row.role) != (*label[:2], role):
            changed.append((*label, role, fingerprint, now, row.id))
    if new:
        run(
            connection,
            'INSERT INTO measurements (campaign_id, session, arch, role, status, "order", fingerprint_id, artifact, '
            "metrics, times_s, verdict, started_at, finished_at, latency_ms, stderr_ms, low_ms, high_ms, raw_ms) "
            f"VALUES ({', '.join('?' * 18)})",
            new,
        )
    if changed:
        run(
            connection,
            "UPDATE measurements SET latency_ms = ?, stderr_ms = ?, low_ms = ?, high_ms = ?, raw_ms = ?, role = ?, "
            "fingerprint_id = ?, finished_at = ? WHERE id = ?",
            changed,
        )
    return KeptLabels(
        target=campaign.target,
        space=table.space,
        new=len(new),
        changed=len(changed),
        same=len(table.archs) - len(new) - len(changed),
        known=len(measured & {arch.text for arch in table.archs}),
        errors=int(np.isfinite(stderr).sum()),
        simulated=table.simulated,
        as_written=bool(campaign.options["as_written"]),
        notes=table.notes,
    )


def _label(latency_ms: float, stderr_ms: float | None) -> tuple[Any, ...]:
    """Return latency, standard error, the interval's ends and the raw latency, as columns of a measurement."""
    if stderr_ms is None:
        return latency_ms, None, None, None, latency_ms
    half = INTERVAL * stderr_ms
    return latency_ms, stderr_ms, max(latency_ms - half, 0.0), latency_ms + half, latency_ms


def remove_labels(store: Store, target: str, space: str | None = None) -> list[tuple[str, int]]:
    """Remove the imported labels of a target, of one space or of all; measured ones stay.

    Returns:
        The space and the number of labels of each campaign that was removed; nothing if there are none.
    """
    with store.writing(), store.transaction() as connection:
        found = run(
            connection,
            "SELECT c.id, c.space, count(*) AS labels FROM campaigns c JOIN measurements m ON m.campaign_id = c.id "
            "WHERE c.target = ? AND c.selection = ? AND c.space = coalesce(?, c.space) GROUP BY c.id",
            (target, Selection.IMPORTED.value, space),
        ).all()
        for one in found:
            run(connection, "DELETE FROM measurements WHERE campaign_id = ?", (one.id,))
            run(connection, "DELETE FROM campaigns WHERE id = ?", (one.id,))
        return [(str(one.space), int(one.labels)) for one in found]
