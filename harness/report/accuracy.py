"""Charts of the predictor's accuracy: predicted against measured latency, and the learning curve."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from latlab.harness.report.chart import Chart, by_role, handle, is_holdout, legend_above, points, thin_out
from latlab.harness.report.data import Headline
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure, quiet, scale_axis
from latlab.harness.store.vocabulary import Role
from latlab.harness.text import LatencyUnit, correlation, latency_unit, percent

__all__ = ["learning_curve", "predicted_against_measured"]


def predicted_against_measured(
    compared: pd.DataFrame, train_predictions: Literal["leave-one-out", "in-sample"]
) -> Chart | None:
    """Return a chart of predicted over measured latency with 90 % intervals, and the error in per cent below it.

    Args:
        compared: predictions with measured latencies (`ReportData.compared`).
        train_predictions: how the samples' predictions were made.

    Returns:
        None if nothing can be compared.
    """
    if compared.empty:
        return None
    drawn, left_out = thin_out(compared)
    fig = figure(540, 560)
    top, below = fig.subplots(2, 1, sharex=True, height_ratios=(3.6, 1))
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 30 / 560, bottom=46 / 560, hspace=0.09)

    both = np.concatenate([drawn["latency_ms"].to_numpy(float), drawn["predicted_ms"].to_numpy(float)])
    unit = latency_unit(both)
    scale_axis(top, "y", both, label=unit.tick, room=0.05)
    scale_axis(top, "x", both, label=unit.tick, room=0.05)
    quiet(top, grid="")
    low, high = top.get_xlim()
    path = np.geomspace(low, high, 100) if low > 0 else np.linspace(low, high, 100)
    top.fill_between(path, path * 0.9, path * 1.1, color=COLOURS["band"], linewidth=0, zorder=0)
    top.plot(path, path, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    top.set_ylim(low, high)

    error = (drawn["predicted_ms"] / drawn["latency_ms"] - 1) * 100
    reach = max(12.0, min(100.0, float(error.abs().max()) * 1.1))
    below.axhspan(-10, 10, color=COLOURS["band"], linewidth=0, zorder=0)
    below.axhline(0, color=COLOURS["muted"], linewidth=0.9, zorder=1)
    below.set_ylim(-reach, reach)
    step = next(step for step in (10, 20, 50, 100) if reach / step <= 2.5)
    below.set_yticks([-step, 0, step], [f"−{step} %", "0", f"+{step} %"])
    quiet(below, grid="")

    titles: dict[str, list[str]] = {}
    shown: list[tuple[str, str]] = []
    for kind, rows in by_role(drawn):
        _intervals(top, rows, kind)
        points(top, rows["latency_ms"], rows["predicted_ms"], kind, f"{kind}-points")
        part = error[rows.index]
        points(below, rows["latency_ms"], part.clip(-reach, reach), kind, f"{kind}-errors")
        titles[f"{kind}-points"] = titles[f"{kind}-errors"] = [_tooltip(row, unit) for _, row in rows.iterrows()]
        name = "hold-out" if kind == Role.HOLDOUT else f"samples ({train_predictions})"
        shown.append((kind, f"{len(compared[is_holdout(compared) == (kind == 'holdout')]):,} {name}"))
    legend_above(top, [handle(kind, name) for kind, name in shown])
    top.set_ylabel(f"predicted, {unit.symbol}")
    top.tick_params(axis="x", labelbottom=False)
    below.set_ylabel("error")
    below.set_xlabel(f"measured, {unit.symbol}")
    fig.align_ylabels([top, below])

    learnt = {
        "leave-one-out": "Each sample is predicted by a predictor fitted to the others only (leave-one-out).",
        "in-sample": "The predictor was fitted to the samples themselves (in-sample), so their errors look too small.",
    }[train_predictions]
    caption = (
        "Vertical bars: 90 % intervals of the prediction. Line: perfect prediction; band: within 10 % of it. "
        + (f"{learnt} " if any(kind == Role.TRAIN for kind, _ in shown) else "")
        + ("The predictor never saw the hold-out networks." if shown[0][0] == Role.HOLDOUT else "")
    ).strip() + left_out
    return Chart(
        inline_svg(fig, "predicted", "Predicted latency against measured latency, with 90 % intervals", titles),
        "Predicted against measured",
        caption,
    )


def _intervals(axes: Axes, rows: pd.DataFrame, kind: str) -> None:
    """Draw all error bars of one kind as a single broken line: one SVG element instead of hundreds."""
    rows = rows[rows["lower_ms"].notna() & rows["upper_ms"].notna()]
    # The axis may be logarithmic: an interval that reaches zero is cut below the plot's edge.
    floor = max(axes.get_ylim()[0], 0.0) / 2 or 1e-9
    x = np.repeat(rows["latency_ms"].to_numpy(float), 3)
    y = np.column_stack([rows["lower_ms"].clip(lower=floor), rows["upper_ms"], np.full(len(rows), np.nan)]).ravel()
    axes.plot(x, y, color=COLOURS[kind], linewidth=1.1, alpha=0.45, zorder=2, solid_capstyle="butt")


def _tooltip(row: pd.Series, unit: LatencyUnit) -> str:
    ends = [unit.number(row[end]) for end in ("lower_ms", "upper_ms")]
    interval = "" if np.isnan(row["lower_ms"]) else f" (90 %: {'–'.join(ends)})"
    error = (row["predicted_ms"] / row["latency_ms"] - 1) * 100
    sign = "+" if error >= 0 else "−"
    return (
        f"{row['arch']}\nmeasured {unit.text(row['latency_ms'])}\n"
        f"predicted {unit.text(row['predicted_ms'])}{interval}\n{sign}{percent(abs(error))} %"
    )


def learning_curve(curve: pd.DataFrame, headline: Headline) -> Chart | None:
    """Return a chart of rank correlation and mean error against the number of samples, or None if neither is known."""
    ranked = curve[curve["loo_spearman"].notna() | curve["holdout_spearman"].notna()]
    if ranked.empty and curve["loo_mape_percent"].notna().sum() == 0:
        return None
    fig = figure(540, 560)
    top, below = fig.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    fig.subplots_adjust(left=62 / 540, right=1 - 12 / 540, top=1 - 30 / 560, bottom=46 / 560, hspace=0.16)

    series = [("loo_spearman", "train", "leave-one-out"), ("holdout_spearman", "holdout", "hold-out")]
    titles: dict[str, list[str]] = {}
    handles: list[Line2D] = []
    for column, kind, name in series:
        rows = curve[curve[column].notna()]
        if rows.empty:
            continue
        top.plot(rows["n"], rows[column], color=COLOURS[kind], linewidth=1.4, zorder=3)
        points(top, rows["n"], rows[column], kind, column)
        titles[column] = [
            f"{n:.0f} samples\n{name} {correlation(v)}" for n, v in zip(rows["n"], rows[column], strict=True)
        ]
        handles.append(handle(kind, name, line=True))
    ceiling = headline.holdout_retest_spearman
    values = [*ranked["loo_spearman"].dropna(), *ranked["holdout_spearman"].dropna()]
    if ceiling is not None and np.isfinite(ceiling):
        values.append(ceiling)
        top.axhline(ceiling, color=COLOURS["ink"], linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        dashes = Line2D([], [], color=COLOURS["ink"], linewidth=1.0, linestyle=(0, (4, 3)))
        dashes.set_label("ceiling: hold-out measured twice")
        handles.append(dashes)
    _correlation_axis(top, values)
    top.set_ylabel("rank correlation")
    legend_above(top, handles)

    rows = curve[curve["loo_mape_percent"].notna()]
    if len(rows):
        below.plot(rows["n"], rows["loo_mape_percent"], color=COLOURS["train"], linewidth=1.4, zorder=3)
        points(below, rows["n"], rows["loo_mape_percent"], "train", "mape")
        titles["mape"] = [
            f"{n:.0f} samples\nleave-one-out error {percent(v)} %"
            for n, v in zip(rows["n"], rows["loo_mape_percent"], strict=True)
        ]
    final = headline.holdout_mape_percent
    errors = [*rows["loo_mape_percent"]]
    if final is not None and np.isfinite(final) and len(curve):
        points(below, [curve["n"].iloc[-1]], [final], "holdout", "mape-holdout")
        titles["mape-holdout"] = [f"{curve['n'].iloc[-1]:.0f} samples\nhold-out error {percent(final)} %"]
        errors.append(final)
    if errors:
        if min(errors) <= 0 or max(errors) / min(errors) < 8:
            errors.append(0.0)  # a linear axis starts at no error
        scale_axis(below, "y", errors, label=lambda value: f"{value:g} %")
    quiet(below)
    below.set_ylabel("mean error")
    below.set_xlabel("samples measured")
    low, high = float(curve["n"].min()), float(curve["n"].max())
    below.set_xlim(low - max(0.5, (high - low) * 0.03), high + max(0.5, (high - low) * 0.03))
    below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    fig.align_ylabels([top, below])
    caption = (
        "Leave-one-out: each sample is predicted by a predictor fitted to all the others. "
        "The scale of the rank correlation is stretched towards 1, where differences matter."
    )
    label = "Rank correlation and mean error against the number of samples measured"
    return Chart(inline_svg(fig, "learning", label, titles), "What each further sample brought", caption)


def _correlation_axis(axes: Axes, values: list[float]) -> None:
    """Set a scale on which .96 and .98 are about as far apart as .8 and .9: -log10(1.01 - r)."""

    def stretch(r: np.ndarray) -> np.ndarray:
        return np.asarray(-np.log10(np.maximum(1.01 - np.asarray(r, dtype=float), 1e-6)))

    def back(s: np.ndarray) -> np.ndarray:
        return np.asarray(1.01 - 10.0 ** -np.asarray(s, dtype=float))

    axes.set_yscale("function", functions=(stretch, back))
    ticks = [-1.0, 0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 1.0]
    low = min(values, default=0.0)
    start = max((tick for tick in ticks[:-1] if tick <= low), default=-1.0)
    ticks = [tick for tick in ticks if tick >= start]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}".replace("-", "−") for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(start, 1.0)
    quiet(axes)
