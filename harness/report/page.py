"""Putting the page together."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from latlab.harness.report import theme
from latlab.harness.report.accuracy import learning_curve, predicted_against_measured
from latlab.harness.report.data import ReportData
from latlab.harness.report.space_map import space_map
from latlab.harness.report.stability import agreement_of_passes, order_of_measuring
from latlab.harness.report.stages import stages, where_time_went
from latlab.harness.report.tables import MAX_FAILURES, extremes, failure_kinds, failures
from latlab.harness.report.traces import sample_traces
from latlab.harness.report.verdict import tiles, verdict
from latlab.harness.report.wording import clean, count, duration

__all__ = ["environment", "render", "stylesheet", "write_report", "write_whole"]

_FOLDER = Path(__file__).parent


def write_report(report: ReportData, path: Path) -> Path:
    """Write `report` as one HTML file and return its absolute path.

    The same data gives the same bytes. Raises `OSError` where it cannot be written.
    """
    return write_whole(render(report), path)


def write_whole(text: str, path: Path) -> Path:
    """Write a page; its absolute path. Missing folders are made. The file appears whole or not at all."""
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def render(report: ReportData) -> str:
    """The page as text. All of `report` is foreign text: Jinja2 escapes it, ElementTree inside the charts."""
    ok, failed, compared = report.ok(), report.failures(), report.compared()
    networks = report.networks()
    spent = stages(report.attempts())
    with theme.style():
        charts = {
            "predicted": predicted_against_measured(compared, report.train_predictions),
            "learning": learning_curve(report.curve(), report.headline),
            "space": space_map(report.sample(), ok),
            "order": order_of_measuring(ok, failed, compared),
            "passes": agreement_of_passes(ok),
            "stages": where_time_went(spent),
        }
        traces = sample_traces(ok)
    template = environment().get_template("report.html")
    return template.render(
        css=stylesheet(),
        target=clean(report.target),
        space=clean(report.space),
        verdict=verdict(report),
        tiles=tiles(report),
        notes=[clean(note) for note in report.notes],
        charts=charts,
        traces=traces,
        stages=spent,
        networks=extremes(networks, compared),
        measured=count(len(networks), "network"),
        failures=failures(failed),
        failure_kinds=failure_kinds(failed),
        failures_left_out=max(0, len(failed) - MAX_FAILURES),
        facts=[(clean(str(name)), clean(str(value))) for name, value in report.facts.items()],
    )


def environment(*folders: Path) -> Environment:
    """Templates of the report, and of more `folders`; what they are given is foreign text, and escaped."""
    found = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader([*folders, _FOLDER]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["duration"] = duration
    found.filters["breakable"] = _breakable
    found.filters["code"] = _code
    return found


def stylesheet() -> Markup:
    return Markup((_FOLDER / "report.css").read_text(encoding="utf-8"))


def _breakable(arch: str) -> Markup:
    """An architecture string, escaped, that may be broken where its parts end rather than anywhere."""
    parts = re.split(r"(?<=[|,+;/ ])" if re.search(r"[|,+;/ ]", arch) else r"(?<=[_-])", arch)
    return Markup("<wbr>").join(part for part in parts if part)


def _code(text: str) -> Markup:
    """Escaped; what stands between backticks, as messages write commands, set as such."""
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escape(text))))


def _umask() -> int:
    """The process's umask: the only way to read it is to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
