"""The state of a search in a folder, so that a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.paths import whole_file, writable_folder
from latlab.harness.search.accuracy import MOST
from latlab.harness.search.plain_arrays import read_arrays
from latlab.harness.store.errors import StoreWarning
from latlab.harness.targets import Target
from latlab.harness.text import plain
from latlab.search_spaces import SearchSpace

__all__ = ["Progress", "SearchFolder"]

STATE, ACCURACIES = "state.json", "accuracies.npz"
SAVE_EVERY_S = 10.0
"""Seconds between two savings of accuracies: what was asked of a slow source since then is asked again."""
MOST_BYTES = 1 << 28
MOST_COUNTED = 1e9
"""No search has so many rounds, networks or seconds."""


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
    resolved: list[str] = field(default_factory=list)
    """Networks to which passes were added, because it was not certain that they keep the limits."""
    population: list[str] = field(default_factory=list)
    """Networks from which the next look at the candidates begins."""


class SearchFolder:
    """A search's folder: how far it has come, and accuracies that are known.

    What is damaged there is not used, and a `StoreWarning` says so.

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
        path = self.path / STATE
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("it is too large")
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or "key" not in values:
                raise ValueError("it holds no search")
            if values.pop("key") != self._key:
                return None  # of another search
            found = Progress(**values)
            self._check(found)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError, LatlabError) as error:
            _warn(f"{path} is damaged ({' '.join(str(error).split()):.150}), so the search begins afresh.")
            return None
        return found

    def _check(self, found: Progress) -> None:
        """Raise `ValueError` or another error if no search can have come there."""
        kinds = {one.name: type(getattr(Progress(), one.name)) for one in fields(Progress)}
        for name, kind in kinds.items():
            value = getattr(found, name)
            if name == "onboarding" and value is None:
                continue
            if type(value) is not (list if name == "onboarding" else kind):
                raise ValueError(f"{name} is a {type(value).__name__}")
            if isinstance(value, int | float) and not 0 <= value <= MOST_COUNTED:
                raise ValueError(f"{name} is {value}")
            if isinstance(value, list) and not all(type(one) is str for one in value):
                raise ValueError(f"{name} holds more than text")
        if found.spent < found.onboarded + found.round:
            raise ValueError(f"{found.spent} networks in {found.round} rounds after {found.onboarded}")
        if len(set(found.asked)) < len(found.asked):
            raise ValueError("asked names a network twice")
        for target in found.onboarding or ():
            Target.parse(target)
        for text in (*found.asked, *found.resolved, *found.population):
            self._space.parse(text)

    def _read_accuracies(self) -> dict[bytes, float]:
        path = self.path / ACCURACIES
        try:
            arrays = read_arrays(path, {"key": "U", "genes": "i", "accuracy": "f"}, MOST_BYTES)
            if arrays["key"].tolist() != self._key:
                return {}  # of another search
            genes, accuracy = arrays["genes"].astype(np.int64), arrays["accuracy"].astype(np.float64)
            if accuracy.ndim != 1 or genes.shape != (len(accuracy), self._space.num_genes):
                raise ValueError(f"its arrays have the shapes {genes.shape} and {accuracy.shape}")
            if not self._space.valid(genes).all():
                raise ValueError(f"it holds networks that are not of {self._space.name}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, MemoryError) as error:
            _warn(f"{path} is damaged ({error!s:.150}), so accuracies are asked for again.")
            return {}
        known = np.abs(accuracy) < MOST  # no source that is remembered says NaN
        return {row.tobytes(): one for row, one in zip(genes[known], accuracy[known].tolist(), strict=True)}


def _warn(sentence: str) -> None:
    warnings.warn(plain(sentence), StoreWarning, stacklevel=4)
