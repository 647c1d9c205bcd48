"""The page of a profile."""

from __future__ import annotations

from pathlib import Path

from latlab.harness.profiling.summary import NetworkProfile
from latlab.harness.report import theme
from latlab.harness.report.html import environment, stylesheet, write_whole
from latlab.harness.report.profile.charts import along_the_network, kind_bars, operator_bars
from latlab.harness.report.tiles import Tile
from latlab.harness.text import LatencyUnit, clean, count, latency_text, latency_unit, percent

__all__ = ["write_page"]

MAX_ROWS = 2000
"""Most operators in the table."""


def write_page(profile: NetworkProfile, path: Path, top: int) -> Path:
    """Write the page, and return its absolute path.

    Args:
        profile: what it shows.
        path: the file.
        top: how many of the longest operators have a bar.

    Raises:
        BadInputError: the file cannot be written.
    """
    with theme.style():
        charts = [kind_bars(profile), operator_bars(profile, top)]
        along = along_the_network(profile)
    unit = latency_unit(one.typical_ms for one in profile.operators)
    text = (
        environment(Path(__file__).parent)
        .get_template("profile.html")
        .render(
            css=stylesheet(),
            target=clean(profile.target),
            simulated=profile.simulated,
            network=clean(profile.network),
            headline=_headline(profile),
            tiles=_tiles(profile),
            charts=charts,
            along=along,
            facts=_facts(profile),
            operators=_rows(profile, unit),
            unit=unit.symbol,
        )
    )
    return write_whole(text, path)


def _headline(profile: NetworkProfile) -> str:
    first, *others = profile.kinds
    named = f"{clean(first.kind)} takes {100 * first.share:.0f} % of the time"
    if others:
        named += f", {clean(others[0].kind)} {100 * others[0].share:.0f} %"
    return f"{named}."


def _tiles(profile: NetworkProfile) -> list[Tile]:
    longest = profile.longest(1)[0]
    unit = latency_unit([profile.latency_ms, profile.typical_ms])
    return [
        Tile(
            "Inference",
            unit.number(profile.latency_ms),
            unit.symbol,
            "without the profiler" + (f"; undisturbed {unit.number(profile.quiet_ms)}" if profile.disturbed else ""),
        ),
        Tile(
            "Operators",
            unit.number(profile.typical_ms),
            unit.symbol,
            f"typical times of all {len(profile.operators):,}",
        ),
        Tile(
            "Accounted for",
            f"{100 * profile.ratio:.0f}",
            "%",
            "sum / inference",
            warn=not profile.agrees or profile.disturbed,
        ),
        Tile("Longest operator", percent(100 * profile.share(longest.typical_ms)), "%", clean(longest.kind, 40)),
    ]


def _facts(profile: NetworkProfile) -> list[tuple[str, str]]:
    rounds = count(len(profile.profiles), "round")
    rows = [
        ("sum", profile.explanation()),
        ("profiled", f"{count(profile.best.runs, 'inference')}: the fastest of {rounds}, each between two passes"),
    ]
    if profile.best.overhead_ms > 0:
        rows.append(("overhead", f"{latency_text(profile.best.overhead_ms)} of the profiler's own work is taken out"))
    if profile.fusion():
        rows.append(("graph", profile.fusion()))
    if profile.best.left_out_ms > 0:
        left_out = latency_text(profile.best.left_out_ms)
        rows.append(("not listed", f"{left_out} of operators that are shorter than all listed ones"))
    return [(name, clean(text)) for name, text in rows]


def _rows(profile: NetworkProfile, unit: LatencyUnit) -> list[tuple[str, str, str, str, str, str]]:
    """Return number, kind, name, provider, time and share of each operator, in the order in which they ran."""
    return [
        (
            f"{number:,}",
            clean(one.kind, 60),
            clean(one.name + (f" ({', '.join(one.fused)})" if one.fused else ""), 200),
            clean(one.provider, 60),
            unit.number(one.typical_ms),
            percent(100 * profile.share(one.typical_ms)),
        )
        for number, one in enumerate(profile.operators[:MAX_ROWS], 1)
    ]
