"""The report's tables as rows of formatted text."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from latlab.harness.store.vocabulary import Status
from latlab.harness.text import clean, millions, ms, percent

__all__ = ["MAX_FAILURES", "Failure", "Network", "extremes", "failure_kinds", "failures"]

EACH_END = 5
"""The number of networks shown at each end of the ranking."""
EACH_END_LONG = 3
"""The same for names longer than `LONG` characters, so that the table stays as high as a chart."""
LONG = 80
MAX_FAILURES = 50
MAX_ERROR_CHARACTERS = 400


@dataclass(frozen=True)
class Network:
    """A row of the table of networks."""

    rank: int
    arch: str
    latency: str
    noise: str
    predicted: str
    macs: str
    spread: str
    """Percentiles, jitter and throughput in words; empty if none are known."""
    left_out_before: int
    """The number of networks that the table leaves out between this row and the row before."""


@dataclass(frozen=True)
class Failure:
    """A row of the table of failures."""

    arch: str
    role: str
    kind: str
    error: str


def extremes(networks: pd.DataFrame, compared: pd.DataFrame) -> list[Network]:
    """Return the fastest and the slowest measured networks, or all of them if they are few."""
    ranked = networks.sort_values(["latency_ms", "arch"], kind="stable").reset_index(drop=True)
    predicted = dict(zip(compared["arch"], compared["predicted_ms"], strict=True))
    shown = list(range(len(ranked)))
    ends = EACH_END if ranked["arch"].map(len).median() <= LONG else EACH_END_LONG
    if len(ranked) > 2 * ends + 1:
        shown = shown[:ends] + shown[-ends:]
    rows = []
    for place, index in enumerate(shown):
        row = ranked.iloc[index]
        noise = row["stderr_ms"] / row["latency_ms"] * 100
        rows.append(
            Network(
                rank=index + 1,
                arch=clean(row["arch"], 300),
                latency=ms(row["latency_ms"]),
                noise=f"± {percent(noise)} %" if noise >= 0 else "",
                predicted=ms(predicted[row["arch"]]) if row["arch"] in predicted else "",
                macs=millions(row["macs"]) if row["macs"] >= 0 else "",
                spread=_spread(row),
                left_out_before=index - shown[place - 1] - 1 if place else 0,
            )
        )
    return rows


def _spread(row: pd.Series) -> str:
    """Return the percentiles, the jitter and the throughput of a network in words."""
    known = [f"{name[:3]} {ms(row[name])}" for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms") if row[name] > 0]
    parts = [f"{', '.join(known)} ms"] if known else []
    if row["jitter_percent"] >= 0:
        parts.append(f"jitter {percent(row['jitter_percent'])} %")
    if row["throughput_per_s"] > 0:
        parts.append(f"{row['throughput_per_s']:,.0f} a second")
    return "; ".join(parts)


def failures(failed: pd.DataFrame) -> list[Failure]:
    """Return the first `MAX_FAILURES` failures with their reasons."""
    return [
        Failure(
            arch=clean(row["arch"], 300),
            role=clean(row["role"], 40),
            kind=_kind(row),
            error=clean(row["error"].strip(), MAX_ERROR_CHARACTERS) or "no message",
        )
        for _, row in failed.head(MAX_FAILURES).iterrows()
    ]


def failure_kinds(failed: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the number of failures of each kind, the most common first."""
    kinds = pd.Series([_kind(row) for _, row in failed.iterrows()], dtype=object)
    counts = sorted(kinds.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    return [(str(kind), int(number)) for kind, number in counts]


def _kind(row: pd.Series) -> str:
    # Only a broken table has "ok" without a latency, and that must not look like a success.
    return clean(row["status"], 60) if row["status"] not in ("", Status.OK) else "no latency"
