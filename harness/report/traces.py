"""Charts with every run of a few networks, which show outliers and drift to the eye."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from latlab.harness.report.chart import Chart
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet
from latlab.harness.text import clean, latency_text, latency_unit, percent

__all__ = ["sample_traces"]

MAX_SAMPLES = 300
"""The most samples that one chart draws, besides outliers."""
BULK = 0.95
"""The scale fits this share of the samples. Runs far above it are triangles at the top edge."""


def sample_traces(ok: pd.DataFrame) -> list[Chart]:
    """Return charts of every run of the fastest, the median, the slowest and the noisiest network, with a common scale.

    The unit is the network's reported latency, so that a noisy network looks noisy at any speed.
    """
    chosen = _typical_networks(ok[ok["passes"].map(len) > 0])
    if not chosen:
        return []
    ratios = {kind: [one / row["latency_ms"] for one in row["passes"]] for kind, row in chosen.items()}
    everything = np.concatenate([one for passes in ratios.values() for one in passes])
    low, high = np.quantile(everything, [1 - BULK, BULK])
    reach = max(0.04, 1.6 * max(1 - float(low), float(high) - 1))
    limits = max(0.0, min(1 - 0.4 * reach, float(everything.min()) - 0.01)), 1 + reach
    return [_trace(kind, row, ratios[kind], limits) for kind, row in chosen.items()]


def _typical_networks(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return up to four different networks by what they are typical of."""
    if rows.empty:
        return {}
    rows = rows.reset_index(drop=True)
    by_latency = rows.sort_values("latency_ms", kind="stable").index
    noise = (rows["stderr_ms"] / rows["latency_ms"]).fillna(rows["passes"].map(_spread))
    candidates = {
        "fastest": by_latency[0],
        "median": by_latency[(len(by_latency) - 1) // 2],
        "slowest": by_latency[-1],
        "noisiest": noise.sort_values(ascending=False, kind="stable").index[0],
    }
    chosen: dict[int, list[str]] = {}
    for kind, index in candidates.items():
        chosen.setdefault(int(index), []).append(kind)
    return {", ".join(kinds) if len(rows) > 1 else "every run": rows.iloc[index] for index, kinds in chosen.items()}


def _spread(passes: list[NDArray[np.float64]]) -> float:
    samples = np.concatenate(passes)
    return float(samples.std() / samples.mean())


def _trace(kind: str, row: pd.Series, ratios: list[NDArray[np.float64]], limits: tuple[float, float]) -> Chart:
    fig = figure(264, 210)
    axes = fig.subplots()
    fig.subplots_adjust(left=38 / 264, right=1 - 6 / 264, top=1 - 20 / 210, bottom=40 / 210)
    axes.axhline(1, color=COLOURS["ink"], linewidth=0.9, zorder=2)
    total = sum(len(one) for one in ratios)
    unit = latency_unit([row["latency_ms"]])
    every = max(1, -(-total // MAX_SAMPLES))
    start = 0
    x: list[int] = []
    y: list[float] = []
    titles: list[str] = []
    outliers: list[int] = []
    for number, one in enumerate(ratios):
        if number % 2:
            axes.axvspan(start - 0.5, start + len(one) - 0.5, color=COLOURS["band"], linewidth=0, zorder=0)
        middle = float(np.median(one))
        axes.plot(
            [start - 0.3, start + len(one) - 0.7],
            [middle, middle],
            color=COLOURS["measure"],
            linewidth=2,
            alpha=0.55,
            zorder=3,
            solid_capstyle="butt",
        )
        for run, ratio in enumerate(one):
            slow = ratio > limits[1]
            if run % every and not slow:
                continue
            (outliers if slow else x).append(start + run)
            if not slow:
                y.append(float(ratio))
                titles.append(f"pass {number + 1}, run {run + 1}\n{unit.text(ratio * row['latency_ms'])}")
        start += len(one)
    axes.scatter(x, y, s=9, facecolors=COLOURS["measure"], linewidths=0, zorder=4, gid="samples", clip_on=False)
    values = np.concatenate(ratios)
    texts = {"samples": titles}
    if outliers:
        axes.scatter(
            outliers,
            [limits[1]] * len(outliers),
            marker="^",
            s=26,
            facecolors=COLOURS["alarm"],
            linewidths=0,
            zorder=5,
            gid="outliers",
            clip_on=False,
        )
        texts["outliers"] = [f"{unit.text(values[at] * row['latency_ms'])}, {values[at]:.1f} times" for at in outliers]
        worst = outliers[int(np.argmax(values[outliers]))]
        place = "left" if worst < start * 0.2 else "right" if worst > start * 0.8 else "center"
        axes.annotate(
            f"×{values[worst]:.1f}",
            (worst, limits[1]),
            xytext=(0, 5),
            textcoords="offset points",
            ha=place,
            va="bottom",
            fontsize=11,
            color=COLOURS["alarm"],
        )
    axes.set_xlim(-0.9, start - 0.1)
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    quiet(axes)
    axes.set_xlabel("run")
    noise = f" ± {percent(row['stderr_ms'] / row['latency_ms'] * 100)} %" if row["stderr_ms"] >= 0 else ""
    name = f"trace-{kind.replace(', ', '-').replace(' ', '-')}"
    return Chart(
        inline_svg(fig, name, f"Raw samples in the order of measuring: {kind}", texts),
        f"{kind[0].upper()}{kind[1:]}\n{latency_text(row['latency_ms'])}{noise}",
        clean(row["arch"], 160),
    )
