"""The report's tables as rows of formatted text."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from latlab.harness.store.vocabulary import Status
from latlab.harness.text import LatencyUnit, clean, millions, percent

__all__ = [
    "MAX_FAILURES",
    "Failure",
    "FastNetwork",
    "Network",
    "extremes",
    "failure_kinds",
    "failures",
    "fast_networks",
]

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
class FastNetwork:
    """A row of the table of the fastest predicted networks."""

    arch: str
    predicted: str
    interval: str
    """The 90 % interval; empty if it is not known."""
    measured: str
    """Empty if it was not measured."""
    noise: str


@dataclass(frozen=True)
class Failure:
    """A row of the table of failures."""

    arch: str
    role: str
    kind: str
    error: str


def extremes(networks: pd.DataFrame, compared: pd.DataFrame, unit: LatencyUnit) -> list[Network]:
    """Return the fastest and the slowest measured networks in a unit, or all of them if they are few."""
    ranked = networks.sort_values(["latency_ms", "arch"], kind="stable").reset_index(drop=True)
    predicted = dict(zip(compared["arch"], compared["predicted_ms"], strict=True))
    shown = list(range(len(ranked)))
    ends = EACH_END if ranked["arch"].map(len).median() <= LONG else EACH_END_LONG
    if len(ranked) > 2 * ends + 1:
        shown = shown[:ends] + shown[-ends:]
    rows = []
    for place, index in enumerate(shown):
        row = ranked.iloc[index]
        rows.append(
            Network(
                rank=index + 1,
                arch=clean(row["arch"], 300),
                latency=unit.number(row["latency_ms"]),
                noise=_noise(row["stderr_ms"], row["latency_ms"]),
                predicted=unit.number(predicted[row["arch"]]) if row["arch"] in predicted else "",
                macs=millions(row["macs"]) if row["macs"] >= 0 else "",
                spread=_spread(row, unit),
                left_out_before=index - shown[place - 1] - 1 if place else 0,
            )
        )
    return rows


def fast_networks(fastest: pd.DataFrame, unit: LatencyUnit) -> list[FastNetwork]:
    """Return the rows of the table of the fastest predicted networks, with latencies in a unit."""
    return [
        FastNetwork(
            arch=clean(row["arch"], 300),
            predicted=unit.number(row["predicted_ms"]),
            interval=_interval(row, unit),
            measured=unit.number(row["measured_ms"]) if row["measured_ms"] > 0 else "",
            noise=_noise(row["stderr_ms"], row["measured_ms"]),
        )
        for _, row in fastest.iterrows()
    ]


def _interval(row: pd.Series, unit: LatencyUnit) -> str:
    if not row["lower_ms"] <= row["upper_ms"]:
        return ""
    return f"{unit.number(max(row['lower_ms'], 0.0))} – {unit.number(row['upper_ms'])}"


def _noise(stderr_ms: float, latency_ms: float) -> str:
    """Return a standard error as a percentage of the latency; empty if one of them is not known."""
    noise = stderr_ms / latency_ms * 100
    return f"± {percent(noise)} %" if noise >= 0 else ""


def _spread(row: pd.Series, unit: LatencyUnit) -> str:
    """Return the percentiles, the jitter and the throughput of a network in words."""
    known = [
        f"{name[:3]} {unit.number(row[name])}" for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms") if row[name] > 0
    ]
    parts = [f"{', '.join(known)} {unit.symbol}"] if known else []
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
