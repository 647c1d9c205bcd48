"""The head of the report: the most important figures as tiles, and a verdict in words."""

from __future__ import annotations

import math

from latlab.harness.report.data import Headline, ReportData, rank_correlation, typical_noise_percent
from latlab.harness.report.tiles import Tile
from latlab.harness.store.vocabulary import Role
from latlab.harness.text import correlation, count, duration, latency_text, latency_unit, percent

__all__ = ["tiles", "verdict"]

AT_CEILING = 0.01
"""If the rank correlation is this close to that of two measurements, the labels cannot show a better one."""
NEAR_CEILING = 0.03
"""If the rank correlation is this close to that of two measurements, little can be gained."""
ENOUGH = 5
"""The most tiles besides the one of the wall clock. More do not fit into one line."""
FEW = 30
"""Fewer hold-out networks than this give rough figures."""


def _known(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def tiles(data: ReportData) -> list[Tile]:
    """Return at most six tiles, the most important first. An unknown figure has no tile."""
    head, ok, failures, compared = data.headline, data.ok(), data.failures(), data.compared()
    failed = len(failures) if head.failed is None else head.failed
    noise = typical_noise_percent(ok)
    holdout = int((compared["role"] == Role.HOLDOUT).sum())
    found: list[Tile] = []

    spearman, ceiling = _known(head.holdout_spearman), _known(head.holdout_retest_spearman)
    if spearman is not None:
        note = f"ceiling {correlation(ceiling)}: measured twice" if ceiling is not None else "on hold-out networks"
        found.append(Tile("Rank correlation", correlation(spearman), note=note))
    else:
        loo = _leave_one_out(data)
        if loo is not None:
            found.append(Tile("Rank correlation", correlation(loo), note="leave-one-out"))
            error = _last(data, "loo_mape_percent")
            if error is not None:
                found.append(Tile("Mean error", percent(error), "%", "leave-one-out"))
    mape = _known(head.holdout_mape_percent)
    if mape is not None:
        note = f"measurements: ± {percent(noise)} %" if noise is not None else "on hold-out networks"
        found.append(Tile("Mean error", percent(mape), "%", note))
    within = _known(head.holdout_within_10_percent)
    if within is not None:
        found.append(
            Tile(
                "Within 10 %",
                f"{within:.0f}",
                "%",
                f"of {count(holdout, 'hold-out network')}" if holdout else "",
            )
        )
    coverage = _known(head.coverage_90)
    if coverage is not None:
        found.append(
            Tile(
                "In the 90 % interval",
                f"{coverage * 100:.0f}",
                "%",
                "90 would be right",
                _off(coverage, holdout) != 0,
            )
        )
    if not found and len(ok):
        unit = latency_unit(ok["latency_ms"])
        found.append(Tile("Fastest" if len(ok) > 1 else "Latency", unit.number(ok["latency_ms"].min()), unit.symbol))
        if len(ok) > 1:
            found.append(Tile("Slowest", unit.number(ok["latency_ms"].max()), unit.symbol))
        if noise is not None:
            found.append(
                Tile(
                    "Standard error",
                    percent(noise),
                    "%",
                    "of the latency" + (", in the median" if len(ok) > 1 else ""),
                )
            )
    roles = ok.groupby("role")["arch"].nunique()  # one network of several sessions counts once
    learnt = int(roles.get(Role.TRAIN, 0))
    parts = [count(learnt, "sample")] if learnt else []
    parts += [f"{roles[Role.HOLDOUT]:,} hold-out"] if roles.get(Role.HOLDOUT) else []
    parts += [f"{failed:,} failed"] if failed and len(found) + 1 >= ENOUGH else []
    found.append(
        Tile("Networks measured", f"{ok['arch'].nunique():,}", note=", ".join(parts) if len(parts) > 1 else "")
    )
    if failed and len(found) < ENOUGH:
        found.append(Tile("Failed", f"{failed:,}", note="reasons below", warn=True))
    wall = _known(head.wall_s)
    if wall is not None:
        found.append(Tile("Wall clock", duration(wall), note=f"this run{_timing(head, wall)}"))
    return found


def _timing(head: Headline, wall_s: float) -> str:
    share = _known(head.timing_share)
    if share is None:
        return ""
    return f", {duration(share * wall_s)} simulated" if head.simulated else f", {share * 100:.0f} % of it timing"


def verdict(data: ReportData) -> str:
    """Return a few plain sentences: how good the predictor is and what limits it, or else what was measured."""
    head, ok = data.headline, data.ok()
    if _known(head.holdout_spearman) is not None or _known(head.holdout_mape_percent) is not None:
        return _with_holdout(data)
    loo = _leave_one_out(data)
    if loo is not None:
        error = _last(data, "loo_mape_percent")
        off = f" and is off by {percent(error)} % on average" if error is not None else ""
        return (
            "Predicting each of its samples from all the others, the predictor ranks them at "
            f"{correlation(loo)} (Spearman){off}. No hold-out was measured, so how it does on networks it "
            "never saw is not known."
        )
    if len(ok):
        return _measured_only(data)
    failed = len(data.failures())
    if failed:
        which = "the only network" if failed == 1 else f"all {failed:,} networks"
        return f"Nothing could be measured: {which} failed."
    return "Nothing has been measured yet."


def _with_holdout(data: ReportData) -> str:
    head = data.headline
    compared = data.compared()
    n = int((compared["role"] == Role.HOLDOUT).sum())
    spearman, ceiling = _known(head.holdout_spearman), _known(head.holdout_retest_spearman)
    mape, coverage = _known(head.holdout_mape_percent), _known(head.coverage_90)
    whom = f"On {count(n, 'network')} it never saw" if n else "On networks it never saw"
    doing = [f"ranks latency at {correlation(spearman)} (Spearman)"] if spearman is not None else []
    doing += [f"is off by {percent(mape)} % on average"] if mape is not None else []
    text = f"{whom}, the predictor {' and '.join(doing)}. "
    if spearman is not None and ceiling is not None:
        gap = ceiling - spearman
        text += f"Measured twice, the same networks agree with themselves at {correlation(ceiling)}: "
        if gap <= AT_CEILING:
            text += "the ranking is limited by the noise of the measurements, no longer by the predictor."
        elif gap <= NEAR_CEILING:
            text += "little is left to gain before the noise of the measurements is the limit."
        else:
            text += "the limit is the predictor, not the noise" + (
                ", and its error still falls with each sample: measure more networks." if _improving(data) else "."
            )
    elif spearman is not None:
        text += "The hold-out was measured once, so how much of this is noise is not known."
    if coverage is not None and _off(coverage, n):
        text += f" Its error bars are too {'narrow' if _off(coverage, n) < 0 else 'wide'}: "
        text += f"{coverage * 100:.0f} % of the networks lie inside the 90 % intervals."
    if 0 < n < FEW:
        text += f" With {count(n, 'hold-out network')} only, these figures are rough."
    return text.strip()


def _measured_only(data: ReportData) -> str:
    ok = data.networks()
    noise = typical_noise_percent(data.ok())
    error = f", with a standard error of {percent(noise)} %" if noise is not None else ""
    if len(ok) == 1:
        return f"One network was measured: {latency_text(ok['latency_ms'].iloc[0])}{error}."
    low, high = float(ok["latency_ms"].min()), float(ok["latency_ms"].max())
    unit = latency_unit([low, high])
    times = f", a factor of {high / low:.1f}" if high / low >= 1.2 else ""
    error = f" The typical standard error is {percent(noise)} %." if noise is not None else ""
    return f"{count(len(ok), 'network')} were measured, from {unit.number(low)} to {unit.text(high)}{times}.{error}"


def _leave_one_out(data: ReportData) -> float | None:
    """Return the rank correlation of the last leave-one-out predictions: of the curve, or else of `predictions`."""
    last = _last(data, "loo_spearman")
    if last is not None:
        return last
    rows = data.compared()
    rows = rows[rows["role"] != Role.HOLDOUT]
    if data.train_predictions != "leave-one-out":
        return None
    return rank_correlation(rows["latency_ms"], rows["predicted_ms"])


def _last(data: ReportData, column: str) -> float | None:
    values = data.curve()[column].dropna()
    return float(values.iloc[-1]) if len(values) else None


def _improving(data: ReportData) -> bool:
    """Return whether the error fell by a tenth over the last third of the learning curve."""
    errors = data.curve()["loo_mape_percent"].dropna()
    if len(errors) < 4:
        return False
    return bool(errors.iloc[-1] < 0.9 * errors.iloc[-1 - math.ceil(len(errors) / 3)])


def _off(coverage: float, n: int) -> int:
    """Return -1 or +1 if so few or so many of `n` networks would hardly lie in correct 90 % intervals; else 0.

    The test is a two-sided normal approximation at 5 %.
    """
    tolerance = 1.96 * math.sqrt(0.09 / n) if n else 0.1
    return 0 if abs(coverage - 0.9) <= tolerance else -1 if coverage < 0.9 else 1
