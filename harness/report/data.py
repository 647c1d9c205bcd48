"""The data that a report is made from, and simple facts derived from it for charts, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from latlab.harness.statistics.distribution import DISTRIBUTION
from latlab.harness.store.vocabulary import Status
from latlab.harness.text import clean

__all__ = [
    "FASTEST_COLUMNS",
    "LEARNING_CURVE_COLUMNS",
    "MEASUREMENT_COLUMNS",
    "PREDICTION_COLUMNS",
    "SPACE_SAMPLE_COLUMNS",
    "Headline",
    "ReportData",
    "rank_correlation",
    "typical_noise_percent",
]

DISTRIBUTION_COLUMNS = (*DISTRIBUTION, "throughput_per_s")
MEASUREMENT_TEXT = ("arch", "role", "status", "error")
MEASUREMENT_NUMBERS = (
    *("latency_ms", "stderr_ms", "order", "macs", "params"),
    *("build_s", "export_s", "parity_s", "push_s", "load_s", "warm_s", "measure_s"),
    *DISTRIBUTION_COLUMNS,
)
MEASUREMENT_COLUMNS = (*MEASUREMENT_TEXT, *MEASUREMENT_NUMBERS, "passes")
PREDICTION_TEXT = ("arch", "role")
PREDICTION_NUMBERS = ("latency_ms", "predicted_ms", "std_ms", "lower_ms", "upper_ms")
PREDICTION_COLUMNS = (*PREDICTION_TEXT, *PREDICTION_NUMBERS)
LEARNING_CURVE_COLUMNS = ("n", "loo_spearman", "loo_mape_percent", "holdout_spearman")
SPACE_SAMPLE_COLUMNS = ("arch", "macs", "predicted_ms", "std_ms", "measured")
FASTEST_NUMBERS = ("predicted_ms", "lower_ms", "upper_ms", "measured_ms", "stderr_ms")
FASTEST_COLUMNS = ("arch", *FASTEST_NUMBERS)


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in columns})


@dataclass(frozen=True)
class Headline:
    """The figures of this run; None for those that are not known.

    Names that end in `_percent` run from 0 to 100, all others from 0 to 1 (correlations from -1).
    """

    failed: int | None = None
    """The number of networks without a latency."""
    holdout_spearman: float | None = None
    holdout_retest_spearman: float | None = None
    """Rank correlation of two separate measurements of the hold-out: the highest that its own noise permits."""
    holdout_mape_percent: float | None = None
    holdout_within_10_percent: float | None = None
    """Percentage of the hold-out whose prediction is within 10 % of the measured latency."""
    coverage_90: float | None = None
    """Share of the hold-out inside its 90 % intervals; 0.9 is correct."""
    wall_s: float | None = None
    """Seconds that the run took."""
    timing_share: float | None = None
    """Share of `wall_s` in which the device was timing.

    For a simulated device it counts simulated time, so it may exceed 1.
    """
    simulated: bool = False


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that a report shows. Frames may be empty, and columns may be missing.

    `measurements`: one row per attempt (`MEASUREMENT_COLUMNS`); `status` is "ok" or a kind of failure, `role` is train,
    holdout, reference or listed; `order` counts in the sequence of measuring; `passes` holds lists of lists of
    nanoseconds, one list per pass. `predictions`: one row per measured network, with the 90 % interval.
    `learning_curve`: one row per refit. `space_sample`: networks drawn from the space, with their predictions.
    `fastest`: the networks with the shortest predicted latencies, the fastest first, with 90 % intervals, and with
    labels if they were measured.
    """

    target: str
    """The target's name, e.g. `local/onnxruntime/cpu/fp32/t1/b1`."""
    space: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """Names and values, shown in this order: CPU, operating system, runtime, policy, seed, predictor, dates..."""
    headline: Headline = field(default_factory=Headline)
    measurements: pd.DataFrame = field(default_factory=lambda: _empty(MEASUREMENT_COLUMNS))
    predictions: pd.DataFrame = field(default_factory=lambda: _empty(PREDICTION_COLUMNS))
    learning_curve: pd.DataFrame = field(default_factory=lambda: _empty(LEARNING_CURVE_COLUMNS))
    space_sample: pd.DataFrame = field(default_factory=lambda: _empty(SPACE_SAMPLE_COLUMNS))
    fastest: pd.DataFrame = field(default_factory=lambda: _empty(FASTEST_COLUMNS))
    fastest_of: str = ""
    """A sentence that says of which networks `fastest` are the fastest."""
    files: Sequence[tuple[str, str]] = ()
    """What lies beside the report, in words, and its path from the report's folder; a folder's path ends in "/"."""
    notes: Sequence[str] = ()
    """Warnings as plain sentences."""
    imported: bool = False
    """True if all labels were imported by the user: their order says nothing."""
    train_predictions: Literal["leave-one-out", "in-sample"] = "leave-one-out"
    """How those rows of `predictions` were predicted that are not hold-out."""

    def ok(self) -> pd.DataFrame:
        """Return the measurements with a latency in the order of measuring, with all columns."""
        frame = self._measurements()
        frame = frame[(frame["status"] == Status.OK) & (frame["latency_ms"] > 0)]
        return frame.sort_values("order", kind="stable").reset_index(drop=True)

    def networks(self) -> pd.DataFrame:
        """Return one row per architecture.

        If it was measured in several sessions, the latency is their mean, with that mean's standard error, and so are
        the figures of its distribution.
        """
        ok = self.ok()
        ok["variance"] = ok["stderr_ms"] ** 2
        groups = ok.groupby("arch", sort=False)
        means = {name: (name, "mean") for name in ("latency_ms", *DISTRIBUTION_COLUMNS)}
        found = groups.agg(**means, macs=("macs", "first"))
        found["stderr_ms"] = groups["variance"].sum(min_count=1) ** 0.5 / groups["variance"].count()
        return found.reset_index()

    def failures(self) -> pd.DataFrame:
        """Return the attempts without a latency, in the order of measuring."""
        frame = self._measurements()
        frame = frame[~((frame["status"] == Status.OK) & (frame["latency_ms"] > 0))]
        return frame.sort_values("order", kind="stable").reset_index(drop=True)

    def attempts(self) -> pd.DataFrame:
        """Return all measurements, failed or not, with all columns."""
        return self._measurements()

    def compared(self) -> pd.DataFrame:
        """Return the predictions of networks with a measured latency."""
        frame = _complete(self.predictions, PREDICTION_TEXT, PREDICTION_NUMBERS)
        return frame[(frame["latency_ms"] > 0) & (frame["predicted_ms"] > 0)].reset_index(drop=True)

    def curve(self) -> pd.DataFrame:
        """Return the learning curve, ordered by the number of samples."""
        frame = _complete(self.learning_curve, (), LEARNING_CURVE_COLUMNS)
        return frame[frame["n"].notna()].sort_values("n", kind="stable").reset_index(drop=True)

    def sample(self) -> pd.DataFrame:
        """Return the networks drawn from the space that have MACs and a prediction."""
        frame = _complete(self.space_sample, ("arch",), ("macs", "predicted_ms", "std_ms"))
        return frame[(frame["macs"] > 0) & (frame["predicted_ms"] > 0)].reset_index(drop=True)

    def predicted_fastest(self) -> pd.DataFrame:
        """Return the networks of `fastest` that have a prediction, with all columns."""
        frame = _complete(self.fastest, ("arch",), FASTEST_NUMBERS)
        return frame[frame["predicted_ms"] > 0].reset_index(drop=True)

    def _measurements(self) -> pd.DataFrame:
        frame = _complete(self.measurements, MEASUREMENT_TEXT, MEASUREMENT_NUMBERS)
        if frame["order"].isna().any():
            frame["order"] = np.arange(1, len(frame) + 1, dtype=float)
        passes = self.measurements["passes"] if "passes" in self.measurements else [None] * len(frame)
        frame["passes"] = pd.Series([_samples(value) for value in passes], index=frame.index, dtype=object)
        return frame


