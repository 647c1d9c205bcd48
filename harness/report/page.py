"""The page of the onboarding report."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from latlab.harness.quality.stage_times import stages
from latlab.harness.report import theme
from latlab.harness.report.accuracy import learning_curve, predicted_against_measured
from latlab.harness.report.conclusion import tiles, verdict
from latlab.harness.report.data import ReportData
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.space_map import space_map
from latlab.harness.report.stability import agreement_of_passes, order_of_measuring
from latlab.harness.report.stage_chart import where_time_went
from latlab.harness.report.tables import MAX_FAILURES, extremes, failure_kinds, failures, fast_networks
from latlab.harness.report.traces import sample_traces
from latlab.harness.text import clean, count, latency_unit

__all__ = ["render", "write_report"]


def write_report(report: ReportData, path: Path) -> Path:
    """Write `report` as one HTML file, and return its absolute path. The same data gives the same bytes.

    Raises:
        BadInputError: the file cannot be written.
    """
    return write_whole(render(report), path)


def render(report: ReportData) -> str:
    """Return the page as text. No text of `report` is trusted: Jinja2 escapes it, and ElementTree inside the charts."""
    ok, failed, compared = report.ok(), report.failures(), report.compared()
    networks, fastest = report.networks(), report.predicted_fastest()
    unit = latency_unit(networks["latency_ms"])
    fast_unit = latency_unit([*fastest["predicted_ms"], *fastest["measured_ms"]])
    spent = stages(report.attempts())
    with theme.style():
        charts = {
            "predicted": predicted_against_measured(compared, report.train_predictions),
            "learning": learning_curve(report.curve(), report.headline),
            "space": space_map(report.sample(), ok),
            "order": None if report.imported else order_of_measuring(ok, failed, compared),
            "passes": agreement_of_passes(ok),
            "stages": where_time_went(spent),
        }
        traces = sample_traces(ok)
    template = environment().get_template("report.html")
    return template.render(
        css=stylesheet(),
        target=clean(report.target),
        space=clean(report.space),
        simulated=report.headline.simulated,
        verdict=verdict(report),
        tiles=tiles(report),
        notes=[clean(note) for note in report.notes],
        charts=charts,
        traces=traces,
        stages=spent,
        fastest=fast_networks(fastest, fast_unit),
        fastest_of=clean(report.fastest_of),
        fast_unit=fast_unit.symbol,
        files=[(clean(what), clean(path), quote(f"./{path}")) for what, path in report.files],
        networks=extremes(networks, compared, unit),
        unit=unit.symbol,
        predicted_how="Predicted" if report.train_predictions == "in-sample" else "Predicted without its own label",
        measured=count(len(networks), "network"),
        failures=failures(failed),
        failure_kinds=failure_kinds(failed),
        failures_left_out=max(0, len(failed) - MAX_FAILURES),
        facts=[(clean(str(name)), clean(str(value))) for name, value in report.facts.items()],
    )
