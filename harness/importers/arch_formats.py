"""The forms in which tables name architectures: strings, lists of numbers in different orders, indices, JSON.

| form | space | what it is |
|---|---|---|
| `string` | any | the space's canonical string |
| `genes` | any | a list of whole numbers, as `Architecture.genes` has them |
| `naslib` | NAS-Bench-201 | NASLib's six operation indices, in its own order of operations and of edges |
| `index` | NAS-Bench-201 | the official index, from 0 to 15624 |

FBNet's lists of 22 operations (by index or by name) and OFA's JSON objects with ks, e, d and r are recognised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latlab.harness.architectures import space_named
from latlab.harness.errors import BadInputError
from latlab.harness.importers.grid import FORMS
from latlab.harness.importers.source_table import Rows, fitting_space, rows_of
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace
from latlab.search_spaces.fbnet.skeleton import OPS as FBNET_OPS
from latlab.search_spaces.nasbench201.cell import EDGES, OPS
from latlab.search_spaces.nasbench201.space import NASBench201

__all__ = ["ARCH_COLUMNS", "ARCH_FORMATS", "OFA_COLUMNS", "naslib_genes", "rows_in"]

ARCH_FORMATS = ("auto", "string", "genes", "naslib", "index")
OFA_COLUMNS = ("r", "d", "ks", "e")
"""The columns of an OFA architecture, in the order of the space's genes."""
ARCH_COLUMNS = ("arch", "architecture", "arch_str", "architecture_string", "op_indices", "op_idx_list", "ops")
"""Names of the column of architectures, in lower case; `ops` are `genes`, the others are of any form."""
INDEX_COLUMNS = ("index", "arch_index", "arch_id", "idx", "id", "uid")
"""Names of a column with official indices, if --arch-format says that there is one."""
NASLIB_OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
"""NASLib's operations (naslib/search_spaces/nasbench201/conversions.py: Identity, Zero, ReLUConvBN3x3, ReLUConvBN1x1,
AvgPool1x1), by index."""
NASLIB_EDGES = ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (3, 2))
"""NASLib's edges (node, source): it counts nodes from 1, (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)."""
NASBENCH201 = "nasbench201"
_INTEGERS = re.compile(r"[\[(]?\s*\d{1,6}([\s,;_]+\d{1,6})*\s*,?\s*[\])]?")


def naslib_genes(op_indices: Sequence[int]) -> list[int]:
    """Return the genes of NAS-Bench-201 that NASLib's six operation indices stand for.

    Raises:
        ArchitectureError: they are not six numbers from 0 to 4.
    """
    if len(op_indices) != len(NASLIB_EDGES) or not all(0 <= op < len(NASLIB_OPS) for op in op_indices):
        raise ArchitectureError(f"{NASBENCH201}: NASLib's cells are 6 operation indices 0-4, not {list(op_indices)}")
    ops = dict(zip(NASLIB_EDGES, op_indices, strict=True))
    return [OPS.index(NASLIB_OPS[ops[edge]]) for edge in EDGES]


def rows_in(
    columns: Mapping[str, Sequence[Any]], given: str | None, form: str, where: Sequence[str], name: str
) -> Rows:
    """Return the rows for the architectures in a table.

    Args:
        columns: the table.
        given: the space, or None to find it.
        form: one of `ARCH_FORMATS`.
        where: each row's name in errors.
        name: the file's name in errors.

    Raises:
        BadInputError: naming row and column of what is wrong.
    """
    key, values = _values(columns, form, where, name)
    form = _form_of(key, values, form, where, name)
    if form == "index":
        return _rows_by_index(values, given, where, key, name)
    parse: Callable[[SearchSpace, Any], Architecture]
    if form == "string":
        values = [str(one) for one in values]
        space = fitting_space(values, given, name, "parse", where)
        parse = _by_string
    else:
        lists = [_numbers(one, form, place, key, name) for one, place in zip(values, where, strict=True)]
        if form == "naslib":
            _only_nasbench201(given, name)
            given = NASBENCH201
        space = fitting_space(lists, given, name, "from_genes", where)
        values, parse = [tuple(one) for one in lists], _by_naslib if form == "naslib" else _by_genes
    known: dict[Any, Architecture] = {}
    archs = []
    for place, value in zip(where, values, strict=True):
        if value not in known:
            try:
                known[value] = parse(space, value)
            except ArchitectureError as error:
                raise BadInputError(
                    f"{name}, {place}: {error}", "Is --space right? `latlab spaces` describes them."
                ) from error
        archs.append(known[value])
    return rows_of(space, archs, where)


def _by_string(space: SearchSpace, value: str) -> Architecture:
    return space.parse(value)


def _by_genes(space: SearchSpace, value: Sequence[int]) -> Architecture:
    return space.from_genes(value)


def _by_naslib(space: SearchSpace, value: Sequence[int]) -> Architecture:
    return space.from_genes(naslib_genes(value))


