"""Published results, to print next to those computed here: cited numbers, not data.

Mean Spearman over a task's targets with 20 measurements of each. All three rows are from NASFLAT's paper (Akhauri and
Abdelfattah, On Latency Predictors for Neural Architecture Search, MLSys 2024); HELP and MultiPredict are as its
authors ran them. The paper's N1, N3, N4 and NA had a few more GPU columns than the public tables.
"""

from __future__ import annotations

__all__ = ["CEILINGS", "PUBLISHED_SPEARMAN", "SAMPLES"]

SAMPLES = 20
"""The measurements of each target in these results."""
_TASKS = ("ND", "N1", "N2", "N3", "N4", "NA", "FD", "F1", "F2", "F3", "F4", "FA")


def _row(*values: float) -> dict[str, float]:
    return dict(zip(_TASKS, values, strict=True))


PUBLISHED_SPEARMAN = {
    "HELP (published)": _row(0.948, 0.604, 0.509, 0.729, 0.746, 0.410, 0.910, 0.793, 0.543, 0.413, 0.799, 0.370),
    "MultiPredict (published)": _row(
        0.930, 0.907, 0.757, 0.947, 0.952, 0.820, 0.960, 0.756, 0.567, 0.434, 0.763, 0.450
    ),
    "NASFLAT (published)": _row(0.959, 0.967, 0.857, 0.962, 0.959, 0.893, 0.961, 0.809, 0.871, 0.814, 0.734, 0.577),
}
"""Mean Spearman correlation by method and task."""
CEILINGS = _row(0.978, 0.987, 0.974, 0.983, 0.986, 0.992, 1.000, 0.933, 0.981, 0.980, 0.831, 0.823) | {
    "OFA": 0.960,
    "OFA-V100": 0.952,
    "HAT": 0.985,
}
"""The highest correlation that a predictor can reach on each task.

It is limited by the labels' own noise, or is that of a fit to thousands of the target's samples.
"""
