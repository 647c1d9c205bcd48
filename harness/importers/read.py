"""The reading of published latency files: each becomes one or more source devices for the store.

Nothing is unpickled or run (`safe_pickle`), every format is recognised by its content, and every error names the file
and the place in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.importers import hat, help_eagle, ofa_lookup, safe_pickle, table_files
from latlab.harness.importers.source_table import UNITS, SourceTable, labelled

__all__ = ["FORMATS", "UNITS", "SourceTable", "read_sources"]

FORMATS = ("auto", "help", "eagle", "hat", "ofa-lookup", "csv", "parquet")
_USUAL_UNIT = {"eagle": "s"}
"""The unit that a publisher uses, if it is not milliseconds."""
_TEXT = {".csv": "csv", ".tsv": "csv", ".yaml": "ofa-lookup", ".yml": "ofa-lookup", ".json": "json"}
_LISTS = "a list of latencies, or of architectures"
_WAY_OUT = (
    "latlab reads HELP's .pt files, EAGLE's .pickle, HAT's .csv, OFA's lookup tables (.yaml), CSV and Parquet; "
    "--format says which it is."
)


@dataclass(frozen=True, eq=False)
class _File:
    path: Path
    format: str
    value: Any
    sha256: str


def read_sources(
    paths: Sequence[Path],
    *,
    space: str | None = None,
    device: str | None = None,
    format: str = "auto",
    unit: str | None = None,
) -> list[SourceTable]:
    """Return the source devices in `paths`.

    HELP stores architectures and latencies in different files, which must be named together. So must the lookup tables
    of one device, one per resolution.

    Args:
        paths: the files.
        space: the search space, if the file does not determine it.
        device: the device's name; by default that of its file or column. If a table has a column of this name, only
            that
            column is read.
        format: one of `FORMATS`; `auto` recognises it.
        unit: unit of the latencies (`UNITS`), if it is not the publisher's.

    Raises:
        BadInputError: naming file and byte, line, row or key of what is wrong.
    """
    files = [_open(path, format, space) for path in dict.fromkeys(paths)]
    tables = [
        *_help(files, space, device, unit),
        *_lookups([file for file in files if file.format == "ofa-lookup"], device, unit),
    ]
    for file in files:
        if file.format == "eagle":
            rows, latency = help_eagle.eagle_rows(file.value, str(file.path))
            _only(space, rows.space.name, file.path)
            column = table_files.Column(device or help_eagle.stem(file.path), rows, latency, None)
            tables.append(_table(column, [file], help_eagle.EAGLE, unit))
        elif file.format == "hat":
            columns = hat.hat_columns(file.value, device or help_eagle.stem(file.path), space)
            tables += [_table(column, [file], hat.CITATION, unit) for column in columns]
        elif file.format in ("csv", "parquet"):
            columns = table_files.columns_of(file.value, space, device)
            tables += [_table(_renamed(column, columns, device), [file], "", unit) for column in columns]
    _distinct(tables, device)
    return tables


def _open(path: Path, wanted: str, space: str | None) -> _File:
    try:
        if path.is_dir():
            raise BadInputError(f"{path} is a folder", f"Name its files, for example: {path}/*")
        size = path.stat().st_size
        if size > safe_pickle.MAX_BYTES:
            raise BadInputError(f"{path}: more than {safe_pickle.MAX_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    if not data:
        raise BadInputError(f"{path}: it is empty")
    found, value = _read(path, data, space)
    if wanted not in ("auto", found) and not (wanted == "help" and found == "architectures"):
        raise BadInputError(f"{path}: not a file of --format {wanted}, it looks like {found}", _WAY_OUT)
    return _File(path, found, value, hashlib.sha256(data).hexdigest())


def _read(path: Path, data: bytes, space: str | None) -> tuple[str, Any]:
    """Return the content's format, and the content."""
    name, kind = str(path), _TEXT.get(path.suffix.lower())
    if data.startswith(b"PAR1"):
        return "parquet", table_files.read_parquet(path)
    if kind == "csv":
        grid = table_files.read_csv(path)
        return ("hat" if hat.is_hat(list(grid.columns)) else "csv"), grid
    if kind == "ofa-lookup":
        return kind, ofa_lookup.read_lookup(path, space)
    if data.startswith(b"PK\3\4"):
        value = safe_pickle.read_torch(data, name)
    elif data[:1] == b"\x80" or path.suffix.lower() in (".pickle", ".pkl", ".pt", ".pth"):
        value = safe_pickle.read_pickle(data, name)
    else:
        raise BadInputError(f"{path}: it is no table that latlab knows", _WAY_OUT)
    if help_eagle.is_latencies(value):
        return "help", value
    if help_eagle.is_eagle(value):
        return "eagle", value
    if help_eagle.is_architectures(value):
        return "architectures", value
    raise BadInputError(f"{path}: it holds neither {_LISTS}, nor a dict from operations to latencies", _WAY_OUT)


