"""The state of a search in a folder, so that a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file, writable_folder
from latlab.search_spaces import ArchitectureError, SearchSpace

__all__ = ["Progress", "SearchFolder"]

STATE, ACCURACIES = "state.json", "accuracies.npz"
SAVE_EVERY_S = 10.0
"""Seconds between two savings of accuracies: what was asked of a slow source since then is asked again."""
MOST_BYTES = 1 << 28


@dataclass
class Progress:
    """How far a search has come. What was measured is in the store, and what it decides is computed again."""

    onboarding: list[str] | None = None
    """Targets that had no labels when the search began; None if that was not looked at yet."""
    onboarded: int = 0
    """Number of networks with which these were onboarded, once that is done."""
    round: int = 0
    """Number of rounds that were measured."""
    spent: int = 0
    """Number of networks that were measured for this search; another session of one counts again."""
    asked: list[str] = field(default_factory=list)
    """Networks that a round has decided to measure, of which some may be measured."""
    measuring_s: float = 0.0
    """Seconds that measuring has taken, exports included."""
    again: bool = False
    """Whether these are measured in a new session."""
    population: list[str] = field(default_factory=list)
    """Networks from which the next look at the candidates begins."""


class SearchFolder:
    """A search's folder: how far it has come, and accuracies that are known.

    Args:
        path: the folder, which is made.
        identity: what the search depends on. Another search in the same folder starts afresh.
        space: the search space.

    Raises:
        BadInputError: the folder cannot be written.
    """

    def __init__(self, path: Path, identity: Sequence[object], space: SearchSpace) -> None:
        if path.exists() and not path.is_dir():
            raise BadInputError(f"{path} is a file, not a folder", "Name another with --out.")
        self.path = writable_folder(path)
        self._key = hashlib.sha256(json.dumps([str(one) for one in identity]).encode()).hexdigest()
        self._space = space
        self._saved_at = time.monotonic()
        self._saved = 0
        earlier = self._read_progress()
        self.continues = earlier is not None
        """Whether an earlier run of this search has left its state."""
        self.progress = earlier or Progress()
        self.accuracies: dict[bytes, float] = self._read_accuracies() if self.continues else {}
        """Known accuracies, by the bytes of genes."""

    def save(self) -> None:
        """Write how far the search has come."""
        with whole_file(self.path / STATE) as part:
            part.write_text(json.dumps({"key": self._key, **asdict(self.progress)}, indent=1) + "\n")

    def save_accuracies(self, *, always: bool = False) -> None:
        """Write known accuracies, at most every `SAVE_EVERY_S` seconds, if there are new ones."""
        due = always or time.monotonic() - self._saved_at >= SAVE_EVERY_S
        if not due or len(self.accuracies) == self._saved:
            return
        keys = b"".join(self.accuracies)
        genes = np.frombuffer(keys, np.int64).reshape(len(self.accuracies), self._space.num_genes)
        with whole_file(self.path / ACCURACIES) as part, part.open("wb") as file:
            np.savez(file, key=np.array(self._key), genes=genes.astype(np.int32), accuracy=[*self.accuracies.values()])
        self._saved_at, self._saved = time.monotonic(), len(self.accuracies)

    def _read_progress(self) -> Progress | None:
        try:
            values = json.loads((self.path / STATE).read_bytes())
            if values.pop("key") != self._key:
                return None
            found = Progress(**values)
            kinds = {one.name: type(getattr(Progress(), one.name)) for one in fields(Progress)} | {"onboarding": list}
            if any(type(getattr(found, name)) is not kind for name, kind in kinds.items() if name != "onboarding"):
                return None
            for text in (*found.asked, *found.population):
                self._space.parse(text)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, ArchitectureError):
            return None  # another file, or a damaged one
        return found

    def _read_accuracies(self) -> dict[bytes, float]:
        path = self.path / ACCURACIES
        try:
            if path.stat().st_size > MOST_BYTES:
                return {}
            with np.load(path, allow_pickle=False) as arrays:
                genes, accuracy = arrays["genes"].astype(np.int64), arrays["accuracy"].astype(np.float64)
                good = arrays["key"].item() == self._key and genes.shape == (len(accuracy), self._space.num_genes)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
            return {}
        return {row.tobytes(): one for row, one in zip(genes, accuracy.tolist(), strict=True)} if good else {}
