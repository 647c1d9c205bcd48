"""The commands `latlab store ...`: copy, merge, check, compact and describe stores."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from latlab.harness.cli.command import App
from latlab.harness.cli.options import (
    STORE,
    JsonOption,
    StoreArgument,
    StoreOption,
    named_store,
    one_store,
    print_json,
    store_before,
    store_option,
)
from latlab.harness.errors import BadInputError

__all__ = ["app"]

app = App(help="Copy, merge, check and describe stores.", no_args_is_help=True)
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@app.callback()
def stores(context: typer.Context, store: StoreOption = None) -> None:
    """Copy, merge, check and describe stores."""
    store_before(context, store)


@app.command()
def info(named: StoreArgument = None, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Say what is in a store: labels by target, imported sources, sizes, versions.

    [dim]Example:[/dim] latlab store info latlab.db
    """
    from latlab.harness.store.inspection import store_info
    from latlab.harness.terminal.stores import show_info

    found = store_info(one_store(named, store))
    if as_json:
        print_json(found.to_json())
    else:
        show_info(found)


@app.command()
def check(named: StoreArgument = None, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Look for damage, and for measurements that were left unfinished. The exit code is 1 if anything is damaged.

    [dim]Example:[/dim] latlab store check latlab.db
    """
    from latlab.harness.store.inspection import check_store
    from latlab.harness.terminal.stores import show_check

    store = one_store(named, store)
    found = check_store(store)
    if as_json:
        damaged = [one._asdict() for one in found.damaged]
        print_json({"sound": found.is_sound, "file": found.file, "damaged": damaged, "unfinished": found.running})
    else:
        show_check(store, found)
    if not found.is_sound:
        raise typer.Exit(1)


@app.command()
def copy(
    words: Annotated[
        list[str], typer.Argument(metavar="[STORE] COPY", help="The store to copy, and the file to make of it.")
    ],
    force: ForceOption = False,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Copy a store to one file, or to a PostgreSQL database, also while latlab is writing it.

    [dim]Examples:[/dim] latlab store copy latlab.db backup.db
    latlab store copy latlab.db postgresql+psycopg://user@host/database
    """
    from latlab.harness.store.copying import copy_store

    places = [named_store(one) for one in words]
    shown = [str(one) for one in places]
    if len(words) > 2:
        raise BadInputError(f"a store and its copy are two files, not {len(words)}: {' '.join(shown)}")
    to = places[-1]
    store = one_store(places[0] if len(words) == 2 else None, store)
    size = copy_store(store, to, force=force)
    if as_json:
        print_json({"store": str(store), "copy": str(to), "bytes": size})
    else:
        print(f"{store} copied to {to} ({size / 1e6:,.1f} MB)")


@app.command()
def merge(
    stores: Annotated[list[str], typer.Argument(metavar="STORE", help="The stores, at least two.")],
    into: Annotated[str, typer.Option("--into", help="The file to make, or the address of a database.")],
    force: ForceOption = False,
    store: Annotated[Any, store_option("It is merged as the first one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Merge stores into a new one: campaigns, sessions, sources and incidents of all, and nothing twice.

    [dim]Example:[/dim] latlab store merge mine.db theirs.db --into all.db

    Sessions that two controllers measured of the same campaign stand side by side.
    """
    from latlab.harness.store.merging import merge_stores

    places = [*([] if store is None else [store]), *map(named_store, stores)]
    to = named_store(into)
    found = merge_stores(places, to, force=force)
    if as_json:
        print_json({"store": str(to), **vars(found)})
        return
    print(
        f"{to}: {found.measurements} measurements and {found.sources} sources were added to those of {places[0]}; "
        f"{found.known} measurements were there already"
    )
    for old, new in found.renamed:
        print(f"the source {old} is there with other content: the added one is called {new}")


@app.command()
def compact(named: StoreArgument = None, store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Fold the log in, and give the space of removed rows back to the disk.

    [dim]Example:[/dim] latlab store compact latlab.db
    """
    from latlab.harness.store.copying import compact_store

    store = one_store(named, store)
    before, after = compact_store(store)
    if as_json:
        print_json({"store": str(store), "bytes_before": before, "bytes": after})
    else:
        print(f"{store}: {before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB now")
