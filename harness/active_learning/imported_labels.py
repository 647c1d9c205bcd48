"""Importing a user's own labels as those of a target, and their use in the closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.errors import BadInputError
from latlab.harness.importers.read import read_sources
from latlab.harness.importers.source_table import SourceTable, device_name
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.store.own_labels import KeptLabels, keep_labels
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.targets import DEFAULT_RUNTIME, Target

__all__ = ["EACH", "give_imported", "import_labels", "named_target"]

EACH = "each"
"""The word that stands for the targets that the rows of a file name themselves."""


def import_labels(
    store: Store,
    inventory: Inventory,
    files: Sequence[Path],
    as_target: str,
    *,
    device: str | None = None,
    as_written: bool = False,
    **how: Any,
) -> list[KeptLabels]:
    """Import files as labels of a target. Arguments and errors: `Lab.import_labels`."""
    target = None if as_target == EACH else named_target(as_target, store, inventory)
    batch_size = target.batch_size if target is not None else None
    tables = read_sources(files, device=device, batch_size=batch_size, **how)
    if target is None:
        return keep_labels(store, [_own_target(table) for table in tables], tables, as_written)
    names = {table.name for table in tables}
    mine = device_name(str(target), "the target")
    if len(names) > 1:
        tables = [table for table in tables if table.name == mine]
        if not tables:
            targets = f"; --as-target {EACH} takes them all" if all(name.count("-") > 4 for name in names) else ""
            raise BadInputError(
                f"{files[0]}: it has several devices ({', '.join(sorted(names)):.300}), and {target} is one",
                f"Say which of them it is: --device NAME{targets}.",
            )
    return keep_labels(store, [target] * len(tables), tables, as_written)


def _own_target(table: SourceTable) -> Target:
    """Return the target that a table's rows name. It has hyphens where a target has slashes (`device_name`)."""
    parts = table.name.rsplit("-", 5)
    try:
        return Target.parse("/".join(parts))
    except BadInputError as error:
        raise BadInputError(
            f"{table.files[-1]}: its rows name {table.name}, which is no full target",
            "Say which target it is: --as-target DEVICE/RUNTIME/ACCELERATOR/PRECISION/tTHREADS/bBATCH.",
        ) from error


def named_target(text: str, store: Store, inventory: Inventory) -> Target:
    """Return the target that a text names, in full or in part.

    A device alone stands for its only target in the store, else for its first one in the inventory, else for
    `onnxruntime` on the CPU. Parts may follow, and what is left out is `cpu/fp32/t1/b1`: `pixel/tflite`,
    `pixel/tflite/gpu/fp16`.

    Raises:
        BadInputError: if it names no target.
    """
    parts = text.strip().split("/")
    if device_name(parts[0], "--as-target") != parts[0]:
        raise BadInputError(f"{parts[0]!r:.60} cannot be a device's name", "Use letters, digits, _ . and -.")
    if len(parts) == 1:
        campaigns = store.campaigns()
        known = sorted({one for one in campaigns["target"] if one.split("/")[0] == text.strip()})
        if len(known) > 1:
            raise BadInputError(f"the store has several targets of {text}", f"Name one: {', '.join(known)}.")
        if known:
            return Target.parse(known[0])
        if parts[0] in inventory.names:
            return inventory.device(parts[0]).all_targets(parts[0])[0]
        return Target(parts[0], DEFAULT_RUNTIME)
    defaults = ["cpu", "fp32", "t1", "b1"]
    return Target.parse("/".join([*parts, *defaults[len(parts) - 2 :]]))


def give_imported(store: Store, target: Target, space: str, as_written: bool, loop: ClosedLoop) -> tuple[int, int]:
    """Give a closed loop the labels that the user has imported for its target.

    Labels of networks that were exported in the other way (`as_written`) stay out: they are of other networks.

    Returns:
        The number of networks whose labels the loop has got, and of labels that stay out.
    """
    rows = store.table(target=str(target), space=space, only=LABELS)
    rows = rows[(rows["selection"] == Selection.IMPORTED) & (rows["status"] == Status.OK)]
    rows = rows[rows["role"] != Role.HOLDOUT]
    alike = rows["as_written"].astype(bool) == as_written
    for row in rows[alike].to_dict("records"):
        loop.give(row["arch"], row["latency_ms"], row["stderr_ms"])
    return loop.imported, int((~alike).sum())
