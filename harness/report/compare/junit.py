"""A regression gate's checks as a JUnit file, which CI systems show: one test case for each network and device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from latlab.harness.compare.gate import GateCheck, GateOutcome
from latlab.harness.paths import whole_file
from latlab.harness.text import clean

__all__ = ["junit", "write_junit"]


def junit(checks: Sequence[GateCheck]) -> bytes:
    """Return the file's content. Names are escaped, and freed of characters that XML does not allow.

    An undecided check is a test case that passes, with a warning in its output.
    """
    failures = sum(one.outcome is GateOutcome.SLOWER for one in checks)
    errors = sum(one.outcome is GateOutcome.FAILED for one in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": str(errors)}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "latlab compare", **counts})
    for one in checks:
        names = {"classname": clean(one.target), "name": clean(f"{one.model} against {one.baseline}")}
        case = ElementTree.SubElement(suite, "testcase", names)
        text = clean(f"{one.sentence}\n{one.note}".strip())
        if one.outcome is GateOutcome.SLOWER:
            part = ElementTree.SubElement(case, "failure", {"type": "slower", "message": clean(one.sentence)})
        elif one.outcome is GateOutcome.FAILED:
            part = ElementTree.SubElement(case, "error", {"type": "failed", "message": clean(one.sentence)})
        else:
            part = ElementTree.SubElement(case, "system-out")
            text = f"warning: {text}" if one.outcome is GateOutcome.UNDECIDED else text
        part.text = text
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def write_junit(checks: Sequence[GateCheck], path: Path) -> None:
    """Write the file, whole or not at all. Raises `BadInputError` if that is not possible."""
    with whole_file(path) as part:
        part.write_bytes(junit(checks))
