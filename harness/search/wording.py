"""What a search has found, in words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable

from latlab.harness.active_learning.target_labels import LATENCY
from latlab.harness.search.limits import unit_symbol
from latlab.harness.search.result import Finalist, Found, Latency, SearchResult
from latlab.harness.text import LatencyUnit, count, latency_unit, percent, spoken_duration

__all__ = [
    "accuracy_text",
    "amount_unit",
    "costs_in_words",
    "headline",
    "latency_in_words",
    "limits_in_words",
    "metric_name",
    "probability_text",
    "short_names",
]


def accuracy_text(value: float) -> str:
    """Return an accuracy, or what stands for it, with four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def short_names(targets: Iterable[str]) -> dict[str, str]:
    """Return names by full target that tell these targets apart: nothing for a single one, else the device.

    Of a device with several targets, what differs among all of them stands behind the device: `pi t4`.
    """
    parts = {target: target.split("/") for target in targets}
    if len(parts) < 2:
        return dict.fromkeys(parts, "")
    if len({own[0] for own in parts.values()}) == len(parts):
        return {target: own[0] for target, own in parts.items()}
    differ = [place for place, values in enumerate(zip(*parts.values(), strict=True)) if len(set(values)) > 1]
    return {target: " ".join([own[0], *(own[place] for place in differ if place)]) for target, own in parts.items()}


def limits_in_words(result: SearchResult) -> str:
    """Return what was asked for, such as `at most 20 ms on pi/... with a probability of 90 %`."""
    by_target: dict[str, list[str]] = {}
    for one in result.constraints.limits:
        what = "" if one.metric == LATENCY else f" of {metric_name(one.metric)}"
        by_target.setdefault(one.target, []).append(amount_unit([one.max_ms], one.metric).text(one.max_ms) + what)
    limits = " and ".join(f"{' and '.join(amounts)} on {target}" for target, amounts in by_target.items())
    costs = [
        f"{value:,.0f} {name}"
        for name, value in (("MACs", result.constraints.max_macs), ("parameters", result.constraints.max_params))
        if value is not None
    ]
    more = f", at most {' and '.join(costs)}" if costs else ""
    return f"at most {limits} with a probability of {100 * result.constraints.confidence:.10g} %{more}"


def headline(result: SearchResult) -> str:
    """Return what became of the search, in a sentence or two."""
    confidence = f"{100 * result.constraints.confidence:.10g} %"
    if result.found is Found.UNMEASURED:
        return "Nothing was measured: this is a prediction. A device may say otherwise."
    if result.found is Found.FAILED:
        known = "The answer is the best that is known." if result.winner else "No network is known to keep the limit."
        return f"{', '.join(one.target for one in result.failures)} failed before the search had ended. {known}"
    if result.found is Found.NOTHING:
        return (
            f"No measured network keeps the limit with a probability of {confidence}. "
            "A larger budget measures more, a higher limit or a lower confidence admits more."
        )
    if result.found is Found.STANDS:
        return (
            "The answer was measured and stands: no other candidate is both more accurate and likely to keep the limit."
        )
    return (
        "The answer was measured, and the budget is spent: other candidates may be more accurate and keep the limit. "
        "A larger budget goes on from here."
    )


def amount_unit(values: Iterable[float], metric: str) -> LatencyUnit:
    """Return the unit that values of a metric are shown in; `latency_unit` for latencies."""
    if metric == LATENCY:
        return latency_unit(values)
    return LatencyUnit(unit_symbol(metric), unit_symbol(metric), 1.0)


def metric_name(metric: str) -> str:
    """Return a metric in words, such as `peak memory`."""
    return metric.rpartition("_")[0].replace("_", " ") or metric


def latency_in_words(one: Latency) -> str:
    """Return a network's latency on one target: what was measured with its interval, or what is predicted.

    Under a limit of another metric it is that metric.
    """
    what = "" if one.metric == LATENCY else f"{metric_name(one.metric)} "
    unit = amount_unit([one.predicted_ms], one.metric)
    if one.measured_ms is None or one.measured_lower_ms is None or one.measured_upper_ms is None:
        return f"{what}{unit.text(one.predicted_ms)} predicted ({_interval(one.lower_ms, one.upper_ms, one.metric)})"
    sessions = f" in {one.sessions} sessions" if one.sessions > 1 else ""
    interval = _interval(one.measured_lower_ms, one.measured_upper_ms, one.metric)
    measured = amount_unit([one.measured_ms], one.metric).text(one.measured_ms)
    return f"{what}{measured} measured{sessions} ({interval})"


def _interval(low: float, high: float, metric: str) -> str:
    return " to ".join(amount_unit([value], metric).text(value) for value in (low, high))


def costs_in_words(result: SearchResult) -> str:
    """Return what the search has cost."""
    costs = result.costs
    scored = f"{costs.scored:,} candidates scored, each look counted, in {spoken_duration(costs.looking_s)}"
    if not costs.rounds and not costs.onboarded:
        return scored
    longer = f", {count(costs.resolved, 'network')} measured longer" if costs.resolved else ""
    before = f" after {costs.onboarded} to know the device" if costs.onboarded else ""
    return (
        f"{scored}; {count(costs.measured, 'measurement')} in {count(costs.rounds, 'round')}{before}{longer}, "
        f"{spoken_duration(costs.measuring_s)}"
    )


def probability_text(one: Finalist) -> str:
    """Return the probability that a network keeps the limits, in percent."""
    if not 0.001 <= one.probability < 0.999:
        return "< 0.1 %" if one.probability < 0.5 else "> 99.9 %"
    return f"{100 * one.probability:.1f} %" if one.probability > 0.99 else f"{percent(100 * one.probability)} %"