def _complete(frame: pd.DataFrame, text: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Return a copy with exactly these columns. Text is cleaned; missing text is "", and no finite number is NaN."""
    columns: dict[str, pd.Series] = {}
    for name in text:
        values = frame[name] if name in frame else pd.Series("", index=frame.index)
        # Not pandas' own strings: they refuse invalid Unicode, which `clean` would have replaced.
        texts = ["" if absent else clean(str(value)) for value, absent in zip(values, values.isna(), strict=True)]
        columns[name] = pd.Series(texts, index=frame.index, dtype=object)
    for name in numbers:
        values = frame[name] if name in frame else pd.Series(np.nan, index=frame.index)
        column = pd.to_numeric(values, errors="coerce").astype(float)
        columns[name] = column.where(np.isfinite(column))
    return pd.DataFrame(columns, index=frame.index).reset_index(drop=True)


def _samples(value: object) -> list[np.ndarray]:
    """Return the passes as arrays of milliseconds, [] if none were stored."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return []
    return [np.asarray(one, dtype=float) / 1e6 for one in value if len(one)]


def rank_correlation(a: pd.Series, b: pd.Series) -> float | None:
    """Return Spearman's rank correlation, or None for fewer than three pairs or for constant values."""
    if len(a) < 3 or a.nunique() < 2 or b.nunique() < 2:
        return None
    return float(np.corrcoef(a.rank(), b.rank())[0, 1])


def typical_noise_percent(ok: pd.DataFrame) -> float | None:
    """Return the median standard error as a percentage of the latency, or None if no error was estimated."""
    relative = (ok["stderr_ms"] / ok["latency_ms"]).dropna()
    return float(relative.median() * 100) if len(relative) else None