def _help(files: Sequence[_File], space: str | None, device: str | None, unit: str | None) -> list[SourceTable]:
    latencies = [file for file in files if file.format == "help"]
    given = [file for file in files if file.format == "architectures"]
    if len(given) > 1:
        raise BadInputError(f"{given[0].path} and {given[1].path} both list architectures", "Import one set at a time.")
    if not latencies:
        if given:
            raise BadInputError(
                f"{given[0].path} lists architectures, but no latencies",
                "Name the devices' files beside it: latlab import arch.pt latency/*.pt",
            )
        return []
    if given:
        rows = help_eagle.help_rows(given[0].value, space, str(given[0].path))
    else:
        rows = help_eagle.official_rows()
        _only(space, rows.space.name, latencies[0].path)
    tables = []
    for file in latencies:
        if len(file.value) != len(rows.which):
            beside = f"{given[0].path} has {len(rows.which):,} architectures" if given else (
                f"{rows.space.name} has {len(rows.which):,}, and no file of architectures was named beside it"
            )  # fmt: skip
            raise BadInputError(
                f"{file.path}: {len(file.value):,} latencies, but {beside}",
                "HELP keeps the architectures of FBNet and OFA in a file of their own: "
                "latlab import arch.pt latency/*.pt",
            )
        latency = help_eagle.latencies(file.value)
        column = table_files.Column(device or help_eagle.stem(file.path), rows, latency, None)
        tables.append(_table(column, [*given, file], help_eagle.HELP, unit))
    return tables


def _lookups(files: Sequence[_File], device: str | None, unit: str | None) -> list[SourceTable]:
    if not files:
        return []
    rows, latency, stderr = ofa_lookup.summed([file.value for file in files])
    name = device or ofa_lookup.device_of([file.path for file in files])
    blocks = len(files[0].value.latency)
    note = f"sums of the latencies of {blocks} blocks at {len(files)} resolution(s), not measured whole"
    return [_table(table_files.Column(name, rows, latency, stderr), files, ofa_lookup.CITATION, unit, (note,))]


def _table(
    column: table_files.Column, files: Sequence[_File], citation: str, unit: str | None, notes: Sequence[str] = ()
) -> SourceTable:
    last = files[-1]
    sums = [file.sha256 for file in files]
    return labelled(
        column.rows,
        column.latency,
        unit or _USUAL_UNIT.get(last.format, "ms"),
        str(last.path),
        column.device,
        column.stderr,
        format=last.format,
        files=tuple(str(file.path) for file in files),
        sha256=sums[0] if len(sums) == 1 else hashlib.sha256("".join(sorted(sums)).encode()).hexdigest(),
        citation=citation,
        notes=notes,
    )


def _renamed(column: table_files.Column, all_: Sequence[table_files.Column], device: str | None) -> table_files.Column:
    """Return the column with the name that the user gives. That needs a table of one device."""
    if device is None or column.device == device:
        return column
    if len({one.device for one in all_}) > 1:
        names = ", ".join(dict.fromkeys(one.device for one in all_))
        raise BadInputError(f"{device} is not among the devices of the table: {names:.300}")
    return table_files.Column(device, column.rows, column.latency, column.stderr)


def _only(given: str | None, known: str, path: Path) -> None:
    if given not in (None, known):
        raise BadInputError(f"{path}: its architectures are those of {known}, not of {given}")


def _distinct(tables: Sequence[SourceTable], device: str | None) -> None:
    seen: dict[tuple[str, str], SourceTable] = {}
    for table in tables:
        first = seen.setdefault((table.name, table.space), table)
        if first is not table:
            raise BadInputError(
                f"{first.files[-1]} and {table.files[-1]} would both be {table.name} of {table.space}",
                "Without --device, each is called after its file or column." if device else "Import one at a time.",
            )
