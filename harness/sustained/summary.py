"""The figures of a sustained run, in words."""

from __future__ import annotations

from latlab.harness.sustained.run import SustainedResult
from latlab.harness.sustained.windows import COMPARED_S, Sustained
from latlab.harness.text import duration, milliseconds

__all__ = ["headline"]


SLOWER = 1.02
"""Ratio above which a minute that is slower than the first and the last one gets a line of its own."""


def headline(found: Sustained) -> str:
    """Return a sentence that compares the first minute with the last one."""
    span = _span(found)
    change = found.slowdown_percent
    how = "as fast as" if abs(change) < 1 else f"{abs(change):.0f} % {'slower' if change > 0 else 'faster'} than"
    return (
        (
            f"{milliseconds(found.first.mean_ms)} in the first {span}, {milliseconds(found.last.mean_ms)} in the last: "
            f"{how} the first"
        )
        .replace("as fast as the first", "as fast as at first")
        .replace("than the first", "than at first")
    )


def spell(seconds: float) -> str:
    """Return a duration without its zeros: `30 min`, not `30 min 00 s`."""
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min")


def _span(found: Sustained) -> str:
    """Return what is compared in a word: `minute`, or `quarter` for a short run."""
    return "minute" if found.first.end_s - found.first.start_s >= COMPARED_S else "quarter"


def figures(result: SustainedResult, found: Sustained) -> list[tuple[str, str]]:
    """Return the figures of a run as lines of a name and plain text."""
    lines = [("change", headline(found))]
    if found.slowest.mean_ms > SLOWER * max(found.first.mean_ms, found.last.mean_ms):
        when = f"after {spell(found.slowest.start_s)}"
        lines.append(("slowest", f"{milliseconds(found.slowest.mean_ms)} in the {_span(found)} that began {when}"))
    throttled = f"for {spell(found.throttled_s)} of {spell(found.seconds)}"
    if found.throttled_from_s is None:
        lines.append(("throttled", "never, as far as the device tells"))
    else:
        lines.append(("throttled", f"{throttled}, for the first time after {spell(found.throttled_from_s)}"))
    if found.hottest_c is not None:
        lines.append(("hottest", f"{found.hottest_c:.0f} °C"))
    if found.energy_mj is not None:
        lines.append(("energy", f"{found.energy_mj:.3g} mJ per inference, what the device spends at rest included"))
    share = f"inference ran in {found.busy_percent:.0f} % of {spell(found.seconds)}"
    lines.append(("runs", f"{found.runs:,}; {share}"))
    if not result.complete:
        lines.append(("ended", f"early: {spell(result.asked_s)} were asked for"))
    return lines
