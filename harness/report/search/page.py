"""The page of a search: the Pareto front with what was measured, the finalists, and what it has cost."""

from __future__ import annotations

from pathlib import Path

from latlab.harness.active_learning.target_labels import LATENCY
from latlab.harness.report import theme
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.search.cell_chart import cell_chart
from latlab.harness.report.search.charts import layer_chart, pareto_chart
from latlab.harness.report.tiles import Tile
from latlab.harness.search.result import Finalist, SearchResult
from latlab.harness.search.wording import (
    accuracy_text,
    amount_unit,
    costs_in_words,
    headline,
    latency_in_words,
    limits_in_words,
    metric_name,
    probability_text,
    short_names,
)
from latlab.harness.text import clean, millions, percent, spoken_duration

__all__ = ["write_page"]

DRAWN = (cell_chart, layer_chart)
"""Charts of the answer; each is None where a space has nothing to draw."""


def write_page(result: SearchResult, path: Path) -> Path:
    """Write the page, and return its absolute path. Raises `BadInputError` if it cannot be written."""
    with theme.style():
        charts = [pareto_chart(result, place) for place in range(len(result.constraints.limits))]
        drawn = [] if result.winner is None else [chart(result.space, result.winner) for chart in DRAWN]
    columns = []
    names = short_names(limit.target for limit in result.constraints.limits)
    for limit in result.constraints.limits:
        where = f" on {clean(names[limit.target], 30)}" if names[limit.target] else ""
        what = "" if limit.metric == LATENCY else f" {metric_name(limit.metric)}"
        columns += [f"Measured{what}{where}", f"Predicted{what}{where}"]
    text = (
        environment(Path(__file__).parent)
        .get_template("search.html")
        .render(
            css=stylesheet(),
            space=clean(result.space),
            simulated=result.simulated,
            limits=clean(limits_in_words(result)),
            headline=clean(headline(result)),
            winner="" if result.winner is None else clean(result.winner.arch),
            tiles=_tiles(result),
            charts=charts,
            drawn=[chart for chart in drawn if chart is not None],
            columns=columns,
            finalists=[(clean(one.arch), _cells(one)) for one in result.finalists],
            facts=_facts(result),
        )
    )
    return write_whole(text, path)


def _tiles(result: SearchResult) -> list[Tile]:
    winner, costs = result.winner, result.costs
    tiles = []
    if winner is not None:
        tiles.append(Tile("Accuracy", accuracy_text(winner.accuracy), note=clean(result.accuracy, 40)))
        names = short_names(one.target for one in winner.latencies)
        for one in winner.latencies:
            value = one.predicted_ms if one.measured_ms is None else one.measured_ms
            unit = amount_unit([value], one.metric)
            what = "predicted" if one.measured_ms is None else "measured"
            note = f"{what}; limit {unit.text(one.limit_ms)}"
            where = f" on {names[one.target]}" if names[one.target] else ""
            name = metric_name(one.metric).capitalize()
            tiles.append(Tile(clean(f"{name}{where}", 30), unit.number(value), unit.symbol, note, not winner.measured))
        tiles.append(Tile("Keeps the limit", probability_text(winner), note="in one more session"))
    tiles.append(Tile("Measured", f"{costs.measured + costs.onboarded}", note="networks"))
    return tiles


def _cells(one: Finalist) -> list[str]:
    cells = [accuracy_text(one.accuracy)]
    for each in one.latencies:
        unit = amount_unit([each.predicted_ms], each.metric)
        measured = "–" if each.measured_ms is None else f"{unit.text(each.measured_ms)}"
        if each.measured_ms and each.stderr_ms:
            measured += f" ± {percent(100 * each.stderr_ms / each.measured_ms)} %"
        cells += [measured, f"{unit.number(each.lower_ms)}–{unit.text(each.upper_ms)}"]
    return [*cells, probability_text(one), millions(one.macs), millions(one.params)]


def _facts(result: SearchResult) -> list[tuple[str, str]]:
    facts = [("candidates", result.candidates), ("accuracy", result.accuracy), ("cost", costs_in_words(result))]
    facts.append(("in total", spoken_duration(result.costs.wall_s)))
    if result.winner is not None:
        facts += [(one.target, latency_in_words(one)) for one in result.winner.latencies]
    facts += [
        (f"sessions on {limit.target}", f"are taken to differ by {percent(spread)} %, which is part of the intervals")
        for limit, spread in zip(result.constraints.limits, result.spread_percent, strict=True)
    ]
    facts += [("note", remark) for remark in result.remarks]
    return [(clean(name), clean(text)) for name, text in facts]
