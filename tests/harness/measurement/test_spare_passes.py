"""A device that waits for exports times again what it has: the passes cost nothing, and meet other moments."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.exporters import Artifact, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.jobs import Job
from latlab.harness.measurement.in_flight import SPARE_TIMES
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Measurement
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.search_spaces import get

TARGET = Target.parse("pi/onnxruntime/cpu/fp32/t1/b1")
ARCHS = [arch.text for arch in get("nasbench201").sample(3, 5)]
PATIENCE_S, MORE_S = 120.0, 3.0
"""Longest wait for the spare passes, and how much longer the export takes, so that there could be more of them."""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  pi: {transport: simulated, kind: pi4}\n")
    return Lab("latlab.db")


def _measured(lab: Lab, policy: TimingPolicy) -> tuple[MeasurementSession, list[Measurement]]:
    """Measure the networks with two passes each; the export of the last one takes until the others have all passes that
    the policy wants, and some seconds more. Return all rows as they were yielded."""
    campaign = lab.store.campaign(TARGET, "nasbench201", policy, 0, "listed", {})
    session, found = MeasurementSession(lab.store, campaign, 1), []

    with Exports(lab.cache, 1) as exports:

        def submit(arch: str) -> Future[Artifact]:
            done = exports.submit(ExportRequest("nasbench201", arch, "onnx", 1, "fp32", 0, False))
            if arch != ARCHS[-1]:
                return done
            late: Future[Artifact] = Future()
            late.set_running_or_notify_cancel()
            threading.Thread(target=_end_late, args=(session, late, done)).start()
            return late

        def work(measurer: Measurer, publish: object) -> None:
            found.extend(measurer.run(session, [(arch, "train") for arch in ARCHS], submit, passes=2))

        job = Job(TARGET, work)
        assert lab.run_jobs([job]) == [], job.error
    return session, found


def _end_late(session: MeasurementSession, late: Future[Artifact], done: Future[Artifact]) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        rows = session.rows()
        counts = [len(session.store.passes(rows[arch].id)) if arch in rows else 0 for arch in ARCHS[:-1]]
        if min(counts) >= session.policy.passes:
            break
        time.sleep(0.1)
    time.sleep(MORE_S)
    late.set_result(done.result())


def test_networks_get_further_passes_while_the_device_waits(lab: Lab) -> None:
    policy = PRESETS["default"]
    session, yielded = _measured(lab, policy)
    rows = session.rows()
    passes = {arch: len(lab.store.passes(rows[arch].id)) for arch in ARCHS}
    assert passes[ARCHS[2]] == 2, "nothing was waited for after the last export"
    for arch in ARCHS[:2]:
        assert policy.passes <= passes[arch] <= SPARE_TIMES * policy.most_passes
        own = [row for row in yielded if row.arch == arch]
        assert len(own) == passes[arch] - 1, "yielded after two passes, and after each further one"
        assert rows[arch].latency_ms is not None
        # Seconds of loading and waiting are counted once, however often the label grew. A network that has left the
        # device meanwhile is loaded again, which counts; a pass for which it was there adds nothing.
        loads = [row.times_s["load_s"] for row in own]
        assert loads == sorted(loads)
        assert len(set(loads)) < len(loads)
        assert own[0].times_s["queue_s"] == own[-1].times_s["queue_s"]
        starts = [one.at for one in lab.store.passes(rows[arch].id)]
        assert starts == sorted(starts)


def test_a_policy_of_a_fixed_number_of_passes_gets_no_more(lab: Lab) -> None:
    policy = TimingPolicy("fixed", warmup=1, runs=3, trim=0.0, passes=3, spread=1)
    session, _ = _measured(lab, policy)
    rows = session.rows()
    assert {len(lab.store.passes(rows[arch].id)) for arch in ARCHS[:2]} == {3}
    assert rows[ARCHS[0]].status == "ok"
