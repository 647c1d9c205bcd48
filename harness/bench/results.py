"""Records of the bench, one per task, predictor and budget, and the file that stores them as they are finished."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from latlab.harness.bench.evaluate import Score, Unit
from latlab.harness.errors import BadInputError
from latlab.harness.paths import whole_file

__all__ = ["Record", "ResultFile", "records"]

Record = dict[str, Any]
"""A JSON object; `records` describes its fields."""
_QUALITY = ("spearman", "kendall", "mape_percent", "within_10_percent", "coverage_90")
_TIMES = ("pretrain_s", "select_s", "adapt_s", "predict_per_s")
_FIGURES = ("spearman_mean", "spearman_std", "kendall_mean", *_QUALITY[2:], *_TIMES)
_IDENTITY = ("task", "predictor", "selection", "protocol", "seeds", "source_samples")


def records(unit: Unit, seeds: int, scores: Sequence[Score]) -> list[Record]:
    """Return one record per budget from the scores of all seeds. A budget too small for the predictor has no figures.

    Every figure is averaged over the targets, then over the seeds. `spearman_std` is the standard deviation over the
    seeds (None for one seed). `per_device` has the means over the seeds. `pretrain_s` is the longest, because the first
    pre-training may prepare what the others reuse. HAT's records also have `spearman_within_depth`. A figure that is
    not defined (the rank correlation of constant predictions) is None.
    """
    found = []
    for n in unit.samples:
        own = [score for score in scores if score.samples == n]
        if not own:
            found.append({**identity(unit, seeds), "samples": n, **dict.fromkeys(_FIGURES), "per_device": {}})
            continue
        by_seed = [_mean(one for one in own if one.seed == seed) for seed in sorted({one.seed for one in own})]
        devices = list(dict.fromkeys(one.device for one in own))
        overall = _mean(own)
        rho = np.array([one["spearman"] for one in by_seed])
        found.append(
            {
                **identity(unit, seeds),
                "samples": n,
                "spearman_mean": _number(overall["spearman"]),
                "spearman_std": _number(float(rho.std(ddof=1))) if len(rho) > 1 else None,
                "kendall_mean": _number(overall["kendall"]),
                **{name: _number(overall[name]) for name in _QUALITY[2:]},
                "per_device": {
                    device: {
                        name: _number(value)
                        for name, value in _mean(one for one in own if one.device == device).items()
                        if name in _QUALITY
                    }
                    for device in devices
                },
                **{name: overall.get(name) for name in _TIMES},
                "pretrain_s": max(one.pretrain_s for one in own),
                **({"spearman_within_depth": overall["within_depth"]} if "within_depth" in overall else {}),
            }
        )
    return found


def identity(unit: Unit, seeds: int) -> Record:
    """Return the fields that identify a record, except its budget."""
    return {
        "task": unit.task.name,
        "predictor": unit.predictor.text,
        "selection": unit.selection,
        "protocol": unit.protocol,
        "seeds": seeds,
        "source_samples": unit.source_samples,
        **({} if unit.encoding_table is None else {"encoding_table": unit.encoding_table.name}),
    }


def _mean(scores: Iterable[Score]) -> dict[str, float]:
    own = list(scores)
    names = [field.name for field in fields(Score) if field.name not in ("device", "samples", "seed")]
    values = {name: np.array([getattr(one, name) for one in own]) for name in names}
    # Not every score has these two: the rate is measured once, depths matter in one space.
    values |= {name: values[name][~np.isnan(values[name])] for name in ("predict_per_s", "within_depth")}
    return {name: float(one.mean()) for name, one in values.items() if len(one)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class ResultFile:
    """A file of records, one JSON object per line. Finished tasks and predictors are added, and not computed again.

    Raises:
        BadInputError: the file cannot be read or written, or its content is something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: list[Record] = []
        if path is not None and path.exists():
            self._known = self._read(path)
        self.add([])  # an unwritable file must fail now, not after hours of work

    def _read(self, path: Path) -> list[Record]:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"cannot read {path}: {error}") from error
        found = []
        for number, line in enumerate(lines, 1):
            if not line or number == len(lines):  # a last line without line break: an older version wrote it in part
                continue
            try:
                record = json.loads(line)
                found.append({name: record[name] for name in (*_IDENTITY, "samples", "per_device")} | record)
            except (ValueError, KeyError, TypeError) as error:
                raise BadInputError(
                    f"{path}, line {number}: no record of the bench ({error!r})", "Name another file with --out."
                ) from error
        return found

    def of(self, unit: Unit, seeds: int) -> list[Record]:
        """Return the records of `unit` (for any seed) if all of its budgets are present, else an empty list."""
        wanted = identity(unit, seeds)
        own = {
            record["samples"]: record
            for record in self._known
            if all(record.get(name) == wanted.get(name) for name in (*_IDENTITY, "encoding_table"))
        }
        return [own[n] for n in unit.samples] if set(unit.samples) <= set(own) else []

    def add(self, new: Sequence[Record]) -> None:
        """Add records to the file, which is replaced as a whole.

        Raises:
            BadInputError: the file cannot be written.
        """
        if self._path is None:
            return
        kept = self._read(self._path) if self._path.exists() else []  # another process may have added to it
        with whole_file(self._path) as part:
            part.write_text("".join(json.dumps(one, allow_nan=False) + "\n" for one in [*kept, *new]), encoding="utf-8")
