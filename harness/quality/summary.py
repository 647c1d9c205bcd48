"""The figures of an assessment, as the command line and `--json` show them."""

from __future__ import annotations

import math

from latlab.harness.quality.assessment import Quality, RetestAgreement, SessionDifferences
from latlab.harness.quality.fitness import ENOUGH
from latlab.harness.quality.published import PUBLISHED
from latlab.harness.store.verdict_counts import in_words
from latlab.harness.text import count, fine_correlation, percent

__all__ = ["figures"]


def figures(one: Quality) -> list[tuple[str, str]]:
    """Return the figures of an assessment as lines of a name and plain text."""
    labels = one.labels
    parts = [f"{count(labels.networks, 'network')}, {count(labels.labels, 'label')} (policy {', '.join(one.policies)})"]
    parts += [f"{labels.copied:,} of them copied from the same graph"] if labels.copied else []
    parts += [f"{labels.failed:,} failed"] if labels.failed else []
    parts += [f"{one.other_rows:,} of another policy, or imported, left out"] if one.other_rows else []
    lines = [("labels", ", ".join(parts))]
    unjudged = "not judged: imported" if one.data.imported else "not judged: measured by an older latlab"
    lines.append(("verdicts", in_words(labels.verdicts) or unjudged))
    noise = []
    if labels.stderr_percent is not None:
        noise.append(f"median standard error {percent(labels.stderr_percent)} %")
    if labels.half_width_percent is not None:
        noise.append(f"95 % intervals ± {percent(labels.half_width_percent)} %")
    lines.append(("within a session", ", ".join(noise) or "no standard errors"))
    if one.between is not None:
        lines.append(("between sessions", _session_differences(one.between)))
    else:
        lines.append(("between sessions", "not known: nothing was measured in two (--new-session measures again)"))
    if one.again is not None:
        lines.append(("test-retest", _retest_agreement(one.again)))
    else:
        lines.append(("test-retest", f"needs {ENOUGH} networks in two sessions"))
    if not math.isnan(one.ceiling.spearman):
        most = "" if one.between is not None else " at most"
        known = f"{fine_correlation(one.ceiling.spearman)}{most}"
        lines.append(("ceiling", f"a perfect predictor would rank at {known}; {_beside()}"))
    if one.probes is not None:
        probes = one.probes
        lines.append(
            (
                "probes",
                f"{count(probes.passes, 'repeat')} of {count(probes.networks, 'network')} spread by "
                f"{percent(probes.spread_percent)} %; the labels' own passes by {percent(probes.usual_percent)} %",
            )
        )
    if one.timing_share is not None:
        timing = f"{100 * one.timing_share:.0f} % of the wall-clock went into timing"
        if one.simulated:
            timing = f"{sum(session.timing_s for session in one.sessions):.0f} s of simulated time"
        lines.append(("time", f"{timing}; of all work, {_stages(one)}" if one.stages else timing))
    return lines


def _session_differences(between: SessionDifferences) -> str:
    whose = "anchors" if between.anchors else "networks"
    parts = []
    if between.specific_percent is not None:
        more = f"{percent(between.specific_percent)} % more" if between.specific_percent else "no more"
        parts.append(f"{whose} differ by {more} than their error bars say")
    shift = f"by {percent(between.common_percent)} %" if between.common_percent else "not"
    parts.append(f"whole sessions {shift}")
    return ", ".join(parts)


def _retest_agreement(again: RetestAgreement) -> str:
    retest, expected = again.retest, again.expected
    interval = f"95 %: {fine_correlation(retest.low)} to {fine_correlation(retest.high)}"
    text = (
        f"Spearman {fine_correlation(retest.spearman)} ({interval}), "
        f"Kendall {fine_correlation(retest.kendall)}, over {count(retest.networks, 'network')}"
    )
    if not math.isnan(expected.retest):
        text += f"; error bars predict {fine_correlation(expected.retest)}"
        if retest.spearman < expected.low:
            text += f" ({fine_correlation(expected.low)} or more): sessions differ by more than they know"
    if again.pairs > 1:
        text += f"; self-correlation over {again.pairs} pairs of sessions {fine_correlation(again.self_correlation)}"
    return text


def _beside() -> str:
    low, high = min(known.low for known in PUBLISHED), max(known.high for known in PUBLISHED)
    return f"published tables of NAS-Bench-201: {low:.3f} to {high:.3f}"


def _stages(one: Quality) -> str:
    return ", ".join(f"{stage.name} {100 * stage.share:.0f} %" for stage in one.stages if stage.share >= 0.005)
