"""The page of `latlab quality`: charts and figures of each target and space in one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from latlab.harness.quality.assessment import Quality
from latlab.harness.quality.published import PUBLISHED
from latlab.harness.quality.summary import figures
from latlab.harness.report import theme
from latlab.harness.report.chart import Chart
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.quality.charts import measured_again, noise_by_latency, residual_by_order, verdict_bars
from latlab.harness.report.stage_chart import where_time_went
from latlab.harness.report.tiles import Tile
from latlab.harness.text import clean, fine_correlation, percent

__all__ = ["render", "write_page"]

SHOWN_SESSIONS = 3
"""The number of last sessions whose residuals are drawn."""


def write_page(found: Sequence[Quality], path: Path) -> Path:
    """Write the page, and return its absolute path.

    Raises:
        BadInputError: it cannot be written.
    """
    return write_whole(render(found), path)


def render(found: Sequence[Quality]) -> str:
    """Return the page as text."""
    with theme.style():
        parts = [_part(one, f"q{number}") for number, one in enumerate(found)]
    template = environment(Path(__file__).parent).get_template("quality.html")
    return template.render(css=stylesheet(), parts=parts, published=PUBLISHED)


def _part(one: Quality, name: str) -> dict[str, object]:
    sessions = one.data.sessions
    pair = one.again.sessions if one.again else None
    charts: list[Chart | None] = [
        measured_again(sessions[pair[0]], sessions[pair[1]], name) if pair else None,
        noise_by_latency(pd.concat([session.labels for session in sessions]), name),
        residual_by_order(list(zip(sessions, one.residuals, strict=True))[-SHOWN_SESSIONS:], one.expectation, name),
        verdict_bars(one.labels.verdicts, name),
        where_time_went(one.stages, f"{name}-stages"),
    ]
    return {
        "target": clean(one.target),
        "space": clean(one.space),
        "fitness": str(one.fitness),
        "simulated": one.simulated,
        "tiles": _tiles(one),
        "charts": [chart for chart in charts if chart],
        "figures": [(title, clean(text)) for title, text in figures(one)],
        "ceiling": fine_correlation(one.ceiling.spearman),
    }


def _tiles(one: Quality) -> list[Tile]:
    labels = one.labels
    found = []
    if not math.isnan(one.ceiling.spearman):
        note = "rank of a perfect predictor" if one.between is not None else "at most: one session only"
        if one.slow_ceiling < one.ceiling.spearman:
            note = f"{fine_correlation(one.slow_ceiling)} including drift over time"
        warn = one.fitness.grade == "unfit"
        found.append(Tile("Ceiling", fine_correlation(one.ceiling.spearman), note=note, warn=warn))
    if one.again is not None:
        note = f"error bars predict {fine_correlation(one.again.expected.retest)}"
        warn = one.again.retest.spearman < one.again.expected.low
        found.append(Tile("Test-retest", fine_correlation(one.again.retest.spearman), note=note, warn=warn))
    if labels.stderr_percent is not None:
        found.append(Tile("Standard error", percent(labels.stderr_percent), "%", "median, within a session"))
    if one.between is not None and one.between.specific_percent is not None:
        found.append(Tile("Between sessions", percent(one.between.specific_percent), "%", "of a network, in addition"))
    if labels.verdicts:
        good = labels.verdicts.get("", 0)
        found.append(Tile("Good labels", f"{100 * good / sum(labels.verdicts.values()):.0f}", "%", "without a doubt"))
    found.append(Tile("Networks", f"{labels.networks:,}", note=f"{labels.failed:,} failed" if labels.failed else ""))
    return found
