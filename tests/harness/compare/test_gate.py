"""Tests of the regression gate: checks, JUnit and Markdown files, hostile names, and labels of another day."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from latlab.harness import Lab
from latlab.harness.compare.gate import GateCheck, GateOutcome, outcome_of, paired_checks, passes
from latlab.harness.compare.result import ComparedModel, ComparisonResult, Pair, Question
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.report.compare.junit import junit, write_junit
from latlab.harness.report.compare.markdown import checks_markdown, escaped, results_markdown
from latlab.harness.statistics.paired import Interval, Outcome
from latlab.harness.terminal.compare import show_checks, show_results
from latlab.harness.transports.simulated.config import SimulatedDevice

HOSTILE = 'a|b`<script>alert(1)</script>]]>&"\x1b[31m\x00\u202e\n# x.onnx'
SMALL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
LARGE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_3x3~0|none~1|skip_connect~2|"


def result_of(low: float, high: float, name: str = "new.onnx", limit: float = 3.0) -> ComparisonResult:
    models = tuple(ComparedModel(one, "sim/onnxruntime/cpu/fp32/t1/b1", 1.0, 9, "ok") for one in ("old.onnx", name))
    pair = Pair(0, 1, Interval((low + high) / 2, low, high, 9), Outcome.UNDECIDED)
    return ComparisonResult("sim", models, (pair,), Question(limit_percent=limit), 9, 9.0, "undecided")


def check(outcome: GateOutcome, model: str = "new.onnx") -> GateCheck:
    if outcome is GateOutcome.FAILED:
        return GateCheck(model, "old.onnx", "pi4/x", 3.0, outcome, note="it crashed")
    return GateCheck(model, "old.onnx", "pi4/x", 3.0, outcome, 2.0, 1.0, 3.5)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.04, 0.06, GateOutcome.SLOWER),
        (0.01, 0.06, GateOutcome.UNDECIDED),
        (-0.9, 0.02, GateOutcome.PASSED),
        (-math.inf, math.inf, GateOutcome.UNDECIDED),
    ],
)
def test_a_check_needs_certainty_on_either_side(low: float, high: float, outcome: GateOutcome) -> None:
    assert outcome_of(low, high, 3.0) is outcome
    (found,) = paired_checks([result_of(low, high) if math.isfinite(low) else result_of(-1e3, 1e3)])
    assert found.outcome is outcome
    assert found.model == "new.onnx"
    assert passes([found]) is (outcome is not GateOutcome.SLOWER)


def test_a_network_that_failed_closes_the_gate() -> None:
    result = result_of(0, 0.01)
    failed = ComparedModel("new.onnx", "sim/x", None, 0, "crash", "killed by SIGSEGV")
    (found,) = paired_checks(
        [ComparisonResult("sim", (result.models[0], failed), (), result.question, 1, 1.0, "failed")]
    )
    assert found.outcome is GateOutcome.FAILED
    assert "SIGSEGV" in found.sentence
    assert not passes([found])


def test_junit_has_one_case_for_each_check() -> None:
    checks = [check(one) for one in GateOutcome]
    root = ElementTree.fromstring(junit(checks))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    cases = {case.get("name"): [part.tag for part in case] for case in suite}
    assert len(suite) == 4
    assert [case[0].tag for case in suite] == ["system-out", "failure", "system-out", "error"]
    assert cases == {"new.onnx against old.onnx": ["error"]}
    assert (suite[2][0].text or "").startswith("warning: ")
    assert "it crashed" in (suite[3][0].get("message") or "")


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    root = ElementTree.fromstring(junit([check(one, HOSTILE) for one in GateOutcome]))
    name = root[0][0].get("name") or ""
    assert "<script>alert(1)</script>" in name
    assert not any(sign in name for sign in "\x00\x1b\u202e")
    for text in (checks_markdown([check(GateOutcome.SLOWER, HOSTILE)]), results_markdown([result_of(0, 1, HOSTILE)])):
        assert "<script" not in text
        assert "\x1b" not in text
        rows = [line for line in text.splitlines() if "alert" in line and line.startswith("|")]
        assert len(rows) == 1
        assert rows[0].count("|") - rows[0].count("\\|") in (5, 8)
    assert escaped("a\n\n# b") == "a # b"
    write_junit([check(GateOutcome.PASSED, HOSTILE)], tmp_path / "j.xml")
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("tests") == "1"
    with pytest.raises(BadInputError, match="cannot write"):
        write_junit([], tmp_path / "nowhere" / "j.xml")


# Labels of another day


def lab(path: Path, **device: Any) -> Lab:
    made = Lab(path)
    fields = {"transport": "simulated", "kind": "ideal", "noise": {"sigma": 0.02}, **device}
    made.inventory = Inventory({"sim": SimulatedDevice.model_validate(fields)})
    return made


def test_the_same_networks_pass_on_a_device_that_is_slower_today(tmp_path: Path) -> None:
    lab(tmp_path / "old.db").measure("sim", space="nasbench201", archs=[SMALL, LARGE])
    slower = {"cost": {"peak_gflops": 8.0, "memory_gb_s": 4.0, "overhead_us": 6.25}}
    today = lab(tmp_path / "new.db", **slower)
    checks = today.check_baseline(tmp_path / "old.db", 8.0, "sim", networks=[SMALL, LARGE], space="nasbench201")
    assert [one.model for one in checks] == [SMALL, LARGE]
    for one in checks:
        assert one.outcome is GateOutcome.PASSED
        assert abs(one.percent or 99) < 5
        assert "anchors the device was 2" in one.note, "a quarter slower"


def test_a_network_that_has_changed_is_found(tmp_path: Path) -> None:
    old = lab(tmp_path / "old.db")
    old.measure("sim", space="nasbench201", archs=[SMALL])
    with old.store.transaction() as connection:  # as if today's network were another one under the same name
        connection.exec_driver_sql("UPDATE measurements SET arch = ?", (LARGE,))
    (found,) = lab(tmp_path / "new.db").check_baseline(
        tmp_path / "old.db", 8.0, "sim", networks=[LARGE], space="nasbench201"
    )
    assert found.outcome is GateOutcome.SLOWER
    assert (found.low_percent or 0) > 8
    assert "facts agree" in found.note


def test_each_check_measures_anew(tmp_path: Path) -> None:
    lab(tmp_path / "old.db").measure("sim", space="nasbench201", archs=[SMALL])
    today = lab(tmp_path / "new.db")
    for _ in range(2):
        today.check_baseline(tmp_path / "old.db", 8.0, "sim", networks=[SMALL], space="nasbench201")
    assert list(today.store.table()["session"]) == [1, 2]


def test_without_anchors_a_usual_scatter_is_assumed(tmp_path: Path) -> None:
    lab(tmp_path / "old.db").measure("sim", space="nasbench201", archs=[SMALL], policy="help")
    (found,) = lab(tmp_path / "new.db").check_baseline(
        tmp_path / "old.db", 20.0, "sim", networks=[SMALL], space="nasbench201", policy="help"
    )
    assert found.outcome is GateOutcome.PASSED
    assert "no anchors in common: 2 % is assumed" in found.note


def test_a_baseline_without_the_network_closes_the_gate(tmp_path: Path) -> None:
    lab(tmp_path / "old.db").measure("sim", space="nasbench201", archs=[LARGE])
    (found,) = lab(tmp_path / "new.db").check_baseline(
        tmp_path / "old.db", 8.0, "sim", networks=[SMALL], space="nasbench201"
    )
    assert found.outcome is GateOutcome.FAILED
    assert "has no label" in found.note


def test_a_baseline_that_does_not_exist_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no store"):
        lab(tmp_path / "new.db").check_baseline(tmp_path / "none.db", 8.0, "sim", networks=[SMALL], space="nasbench201")


def test_hostile_names_cannot_write_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = result_of(0.001, 0.002, HOSTILE)
    failed = replace(result, models=(result.models[0], replace(result.models[1], error=f"bad {HOSTILE}")))
    show_results([result, failed], tmp_path / "s.db")
    show_checks([check(one, HOSTILE) for one in GateOutcome])
    told = capsys.readouterr().out
    assert "<script>" in told
    assert not any(sign in told for sign in "\x1b\x00\u202e")
