"""Targets that are onboarded side by side learn from one another's labels as they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.active_learning.shared_labels import FEWEST_SHARED, SharedLabels
from latlab.harness.fleet.jobs import RunListener
from latlab.search_spaces import get

SPACE = get("nasbench201")
A, B = "a/onnxruntime/cpu/fp32/t1/b1", "b/onnxruntime/cpu/fp32/t1/b1"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text(
        "devices:\n  a: {transport: simulated, kind: ideal}\n  b: {transport: simulated, kind: ideal, seed: 3}\n"
    )
    return Lab("latlab.db")


def test_targets_learn_from_one_another(lab: Lab) -> None:
    said: list[str] = []
    results = lab.onboard_fleet(
        ["a", "b"], space="nasbench201", budget=15, policy="quick", listener=RunListener(announce=said.append)
    )
    assert [one.sources for one in results] == [(B,), (A,)]
    first = [line for line in said if "learns from now on" in line]
    assert len(first) == len(set(first)) <= 2
    assert first, "at least the later one has learnt before the end"
    # What the store has in the end gives the same predictor.
    for one in results:
        found = lab.predict(one.target).table.set_index("arch")["latency_ms"]
        onboarded = one.table.set_index("arch")["latency_ms"]
        assert (found / onboarded[found.index] - 1).abs().max() < 0.02


def test_without_sources_each_learns_alone(lab: Lab) -> None:
    results = lab.onboard_fleet(
        ["a", "b"], space="nasbench201", budget=7, policy="quick", predictor=PredictorOptions(sources="none")
    )
    assert [one.sources for one in results] == [(), ()]


def test_a_real_device_learns_from_no_simulated_one(lab: Lab) -> None:
    results = lab.onboard_fleet(["local", "a"], space="nasbench201", budget=6, policy="quick")
    local, simulated = sorted(results, key=lambda one: one.simulated)
    assert local.sources == ()
    assert simulated.sources == (local.target,)


def test_few_labels_teach_nothing_and_little_more_is_no_news() -> None:
    shared, loop = SharedLabels(), ClosedLoop(SPACE, "ridge", budget=0)
    archs = SPACE.sample(12, 0)
    for number, arch in enumerate(archs, 1):
        loop.record(arch.text, "ok", float(number), 0.01)
        shared.put(A, loop)
        assert len(shared.of([A])) == (number >= FEWEST_SHARED)
    (found,) = shared.of([B, A])
    assert (found.name, len(found.genes)) == (A, loop.measured)
    assert shared.are_news([found], 0)
    assert shared.are_news([found], 8)
    assert not shared.are_news([found], 10)
    assert not shared.are_news([], 0)
