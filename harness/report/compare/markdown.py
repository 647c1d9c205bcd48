"""A comparison, or a regression gate's checks, as Markdown: a summary for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from latlab.harness.compare.gate import GateCheck, GateOutcome, passes
from latlab.harness.compare.result import ComparisonResult
from latlab.harness.compare.wording import advice, headline, pairs_to_tell, sentence
from latlab.harness.paths import whole_file
from latlab.harness.text import clean, latency_unit

__all__ = ["checks_markdown", "results_markdown", "write_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()|~])")
WORDS = {
    GateOutcome.PASSED: "passed",
    GateOutcome.SLOWER: "**slower**",
    GateOutcome.UNDECIDED: "undecided (passes)",
    GateOutcome.FAILED: "**failed**",
}


def escaped(text: str) -> str:
    """Return foreign text in one line, so that Markdown and HTML show it as it is."""
    text = " ".join(clean(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def results_markdown(results: Sequence[ComparisonResult]) -> str:
    """Return a section for each device: the order with latencies, and the verdicts."""
    lines = ["# latlab compare", ""]
    for result in results:
        simulated = " (simulated)" if result.simulated else ""
        lines += [f"## {escaped(result.device)}{simulated}", "", f"{escaped(headline(result))}.", ""]
        lines += ["| | network | latency | target |", "|---|---|---|---|"]
        ran = list(result.order)
        unit = latency_unit(one.latency_ms for one in result.models if one.latency_ms is not None)
        ranks = [*ran, *(place for place in range(len(result.models)) if place not in ran)]
        for rank, place in enumerate(ranks, start=1):
            one = result.models[place]
            latency = unit.text(one.latency_ms) if one.latency_ms is not None else "–"
            if one.error:
                latency = f"{escaped(one.status)}: {escaped(one.error)}"
            number = str(rank) if place in ran else ""
            lines.append(f"| {number} | {escaped(one.name)} | {latency} | {escaped(one.target)} |")
        lines.append("")
        for pair in pairs_to_tell(result):
            word, text = sentence(result, pair)
            lines.append(f"- **{word}**: {escaped(text)}")
        for text in (advice(result), result.error or ""):
            lines += ["", escaped(text)] if text else []
        lines += ["", f"All intervals hold together with {100 * result.question.confidence:g} %.", ""]
    return "\n".join(lines)


def checks_markdown(checks: Sequence[GateCheck]) -> str:
    """Return a table with a row for each check."""
    verdict = "passed" if passes(checks) else "failed"
    lines = [f"# Latency gate: {verdict}", "", "| network | target | against | slower by | interval | limit | |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in checks:
        by = "–" if one.percent is None else f"{one.percent:+.1f} %"
        ends = "–"
        if one.low_percent is not None and one.high_percent is not None:
            ends = f"{one.low_percent:+.1f} to {one.high_percent:+.1f} %"
        cells = (escaped(one.model), escaped(one.target), escaped(one.baseline), by, ends, f"{one.limit_percent:g} %")
        lines.append(f"| {' | '.join(cells)} | {WORDS[one.outcome]} |")
    notes = dict.fromkeys(one.note for one in checks if one.note)
    lines += ["", *(f"- {escaped(note)}" for note in notes), ""]
    return "\n".join(lines)


def write_markdown(text: str, path: Path) -> None:
    """Write the file, whole or not at all. Raises `BadInputError` if that is not possible."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
