"""The reading of published latency files: each becomes one or more source devices for the store.

Nothing is unpickled or run (`safe_pickle`), every format is recognised by its content, and every error names the file
and the place in it.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.importers import grid, hat, help_eagle, hw_nas_bench, ofa_lookup, safe_pickle, table_files
from latlab.harness.importers.arch_formats import ARCH_FORMATS
from latlab.harness.importers.safe_numpy import NumpyReader
from latlab.harness.importers.source_table import SourceTable, labelled
from latlab.harness.importers.units import UNITS

__all__ = ["ARCH_FORMATS", "FORMATS", "UNITS", "SourceTable", "read_sources"]

FORMATS = ("auto", "help", "eagle", "hat", "hw-nas-bench", "ofa-lookup", "csv", "parquet")
_USUAL_UNIT = {"eagle": "s"}
"""The unit that a publisher uses, if it is not milliseconds."""
_TEXT = {".csv": "csv", ".tsv": "csv", ".yaml": "ofa-lookup", ".yml": "ofa-lookup", ".json": "json"}
_LISTS = "a list of latencies, or of architectures"
_WAY_OUT = (
    "latlab reads HELP's .pt files, EAGLE's and HW-NAS-Bench's .pickle, HAT's .csv, OFA's lookup tables (.yaml), CSV "
    "and Parquet; --format says which it is."
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
    arch_format: str = "auto",
    insist: bool = False,
    batch_size: int | None = None,
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
        unit: unit of the latencies (`UNITS`), if it is not the publisher's or that of the column's name.
        arch_format: the form of the architectures in a table of one's own (`ARCH_FORMATS`).
        insist: whether to accept latencies that are impossible for the space.
        batch_size: the images of an inference, where it is known.

    Raises:
        BadInputError: naming file and byte, line, row or key of what is wrong.
    """
    files = [_open(path, format, space) for path in dict.fromkeys(paths)]
    checks = _Checks(unit, insist, batch_size)
    tables = [
        *_help(files, space, device, checks),
        *_lookups([file for file in files if file.format == "ofa-lookup"], device, checks),
    ]
    for file in files:
        if file.format == "eagle":
            rows, latency = help_eagle.eagle_rows(file.value, str(file.path))
            _only(space, rows.space.name, file.path)
            column = table_files.Column(device or help_eagle.stem(file.path), rows, latency, None)
            tables.append(_table(column, [file], help_eagle.EAGLE, checks))
        elif file.format == "hat":
            columns = hat.hat_columns(file.value, device or help_eagle.stem(file.path), space)
            tables += [_table(column, [file], hat.CITATION, checks) for column in columns]
        elif file.format == "hw-nas-bench":
            columns = hw_nas_bench.hw_nas_bench_columns(file.value, str(file.path), space, device)
            tables += [_table(column, [file], hw_nas_bench.CITATION, checks) for column in columns]
        elif file.format in ("csv", "parquet"):
            columns = table_files.columns_of(file.value, space, device, arch_format)
            tables += [_table(_renamed(column, columns, device, file.path), [file], "", checks) for column in columns]
    _distinct(tables, device)
    return tables


@dataclass(frozen=True)
class _Checks:
    """What the user says about the latencies of all files."""

    unit: str | None
    insist: bool
    batch_size: int | None

    def unit_of(self, column: table_files.Column, format: str, name: str) -> str:
        """Return the unit of a column: the user's, that of its name, or the publisher's."""
        if column.unit is not None and self.unit not in (None, column.unit) and column.device is None:
            raise BadInputError(
                f"{name}: the column {column.key} is in {column.unit} by its name, --unit says {self.unit}",
                "Rename the column, or leave out --unit.",
            )
        return self.unit or column.unit or _USUAL_UNIT.get(format, "ms")


def _open(path: Path, wanted: str, space: str | None) -> _File:
    try:
        if path.is_dir():
            raise BadInputError(f"{path} is a folder", f"Name its files, for example: {path}/*")
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadInputError(f"{path} is no regular file", "Name a file that holds a table.")
        size = facts.st_size
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
        return "parquet", grid.read_parquet(path)
    if kind == "csv":
        table = grid.read_csv(path)
        return ("hat" if hat.is_hat(list(table.columns)) else "csv"), table
    if kind == "ofa-lookup":
        return kind, ofa_lookup.read_lookup(path, space)
    if path.suffix.lower() in (".xlsx", ".xls", ".xlsm", ".ods"):
        raise BadInputError(f"{path}: a workbook cannot be read", "Save its sheet as CSV (UTF-8), and import that.")
    if data.startswith(b"PK\3\4"):
        value = safe_pickle.read_torch(data, name)
    elif data[:1] == b"\x80" or path.suffix.lower() in (".pickle", ".pkl", ".pt", ".pth"):
        value = safe_pickle.read_pickle(data, name, NumpyReader if hw_nas_bench.MARK in data else None)
    else:
        raise BadInputError(f"{path}: it is no table that latlab knows", _WAY_OUT)
    if hw_nas_bench.is_hw_nas_bench(value):
        return "hw-nas-bench", value
    if help_eagle.is_latencies(value):
        return "help", value
    if help_eagle.is_eagle(value):
        return "eagle", value
    if help_eagle.is_architectures(value):
        return "architectures", value
    raise BadInputError(f"{path}: it holds neither {_LISTS}, nor a dict from operations to latencies", _WAY_OUT)


def _help(files: Sequence[_File], space: str | None, device: str | None, checks: _Checks) -> list[SourceTable]:
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
        tables.append(_table(column, [*given, file], help_eagle.HELP, checks))
    return tables


def _lookups(files: Sequence[_File], device: str | None, checks: _Checks) -> list[SourceTable]:
    if not files:
        return []
    rows, latency, stderr = ofa_lookup.summed([file.value for file in files])
    name = device or ofa_lookup.device_of([file.path for file in files])
    blocks = len(files[0].value.latency)
    note = f"sums of the latencies of {blocks} blocks at {len(files)} resolution(s), not measured whole"
    return [_table(table_files.Column(name, rows, latency, stderr), files, ofa_lookup.CITATION, checks, (note,))]


def _table(
    column: table_files.Column, files: Sequence[_File], citation: str, checks: _Checks, notes: Sequence[str] = ()
) -> SourceTable:
    last = files[-1]
    sums = [file.sha256 for file in files]
    name = str(last.path)
    return labelled(
        column.rows,
        column.latency,
        checks.unit_of(column, last.format, name),
        name,
        column.device or help_eagle.stem(last.path),
        column.stderr,
        insist=checks.insist,
        batch_size=checks.batch_size,
        called=column.key,
        is_stated=checks.unit is not None or column.unit is not None or last.format not in ("csv", "parquet"),
        format=last.format,
        files=tuple(str(file.path) for file in files),
        sha256=sums[0] if len(sums) == 1 else hashlib.sha256("".join(sorted(sums)).encode()).hexdigest(),
        citation=citation,
        notes=(*column.notes, *notes),
        is_prediction=column.is_prediction,
        simulated=column.simulated,
        as_written=column.as_written,
        holdout=column.holdout(),
    )


def _renamed(
    column: table_files.Column, all_: Sequence[table_files.Column], device: str | None, path: Path
) -> table_files.Column:
    """Return the column with the name that the user gives. That needs a table of one device."""
    if device is None or column.device == device:
        return column
    if len({one.device for one in all_}) > 1:
        names = ", ".join(dict.fromkeys(one.device or one.key or "" for one in all_))
        raise BadInputError(f"{path}: {device} is not among the devices of the table: {names:.300}")
    return column if device == column.key else replace(column, device=device)


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
