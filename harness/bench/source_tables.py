"""Source devices to pre-train on, from latency tables instead of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latlab.harness.bench.protocols import PROTOCOLS
from latlab.harness.bench.tables import LatencyTable, read_table
from latlab.harness.bench.tasks import published_task
from latlab.harness.errors import BadInputError
from latlab.predictors import SourceDevice
from latlab.search_spaces import SearchSpace

__all__ = ["table_sources", "task_sources"]


def table_sources(
    path: Path, space: str, devices: Sequence[str] | None, protocol: str, seed: int
) -> tuple[SearchSpace, list[SourceDevice], str]:
    """Return the space, the source devices, and a text that says where they are from.

    Args:
        devices: columns of the table; None for all.
        protocol: the protocol that chooses rows of the table, with its own number of them.

    Raises:
        BadInputError: the table cannot be read, or lacks a device.
    """
    table = read_table(path, space)
    return _sources(table, devices or tuple(table.latency_ms), protocol, seed, path.name)


def task_sources(
    name: str, data: Path, devices: Sequence[str] | None, protocol: str, seed: int
) -> tuple[SearchSpace, list[SourceDevice], str]:
    """Return the same for a published task; by default of its own source devices.

    Raises:
        BadInputError: there is no such task, its tables cannot be read, or it has several sets of sources.
    """
    task = published_task(name, data)
    if devices is None and len(task.splits) > 1:
        raise BadInputError(f"the task {name} has {len(task.splits)} sets of sources", "Name devices with --sources.")
    return _sources(task.table(), devices or task.splits[0].sources, protocol, seed, f"task {name}")


def _sources(
    table: LatencyTable, devices: Sequence[str], protocol: str, seed: int, name: str
) -> tuple[SearchSpace, list[SourceDevice], str]:
    rules = PROTOCOLS[protocol]
    found = rules.sources(table, devices, rules.source_samples(table.space.name), seed)
    return table.space, found, f"{name}, protocol {protocol}"
