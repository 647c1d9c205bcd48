"""The commands that import, list and remove published latencies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.options import (
    STORE,
    InventoryOption,
    JsonOption,
    StoreOption,
    WrittenOption,
    print_json,
    store_before,
)
from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath
from latlab.harness.text import count

if TYPE_CHECKING:
    from latlab.harness.store.own_labels import KeptLabels

__all__ = ["app", "sources"]

app = App()
sources = App(
    help="List the devices that the store knows, imported or measured: predictors learn from them.",
    invoke_without_command=True,
)


class Format(StrEnum):
    """Formats of published files."""

    auto = "auto"
    help = "help"
    eagle = "eagle"
    hat = "hat"
    hw_nas_bench = "hw-nas-bench"
    ofa_lookup = "ofa-lookup"
    csv = "csv"
    parquet = "parquet"


class Unit(StrEnum):
    """Units of the latencies in a file."""

    ms = "ms"
    s = "s"
    us = "us"
    ns = "ns"


class ArchFormat(StrEnum):
    """Forms of architectures in a table."""

    auto = "auto"
    string = "string"
    genes = "genes"
    naslib = "naslib"
    index_ = "index"  # a string has a method `index`


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="HELP's .pt files (architectures and latencies), EAGLE's or HW-NAS-Bench's .pickle, HAT's .csv, "
            "OFA's lookup tables (.yaml, all resolutions of a device), or a table of your own (.csv, .parquet).",
        ),
    ],
    space: Annotated[
        str | None, typer.Option("--space", help="The search space, if the files do not determine it.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", help="The device's name, or the one column of a table to import \\[default: all, as named]"
        ),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help=f"The files' format: {', '.join(Format)}.")
    ] = Format.auto,
    unit: Annotated[
        Unit | None,
        typer.Option("--unit", help="Unit of the latencies \\[default: that of the column's name, or the publisher's]"),
    ] = None,
    as_target: Annotated[
        str | None,
        typer.Option(
            "--as-target",
            metavar="TARGET",
            help="Make them labels of this target, as if measured here: DEVICE/RUNTIME/..., or a part of it "
            "(pixel, pixel/tflite); `each` for the targets that the file names.",
        ),
    ] = None,
    arch_format: Annotated[
        ArchFormat,
        typer.Option(
            "--arch-format",
            metavar="FORMAT",
            help="Architectures of your table: naslib (six indices in NASLib's order), index (NAS-Bench-201's), genes.",
        ),
    ] = ArchFormat.auto,
    insist: Annotated[
        bool, typer.Option("--insist", help="Accept latencies that seem impossible for such networks.")
    ] = False,
    as_written: WrittenOption = False,
    inventory: InventoryOption = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Import latencies that were measured elsewhere: as a device to learn from, or as labels of a target of yours.

    [dim]Examples:[/dim] latlab import fbnet/arch.pt fbnet/latency/*.pt
    latlab import mine.csv --as-target pixel/tflite/cpu/fp32/t1/b1

    No file is ever executed: nothing is unpickled. Earlier imports stay as they are.
    """
    for file in files:  # before anything slow is imported
        if not file.exists():
            raise BadInputError(f"there is no file {file}")
    from latlab.harness.importers.read import read_sources
    from latlab.harness.store.copying import removed_if_new
    from latlab.harness.store.sources import keep
    from latlab.harness.store.store import Store

    how: dict[str, Any] = {
        "space": space,
        "device": device,
        "format": format_,
        "unit": unit,
        "arch_format": arch_format,
    }
    if as_target is not None:
        from latlab.harness.lab import Lab

        with removed_if_new(store):
            lab = Lab(store, inventory=inventory)
            labels = lab.import_labels(files, as_target, as_written=as_written, insist=insist, **how)
        if not as_json and all(as_target != one for one in ("each", labels[0].target)):
            print(f"{as_target} stands for {labels[0].target}; name the full target if it was another")
        _show_labels(store, labels, as_json)
        return
    tables = read_sources(files, insist=insist, **how)
    with removed_if_new(store):
        kept = keep(Store(store), tables)
    if as_json:
        print_json({"store": str(store), "sources": [vars(one) for one in kept]})
        return
    for one in kept:
        there = "" if one.is_new else " (was there already)"
        print(f"{one.name}: {one.architectures} architectures of {one.space}{there}")
        for note in one.notes if one.is_new else ():
            print(f"  {note}")
    new = sum(one.is_new for one in kept)
    print(
        f"{count(new, 'source device')} imported into {store}. "
        "`latlab sources` lists all; predictors use them from now on."
    )


def _show_labels(store: StorePath, labels: list[KeptLabels], as_json: bool) -> None:
    """Print what was imported as labels of targets."""
    if as_json:
        print_json({"store": str(store), "labels": [vars(one) | {"labels": one.labels} for one in labels]})
        return
    for one in labels:
        changed = f", {one.changed} replaced by other values" if one.changed else ""
        same = f", {one.same} were there already" if one.same else ""
        simulated = " (simulated)" if one.simulated else ""
        print(f"{one.target}: {count(one.new, 'new label')} of {one.space}{simulated}{changed}{same}")
        errors = f"{one.errors} have" if one.errors else "none has"
        written = ", of networks with their dead edges (--as-written)" if one.as_written else ""
        print(f"  {errors} a standard error{written}")
        if one.known:
            print(f"  {one.known} of these networks were measured here, too: what was measured counts")
        for note in one.notes:
            print(f"  {note}")
    target, space = labels[0].target, labels[0].space
    print(f"Next: latlab predict --target {target} --space {space} --all --top 10 --store {store}")


@sources.callback()
def list_(context: typer.Context, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """List the devices that the store knows, imported or measured: predictors learn from them.

    [dim]Example:[/dim] latlab sources --store latlab.db
    """
    if context.invoked_subcommand is not None:
        store_before(context, store)
        return
    from latlab.harness.store.sources import listing
    from latlab.harness.store.store import Store
    from latlab.harness.terminal.results import show_sources

    listed = listing(Store(store, must_exist=True))
    if as_json:
        rows = listed.astype(object).where(listed.notna(), None).to_dict("records")
        print_json({"store": str(store), "sources": rows})
    else:
        show_sources(store, listed)


@sources.command("remove")
def remove_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An imported source, or a target with imported labels.")],
    space: Annotated[str | None, typer.Option("--space", help="Only of this space \\[default: all]")] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Remove an imported source, or the imported labels of a target. Your own measurements stay.

    [dim]Example:[/dim] latlab sources remove eyeriss
    """
    from latlab.harness.store.own_labels import remove_labels
    from latlab.harness.store.sources import remove
    from latlab.harness.store.store import Store

    opened = Store(store, must_exist=True)
    gone = (remove_labels(opened, name, space) if "/" in name else []) or remove(opened, name, space)
    if as_json:
        print_json({"removed": [{"name": name, "space": one, "architectures": count} for one, count in gone]})
    else:
        for one, count in gone:
            print(f"{name} removed: {count} architectures of {one}")
