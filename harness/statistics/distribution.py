"""The distribution of single inferences behind a label: percentiles, jitter, and the throughput of its latency.

Percentiles are of all samples of all passes of the label together, none of them trimmed, and without the session's
drift where the label is. They need the durations of single inferences: where a sample is the mean over a block of calls
(`calls`), or a program prints only statistics (`aggregate`), there are none, because means hide what is between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.harness.errors import BadInputError
from latlab.harness.targets import Target
from latlab.harness.telemetry.readings import number
from latlab.harness.telemetry.recorded_pass import RecordedPass

__all__ = ["DISTRIBUTION", "PERCENTILES", "distribution", "throughput_per_s"]

PERCENTILES = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99}
DISTRIBUTION = {
    **{name: f"{percent} % of the inferences took at most this long" for name, percent in PERCENTILES.items()},
    "jitter_percent": "the interquartile range of the inferences, in per cent of their median",
}
"""Names of the figures, with their meaning; they are among the metrics of a row (`telemetry.metrics`)."""


def distribution(passes: Sequence[RecordedPass]) -> dict[str, float]:
    """Return those figures of `DISTRIBUTION` that the samples of a label's passes allow.

    A percentile p of n samples is left out if fewer than one sample lies above it on average, n (1 - p) < 1: it would
    be the greatest sample under another name. Between two samples it is interpolated linearly (Hyndman and Fan's
    definition 7). Jitter is the interquartile range and not the standard deviation, because one interruption among
    hundreds of inferences would decide that, and the upper percentiles show it anyway.

    Args:
        passes: all passes that are part of the label.
    """
    if any((number(one.telemetry, "calls") or 1) > 1 or "aggregate" in one.telemetry for one in passes):
        return {}
    samples = np.array([sample for one in passes for sample in one.samples_ns], float)
    if not samples.size:
        return {}
    low, high, *values = np.percentile(samples, [25, 75, *PERCENTILES.values()])
    found = {
        name: float(value) / 1e6
        for (name, percent), value in zip(PERCENTILES.items(), values, strict=True)
        if percent == 50 or samples.size * (100 - percent) >= 100
    }
    if samples.size >= 4 and values[0] > 0:
        found["jitter_percent"] = float(100 * (high - low) / values[0])
    return found


def throughput_per_s(target: str, latency_ms: float) -> float | None:
    """Return how many inputs a second a label's latency means: batch size / latency. None for an odd target.

    It is the throughput of one inference after another; several at once may have a higher one.
    """
    try:
        return 1000 * Target.parse(target).batch_size / latency_ms if latency_ms > 0 else None
    except BadInputError:
        return None
