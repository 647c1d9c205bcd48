"""What the terminal shows of stores as files: their content, and what is wrong with them."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from latlab.harness.store.inspection import StoreCheck, StoreInfo
from latlab.harness.store.place import StorePath
from latlab.harness.terminal.console import console
from latlab.harness.text import count

__all__ = ["show_check", "show_info"]

MOST = 40
"""Most damaged rows that are listed; --json lists all."""


def show_info(found: StoreInfo) -> None:
    """Print what is in a store."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    log = f", and {found.log_bytes / 1e6:,.1f} MB in its log" if found.log_bytes else ""
    table.add_row("file", escape(f"{found.path}, {found.size_bytes / 1e6:,.1f} MB{log}"))
    older = "" if found.schema == found.newest_schema else f" (the next writing command makes it {found.newest_schema})"
    table.add_row("schema", f"{found.schema}{older}")
    if found.versions:
        table.add_row("latlab", escape(", ".join(found.versions)))
    table.add_row("measurements", f"{found.labels:,} finished, {found.failed:,} failed, {found.running:,} unfinished")
    if found.first and found.last:
        table.add_row("measured", escape(f"from {found.first[:16]} to {found.last[:16]}".replace("T", " ") + " UTC"))
    for target, spaces in found.targets.items():
        counts = ", ".join(f"{count:,} labels in {space}" for space, count in spaces.items())
        table.add_row("target", escape(f"{target}: {counts}"))
    for one in found.sources:
        table.add_row("source", escape(f"{one['name']}: {one['architectures']:,} architectures of {one['space']}"))
    passes, anchors = found.rows.get("passes", 0), found.rows.get("anchors", 0)
    table.add_row(
        "raw data", f"{passes:,} passes, {anchors:,} of anchors; {found.rows.get('incidents', 0):,} incidents"
    )
    console().print(table)


def show_check(store: StorePath, found: StoreCheck) -> None:
    """Print what is wrong with a store."""
    lines = [*found.file, *map(str, found.damaged)]
    for line in lines[:MOST]:
        console().print(escape(line), soft_wrap=True, highlight=False)
    if len(lines) > MOST:
        console().print(f"... and {len(lines) - MOST:,} more; --json lists all", style="dim")
    for one in found.running:
        words = (
            f"{one['rows']:,} unfinished measurements of {one['target']} in {one['space']}, session {one['session']}"
        )
        console().print(escape(f"{words}: the command that began them continues"), soft_wrap=True, highlight=False)
    faults = f"{store}: {count(len(lines), 'fault')}; all commands leave such rows out"
    said = f"{store} is sound" if found.is_sound else faults
    console().print(escape(said), soft_wrap=True, highlight=False)