def _values(
    columns: Mapping[str, Sequence[Any]], form: str, where: Sequence[str], name: str
) -> tuple[str, Sequence[Any]]:
    """Return the name and the values of the column of architectures; those of OFA's columns are put together."""
    lower: dict[str, str] = {}
    for key in columns:
        other = lower.setdefault(key.strip().lower(), key)
        if other != key and key.strip().lower() in (*ARCH_COLUMNS, *(INDEX_COLUMNS if form == "index" else ())):
            raise BadInputError(
                f"{name}: the columns {other!r:.60} and {key!r:.60} both name architectures", "Remove one."
            )
    wanted = [*ARCH_COLUMNS, *INDEX_COLUMNS] if form == "index" else list(ARCH_COLUMNS)
    for one in wanted:
        if one in lower:
            return lower[one], columns[lower[one]]
    if all(one in columns for one in OFA_COLUMNS):
        parts = zip(*(columns[one] for one in OFA_COLUMNS), strict=True)
        return "ops", [
            [gene for key, part in zip(OFA_COLUMNS, row, strict=True) for gene in _integers(part, place, key, name)]
            for place, row in zip(where, parts, strict=True)
        ]
    index = next((lower[one] for one in INDEX_COLUMNS if one in lower), None)
    raise BadInputError(
        f"{name}: no column names the architectures (it has: {', '.join(columns):.200})",
        f"If {index} is NAS-Bench-201's official index, say --arch-format index. {FORMS}" if index else FORMS,
    )


def _form_of(key: str, values: Sequence[Any], form: str, where: Sequence[str], name: str) -> str:
    """Return the form of a column's values: the one that is given, or the only one that they can have."""
    if form != "auto":
        return form
    if key == "ops":
        return "genes"
    first = values[0]
    text = first.strip() if isinstance(first, str) else None
    if isinstance(first, (list, tuple, dict)) or (text is not None and text[:1] in ("[", "(", "{")):
        if isinstance(first, dict) or (text or "")[:1] == "{":
            return "genes"
        if len(_numbers(first, "genes", where[0], key, name)) == len(EDGES):
            raise BadInputError(
                f"{name}, {where[0]}: {key} has six numbers, whose order is not known: {first!s:.60}",
                "Say --arch-format naslib (NASLib's own order), or --arch-format genes (the order of the string).",
            )
        return "genes"
    if isinstance(first, (int, float)) or (text is not None and re.fullmatch(r"\d{1,5}", text)):
        raise BadInputError(
            f"{name}, {where[0]}: {key} is the number {first}",
            "If these are NAS-Bench-201's official indices, say --arch-format index.",
        )
    return "string"


def _only_nasbench201(given: str | None, name: str) -> None:
    if given not in (None, NASBENCH201):
        raise BadInputError(f"{name}: this --arch-format is of {NASBENCH201}, not of {given}")


def _rows_by_index(values: Sequence[Any], given: str | None, where: Sequence[str], key: str, name: str) -> Rows:
    _only_nasbench201(given, name)
    space = space_named(NASBENCH201)
    assert isinstance(space, NASBench201)
    archs = []
    for value, place in zip(values, where, strict=True):
        (index, *more) = _integers(value, place, key, name)
        try:
            if more:
                raise ArchitectureError(f"{key} is {value!r:.60}, not one official index")
            archs.append(space.at(index))
        except ArchitectureError as error:
            raise BadInputError(f"{name}, {place}: {error}", "Official indices begin at 0.") from error
    return rows_of(space, archs, where)


def _numbers(value: Any, form: str, where: str, column: str, name: str) -> list[int]:
    """Return the list of whole numbers that a cell holds: plain, as JSON, as OFA's object, as FBNet's names."""
    if isinstance(value, str) and value.strip()[:1] in ("{", "[") and not _INTEGERS.fullmatch(value.strip()):
        try:
            value = json.loads(value.replace("'", '"'))
        except (ValueError, RecursionError) as error:
            raise BadInputError(
                f"{name}, {where}: {column} is {value!r:.80}, which is no JSON", 'Use [1, 2] or {"ks": [3, 5]}.'
            ) from error
    if isinstance(value, dict):
        if form != "genes" or not all(one in value for one in OFA_COLUMNS):
            raise BadInputError(
                f"{name}, {where}: {column} is {value!r:.80}, not an object with ks, e, d and r",
                "OFA's architectures have 20 kernels (ks), 20 expansions (e), 5 depths (d) and a resolution (r).",
            )
        return [gene for one in OFA_COLUMNS for gene in _integers(value[one], where, f"{one} of {column}", name)]
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, str) for one in value):
        ops = {("skip" if op is None else op.name): place for place, op in enumerate(FBNET_OPS)}
        if all(one in ops for one in value):
            return [ops[one] for one in value]
    return _integers(value, where, column, name)


def _integers(value: Any, where: str, column: str, name: str) -> list[int]:
    """Return the whole numbers in a list, a number, or a text such as `[3, 5]` or `3_5`."""
    if isinstance(value, str) and _INTEGERS.fullmatch(value.strip()):
        return [int(one) for one in re.findall(r"\d+", value)]
    items = value if isinstance(value, (list, tuple)) else [value]
    try:
        whole = [int(one) for one in items if int(one) == one]
    except (TypeError, ValueError, OverflowError):
        whole = []
    if not whole or len(whole) != len(items):
        raise BadInputError(f"{name}, {where}: {column} is {value!r:.80}, not a list of whole numbers")
    return whole
