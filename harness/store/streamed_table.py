"""A table of measurements that is too large for memory: its parts lie in a file, and become frames one after another.

All frames have the columns and the types that the whole table would have as one frame, so that a file that is written
frame by frame is the same as one that is written at once.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from latlab.harness.store.tables import Part, column, in_order, kind_of

__all__ = ["StreamedTable"]


class StreamedTable:
    """Parts of a table, in the order in which they were added.

    Args:
        folder: where they are kept, in a file without a name, which vanishes with this process however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (it lives as long as the table)
        self._shapes: list[Part] = []
        self._examples: dict[str, dict[object, Any]] = {}
        self.rows = 0
        self.provisional = 0
        """Number of rows that are provisional labels."""

    def add(self, part: Part) -> None:
        """Add a part."""
        self.rows += len(part)
        self.provisional += sum(part.columns.get("provisional", ()))
        self._shapes.append(part.without_rows())
        for name in in_order([part]):
            _note(self._examples.setdefault(name, {}), column(part, name))
        text = json.dumps([part.columns, part.tables, part.last], ensure_ascii=False)
        self._file.write(text.encode("utf-8", "surrogatepass") + b"\n")

    def example(self) -> pd.DataFrame:
        """Return a frame with the columns and types of the whole table, and a value of each type that a column has."""
        values = {name: self._values(name) for name in in_order(self._shapes)}
        rows = max(map(len, values.values()), default=0)
        return pd.DataFrame(
            {
                name: pd.Series([*values[name], *values[name][-1:] * (rows - len(values[name]))], dtype=kind)
                for name, kind in self._kinds().items()
            }
        )

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the table in parts; the index counts through all of them."""
        kinds, begin = self._kinds(), 0
        self._file.seek(0)
        for line in self._file:
            columns, tables, last = json.loads(line.decode("utf-8", "surrogatepass"))
            part = Part(columns, tuple(tables), last)
            frame = pd.DataFrame({name: pd.Series(column(part, name), dtype=kind) for name, kind in kinds.items()})
            frame.index += begin
            begin += len(part)
            yield frame

    def _values(self, name: str) -> list[Any]:
        """Return a value of each type that is in a column."""
        some = list(self._examples[name].values())
        return some if all(name in in_order([one]) for one in self._shapes) else [None, *some]

    def _kinds(self) -> dict[str, Any]:
        """Return the type of each column."""
        names = in_order(self._shapes)
        return {name: kind_of(name) or pd.Series(self._values(name)).dtype for name in names}


def _note(examples: dict[object, Any], values: Sequence[Any]) -> None:
    """Keep of a column's values those that decide its type."""
    for kind in set(map(type, values)):
        some = [one for one in values if type(one) is kind]
        if kind is int:  # some may be too large for the usual type
            known = [examples[key] for key in ("least", "most") if key in examples]
            examples["least"], examples["most"] = min(known + some), max(known + some)
        elif kind is list:  # an empty one does not show of what it is
            examples[kind] = max([*some, examples.get(kind, [])], key=lambda one: (bool(one and one[0]), bool(one)))
        else:
            examples.setdefault(kind, some[0])
