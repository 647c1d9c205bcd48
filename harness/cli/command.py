"""The commands' common checks: an option of one value is given once, and no output replaces what the command reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from latlab.harness.errors import BadInputError
from latlab.harness.paths import spare_databases

__all__ = ["App", "output_option"]

OUTPUTS = "latlab.outputs"
"""Where a context keeps the parameters that name outputs."""
INVENTORY = "inventory.yaml"
"""What a command with --inventory reads if that is not given."""
BESIDE_STORES = ("-wal", "-shm", ".lock")
"""Ends of the names of files that belong to a store."""


def output_option(name: str, *suffixes: str, help: str) -> Any:
    """Return an option that names a file or a folder to write.

    Args:
        name: the option, such as `--out`.
        suffixes: what the file's name must end in, because that is its format; none if any name will do.
        help: the option's help.
    """
    return typer.Option(name, help=help, callback=_noting(name, suffixes))


def _noting(name: str, suffixes: tuple[str, ...]) -> Callable[..., Path | None]:
    """Return a callback that checks the suffix, and tells the command that this is an output."""

    def note(context: typer.Context, param: typer.CallbackParam, value: Path | None) -> Path | None:
        context.meta.setdefault(OUTPUTS, {})[param.name] = name
        if value is not None and suffixes and value.suffix.lower() not in suffixes:
            raise BadInputError(
                f"{value}: {name} writes a file that ends in {' or '.join(suffixes)}",
                f"For example {name} {value.stem or 'out'}{suffixes[0]}.",
            )
        return value

    return note


class _Checked:
    """What commands and groups of them check before they run."""

    def parse_args(self: Any, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        if not ctx.resilient_parsing:
            _refuse_repeats(self.make_parser(ctx).parse_args(args=given)[2])
        return rest

    def invoke(self: Any, ctx: Any) -> Any:
        _refuse_losses(ctx)
        return super().invoke(ctx)  # type: ignore[misc]


class _Command(_Checked, TyperCommand):
    pass


class _Group(_Checked, TyperGroup):
    pass


class App(typer.Typer):
    """Commands that check what they are given in the same way."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=_Group, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        return super().command(name, cls=_Command, **options)

    def callback(self, **options: Any) -> Callable[..., Any]:
        return super().callback(cls=_Group, **options)


def _refuse_repeats(order: list[Any]) -> None:
    """Raise `BadInputError` if an option that takes one value is given several times: only the last would count.

    Args:
        order: the parameters, once for each time that they are given.
    """
    for param, times in Counter(order).items():
        one_value = param.param_type_name == "option" and not (
            param.multiple or param.is_flag or getattr(param, "count", False)
        )
        if one_value and times > 1:
            name = max(param.opts, key=len)
            raise BadInputError(f"{name} is given {times} times, and takes one value", f"Give {name} once.")


def _refuse_losses(ctx: Any) -> None:
    """Raise `BadInputError` if an output would replace an input, another output, or a database."""
    written = {key: name for key, name in ctx.meta.get(OUTPUTS, {}).items() if ctx.params.get(key) is not None}
    read = list(_inputs(ctx, written))
    for key, name in written.items():
        out = Path(ctx.params[key])
        for words, path in read:
            if _same(out, path):
                raise BadInputError(f"{name} {out} would replace {words}", f"Name another file with {name}.")
        spare_databases(out)
        read.append((f"what {name} {out} writes", out))


def _inputs(ctx: Any, written: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield what a command may read: what it is, in words, and its path."""
    for param in ctx.command.params:
        value = ctx.params.get(param.name)
        if param.name in written or param.name is None:
            continue
        if param.name == "inventory" and value is None:
            value = Path(INVENTORY)
        name = max(param.opts, key=len) if param.param_type_name == "option" else (param.metavar or param.name)
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, Path) or (isinstance(one, str) and _is_file(one)):
                yield f"{name} {one}, which this command reads", Path(one)
            if isinstance(one, Path):
                for end in BESIDE_STORES if param.name in ("store", "baseline") else ():
                    yield f"a part of the store {one}", Path(f"{one}{end}")


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except ValueError:  # a null byte
        return False


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):  # one is not there yet
        return os.path.realpath(first) == os.path.realpath(second)
