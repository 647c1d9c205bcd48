"""Pre-training that is done once: its result is kept in the cache folder, and so is the state of an unfinished one."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

import latlab.predictors
import latlab.search_spaces
from latlab.harness.active_learning.source_devices import signature
from latlab.harness.errors import BadInputError
from latlab.harness.paths import cache_folder, replaced_file, whole_folder
from latlab.predictors import Predictor, SourceDevice
from latlab.predictors.training_log import TrainingLog

__all__ = ["Report", "pretrained_once"]

Report = Callable[[int, int, Mapping[str, float]], None]
"""Called with the number of steps that are done, the number of all, and figures by name."""

KEEP_EVERY_S = 10.0
"""Seconds between two states of an unfinished training: a kill loses no more."""
MOST_KEPT = 40
"""Number of trained predictors in the cache; those that were not used for the longest time go first."""
FIGURES = "figures.json"


def pretrained_once(
    predictor: Predictor, options: Mapping[str, Any], sources: Sequence[SourceDevice], report: Report | None = None
) -> tuple[Predictor, dict[str, float], bool]:
    """Return a predictor that is pre-trained on `sources`: from the cache, if the same was trained before.

    An unfinished training of the same continues. A cache that cannot be read or written is no error.

    Args:
        predictor: a new predictor.
        options: the arguments that its constructor got.
        report: is told of the progress.

    Returns:
        The predictor; the figures of its training, of which `train_s` is its duration in seconds; and whether it was
        in the cache.

    Raises:
        ValueError: the predictor cannot learn from these sources.
    """
    folder = cache_folder() / "pretrained" / _key(predictor, options, sources)
    known = _from_cache(folder, predictor)
    if known is not None:
        return (*known, True)
    log = _CachedLog(folder.with_name(f"{folder.name}.unfinished"), report)
    predictor.training_log = log
    predictor.pretrain(sources)
    del predictor.training_log
    figures = {**log.figures, "train_s": round(log.seconds(), 3)}
    with suppress(BadInputError, OSError, SafetensorError):
        with whole_folder(folder) as part:
            predictor.save(part)
            (part / FIGURES).write_text(json.dumps(figures), encoding="utf-8")
        _tidy(folder.parent)
    with suppress(OSError):
        log.path.unlink(missing_ok=True)
    return predictor, figures, False


def _from_cache(folder: Path, predictor: Predictor) -> tuple[Predictor, dict[str, float]] | None:
    try:
        figures = {str(name): float(value) for name, value in json.loads((folder / FIGURES).read_bytes()).items()}
        found = type(predictor).load(folder, predictor.space)
    except (OSError, ValueError, AttributeError, TypeError):  # nothing there, or damaged: it is trained anew
        return None
    with suppress(OSError):
        os.utime(folder)
    return found, figures


def _key(predictor: Predictor, options: Mapping[str, Any], sources: Sequence[SourceDevice]) -> str:
    """Return a text that is another one for everything that changes the result: code, options, files, sources."""
    files = {
        name: hashlib.sha256(Path(value).read_bytes()).hexdigest()
        for name, value in options.items()
        if isinstance(value, str) and Path(value).is_file()
    }
    facts = {
        "predictor": predictor.name,
        "class": f"{type(predictor).__module__}.{type(predictor).__qualname__}",
        "options": {name: str(value) for name, value in sorted(options.items())},
        "files": files,
        "space": predictor.space.name,
        "seed": predictor.seed,
        "sources": signature(sources),
        "code": _code(Path(inspect.getfile(type(predictor))).parent),
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{predictor.name}-{predictor.space.name}-{digest[:24]}"


@lru_cache(maxsize=16)
def _code(own: Path) -> str:
    """Return a digest of the Python files that a predictor's result comes from: all predictors and spaces, its own."""
    folders = [own, *(Path(str(module.__file__)).parent for module in (latlab.predictors, latlab.search_spaces))]
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py"))[:1000]:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _tidy(folder: Path) -> None:
    def used(one: Path) -> float:
        with suppress(OSError):
            return one.stat().st_mtime
        return 0.0

    for old in sorted((one for one in folder.iterdir() if not one.name.startswith(".")), key=used)[:-MOST_KEPT]:
        with suppress(OSError):
            shutil.rmtree(old) if old.is_dir() else old.unlink()


class _CachedLog(TrainingLog):
    """A log that keeps unfinished states in a file.

    Args:
        path: the file.
        report: is told of the progress.
    """

    def __init__(self, path: Path, report: Report | None) -> None:
        self.path, self._report = path, report
        self.figures: dict[str, float] = {}
        self._started = self._kept_at = time.monotonic()
        self._before_s = 0.0

    def seconds(self) -> float:
        """Return the duration of the training so far, with that of earlier processes."""
        return self._before_s + time.monotonic() - self._started

    def progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.figures = dict(figures)
        if self._report is not None:
            self._report(done, total, figures)

    def unfinished(self) -> Mapping[str, NDArray[Any]] | None:
        try:
            found = load_file(self.path)
            self._before_s = float(found.pop("seconds")[0])
        except (OSError, SafetensorError, KeyError, IndexError, ValueError):
            return None
        return found

    def keep(self, state: Callable[[], Mapping[str, NDArray[np.generic]]]) -> None:
        if time.monotonic() - self._kept_at < KEEP_EVERY_S:
            return
        content = to_bytes({**state(), "seconds": np.array([self.seconds()])})
        with suppress(OSError, BadInputError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(self.path) as part:
                part.write_bytes(content)
        self._kept_at = time.monotonic()
