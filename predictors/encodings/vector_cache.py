"""A file of vectors that took seconds each to compute, by what they are and by architecture."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from latlab.predictors.base import FloatArray, IntArray

__all__ = ["VectorCache"]

WAIT_S = 60.0
"""Seconds for which one process waits until another has written."""
CHUNK = 500
"""Architectures that are asked for at a time; SQLite limits the variables of a question."""


class VectorCache:
    """Vectors in an SQLite file, which several processes may use at once; a killed one leaves whole rows.

    What cannot be read or written (a full disk, a folder without permission, a damaged file) is no error: vectors are
    computed again then. A damaged file is removed.

    Args:
        path: the file, which is made when the first vector is put; None for no cache.
        key: what the vectors are, with all that they depend on but the architecture.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key

    def get(self, genes: IntArray, width: int) -> tuple[FloatArray, np.ndarray]:
        """Return the vectors (n, width) of architectures `genes` (n, genes), and which rows are known, bool (n,)."""
        found, known = np.full((len(genes), width), np.nan), np.zeros(len(genes), bool)
        if self._path is None or not self._path.exists() or not len(genes):
            return found, known
        names = [row.tobytes() for row in np.ascontiguousarray(genes, dtype=np.int64)]

        def read(file: sqlite3.Connection) -> None:
            for start in range(0, len(names), CHUNK):
                part = names[start : start + CHUNK]
                marks = ",".join("?" * len(part))
                rows = file.execute(
                    f"SELECT genes, vector FROM vectors WHERE key = ? AND genes IN ({marks})", (self._key, *part)
                ).fetchall()
                vectors = {name: np.frombuffer(vector) for name, vector in rows if len(vector) == 8 * width}
                for row, name in enumerate(part, start):
                    if name in vectors:
                        found[row], known[row] = vectors[name], True

        self._use(read)
        return found, known

    def put(self, genes: IntArray, vectors: FloatArray) -> None:
        """Keep the vectors (n, width) of architectures `genes` (n, genes)."""
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = zip(np.ascontiguousarray(genes, np.int64), np.ascontiguousarray(vectors, np.float64), strict=True)
        values = [(self._key, row.tobytes(), vector.tobytes()) for row, vector in rows]

        def write(file: sqlite3.Connection) -> None:
            columns = "key TEXT, genes BLOB, vector BLOB, PRIMARY KEY (key, genes)"
            with file:
                file.execute(f"CREATE TABLE IF NOT EXISTS vectors ({columns})")
                file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", values)

        self._use(write, again=True)

    def _use(self, work: Callable[[sqlite3.Connection], None], *, again: bool = False) -> None:
        """Call `work` with the open file, and with a new one where it was damaged and `again` is true."""
        assert self._path is not None
        try:
            with closing(sqlite3.connect(self._path, timeout=WAIT_S)) as file:
                work(file)
        except sqlite3.OperationalError:
            pass  # it cannot be opened, read or written now, or has no table yet
        except (sqlite3.DatabaseError, ValueError):
            with suppress(OSError):
                self._path.unlink()
                if again:
                    self._use(work)
