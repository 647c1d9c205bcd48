"""The figures of a sustained run, in words."""

from __future__ import annotations

from latlab.harness.sustained.run import SustainedResult
from latlab.harness.sustained.windows import COMPARED_S, Sustained
from latlab.harness.text import duration, latency_text

__all__ = ["headline"]


NEVER = "never, as far as the device tells"


def headline(found: Sustained) -> str:
    """Return a sentence with the mean over time, the worst minute and how long the clock was throttled.

    The first minute against the last one would hide all that comes and goes in between.
    """
    throttled = f"throttled {_share(found.throttled_percent)} of the time" if found.throttled_s else "never throttled"
    return (
        f"{latency_text(found.time_weighted_ms)} on average over {spell(found.seconds)}, "
        f"{latency_text(found.slowest.mean_ms)} in the worst {_span(found)} ({found.worst_percent:+.0f} %), {throttled}"
    )


def _share(percent: float) -> str:
    """Return a share in words that does not call a little nothing, nor most all."""
    if percent < 1:
        return "less than 1 %"
    return "more than 99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def spell(seconds: float) -> str:
    """Return a duration without its zeros: `30 min`, not `30 min 00 s`."""
    return duration(seconds).removesuffix(" 00 s").removesuffix(" 00 min")


def _span(found: Sustained) -> str:
    """Return what is compared in a word: `minute`, or `quarter` for a short run."""
    return "minute" if found.first.end_s - found.first.start_s >= COMPARED_S else "quarter"


def figures(result: SustainedResult, found: Sustained) -> list[tuple[str, str]]:
    """Return the figures of a run as lines of a name and plain text."""
    lines = [("mean", f"{latency_text(found.time_weighted_ms)}, each second under load counting the same")]
    when = f"the {_span(found)} that began after {spell(found.slowest.start_s)}"
    if not found.slowest.start_s:
        when = f"the first {_span(found)}"
    slower = f"{found.worst_percent:+.1f} % against the mean"
    lines.append(("worst", f"{latency_text(found.slowest.mean_ms)} in {when}, {slower}"))
    if found.throttled_from_s is None:
        lines.append(("throttled", NEVER))
    else:
        share = f"{_share(found.throttled_percent)} of the time under load ({spell(found.throttled_s)})"
        lines.append(("throttled", f"{share}, for the first time after {spell(found.throttled_from_s)}"))
    first, last = latency_text(found.first.mean_ms), latency_text(found.last.mean_ms)
    ends = f"{first} in the first {_span(found)}, {last} in the last ({found.slowdown_percent:+.1f} %)"
    lines.append(("ends", ends))
    if found.hottest_c is not None:
        lines.append(("hottest", f"{found.hottest_c:.0f} °C"))
    if found.energy_mj is not None:
        lines.append(("energy", f"{found.energy_mj:.3g} mJ per inference, what the device spends at rest included"))
    share = f"inference ran in {found.busy_percent:.0f} % of {spell(found.seconds)}"
    lines.append(("runs", f"{found.runs:,}; {share}"))
    if not result.complete:
        lines.append(("ended", f"early: {spell(result.asked_s)} were asked for"))
    return lines
