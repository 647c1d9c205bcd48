"""Tests of onboarding on this machine: it chooses by results, stops when it is good enough, and replaces failures."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import Artifact, ExportError
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.report import data as report_data


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "latlab.db")


def onboard(lab: Lab, tmp_path: Path, **options: object) -> object:
    return lab.onboard("local", space="nasbench201", out=tmp_path / "out", **options)  # type: ignore[arg-type]


def test_choices_are_made_by_results(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proposed late is proposed with measurements at hand, not all at the start."""
    known: list[int] = []
    original = ClosedLoop.proposals

    def watched(self: ClosedLoop) -> object:
        for text in original(self):
            known.append(self.measured)
            yield text

    monkeypatch.setattr(ClosedLoop, "proposals", watched)
    onboard(lab, tmp_path, budget=14)
    assert known[0] == 0
    assert known[-1] >= 3
    assert known == sorted(known)


def test_stops_when_a_goal_is_reached(lab: Lab, tmp_path: Path) -> None:
    said: list[str] = []
    result = lab.onboard(
        "local",
        space="nasbench201",
        budget=40,
        until=["spearman 0.6", "99.9% within 0.1%"],
        out=tmp_path / "out",
        listener=RunListener(announce=said.append),
    )
    assert 5 <= result.measured < 40
    assert result.stopped_by == "spearman 0.6"
    assert len(result.goals) == 2
    assert "spearman 0.6 is reached" in result.goals[0]
    assert any("5 networks: Spearman" in line for line in said)
    assert any("10 more networks would bring" in line for line in said)


def test_stops_when_the_time_is_over(lab: Lab, tmp_path: Path) -> None:
    result = lab.onboard("local", space="nasbench201", until="1 s", out=tmp_path / "out")
    assert result.stopped_by == "1 s"
    assert 1 <= result.measured < 100


def fail_first(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Make the first exports fail as an exporter would that lacks an operator."""
    original = Measurer._export
    failed: list[str] = []

    def export(self: Measurer, space: str, arch: str) -> Future[Artifact]:
        if len(failed) >= count:
            return original(self, space, arch)
        failed.append(arch)
        future: Future[Artifact] = Future()
        future.set_exception(ExportError("unsupported_op", "no such operator: Test"))
        return future

    monkeypatch.setattr(Measurer, "_export", export)


def test_failed_networks_are_rows_and_are_replaced(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_first(monkeypatch, 2)
    result = lab.onboard("local", space="nasbench201", budget=6, out=tmp_path / "out")
    assert (result.measured, result.failed) == (6, 2)
    failures = lab.store.table().query("status != 'ok'")
    assert failures["error"].str.contains("no such operator").all()
    assert "no such operator: Test" in result.report.read_text()


def test_when_all_fail_it_says_why(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_first(monkeypatch, 1000)
    with pytest.raises(LatlabError, match="no such operator: Test"):
        onboard(lab, tmp_path, budget=3)


def test_a_stopped_run_goes_on_where_it_was(lab: Lab, tmp_path: Path) -> None:
    first: list[str] = []

    def stop(row: object) -> None:
        first.append(row.arch)  # type: ignore[attr-defined]
        if len(first) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onboard(lab, tmp_path, budget=8, listener=RunListener(observe=stop))
    second: list[str] = []
    result = lab.onboard(
        "local",
        space="nasbench201",
        budget=8,
        out=tmp_path / "out",
        listener=RunListener(observe=lambda row: second.append(row.arch)),
    )
    assert result.measured == 8
    assert len(first) + len(second) == 8
    assert not set(first) & set(second)


def test_the_report_is_of_this_campaign(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.measure(space="nasbench201", count=3)
    seen: list[int] = []
    original = report_data.ReportData.attempts

    def attempts(self: report_data.ReportData) -> object:
        frame = original(self)
        seen.append(len(frame))
        return frame

    monkeypatch.setattr(report_data.ReportData, "attempts", attempts)
    lab.onboard("local", space="nasbench201", budget=5, holdout=4, out=tmp_path / "out")
    assert set(seen) == {5 + 2 * 4}
