"""Tests of anchors, repeated slices, drift correction, and duplicates as probes in a measurement session."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.measurement import anchors
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.estimators import trimmed_mean
from latlab.harness.store.schema import PassRow
from latlab.harness.store.store import Campaign, Measurement
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports.simulated.config import SimulatedDevice

POLICY = TimingPolicy(
    "sessions", warmup=2, runs=10, trim=0.25, passes=3, spread=12, max_passes=5, precision=0.01, anchors=True
)
CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "sessions", POLICY)


def lab_with(tmp_path: Path, **device: Any) -> Lab:
    lab = Lab(tmp_path / "latlab.db")
    lab.inventory = Inventory({"toy": SimulatedDevice.model_validate({"kind": "ideal", **device})})
    return lab


def measure(lab: Lab, count: int = 20, **options: Any) -> Any:
    return lab.measure("toy", space="nasbench201", count=count, **{"policy": "sessions", **options}).rows


def passes_of(lab: Lab, kind: str) -> list[PassRow]:
    with lab.store.session() as session:
        return session.query(PassRow).filter(PassRow.kind == kind).all()


def test_passes_are_added_where_the_interval_is_wide(tmp_path: Path) -> None:
    quiet = measure(lab_with(tmp_path, noise={"sigma": 0.002}), count=6)
    assert {len(passes) for passes in quiet["passes"]} == {3}
    assert set(quiet["verdict"]) <= {"", "drift"}
    (tmp_path / "loud").mkdir()
    loud = measure(lab_with(tmp_path / "loud", noise={"sigma": 0.2}), count=6)
    assert {len(passes) for passes in loud["passes"]} == {5}
    assert (loud["verdict"] != "").all()
    assert (loud["low_ms"] < loud["latency_ms"]).all()
    assert (loud["latency_ms"] < loud["high_ms"]).all()


def test_anchors_open_and_close_a_session(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, noise={"sigma": 0.02})
    rows = measure(lab)
    found = lab.store.anchors(rows["campaign"][0], 1)
    assert {one.arch for one in found} == set(anchors.ANCHORS)
    firsts = [one for one in found if one.arch == anchors.ANCHORS[0]]
    assert len(firsts) >= 1 + sum(map(len, rows["passes"])) // anchors.SLICE_PASSES
    first, *_, last = (one.telemetry["at_s"] for one in firsts)
    taken = [one.telemetry["at_s"] for one in passes_of(lab, "label")]
    assert first < min(taken)
    assert last > max(taken)
    assert not set(lab.store.table()["role"]) - {"listed"}  # they are no labels


def test_policies_without_anchors_have_none(tmp_path: Path) -> None:
    lab = lab_with(tmp_path)
    rows = measure(lab, count=2, policy="help")
    assert not lab.store.anchors(rows["campaign"][0], 1)
    assert rows["raw_ms"].tolist() == rows["latency_ms"].tolist()


def test_drift_is_taken_out_of_labels_and_raw_ones_are_kept(tmp_path: Path) -> None:
    # 60 networks of a millisecond take seconds on the device's clock: 20 % in that time.
    lab = lab_with(tmp_path, cost={"peak_gflops": 1.0}, noise={"sigma": 0.01, "drift_percent_per_hour": 1000.0})
    truth = dict(zip(*_truth(tmp_path, lab), strict=False))
    rows = measure(lab, count=60)
    facts = lab.store.session_facts(rows["campaign"][0], 1)
    assert facts["drift_percent"] > 3
    true = rows["arch"].map(truth)
    raw, corrected = (rows[name] / true for name in ("raw_ms", "latency_ms"))
    assert corrected.std() / corrected.mean() < 0.6 * raw.std() / raw.mean()
    assert (rows["p50_ms"] / rows["latency_ms"]).std() < 0.2 * (rows["raw_ms"] / rows["latency_ms"]).std()
    assert spearmanr(rows["latency_ms"], true).statistic > spearmanr(rows["raw_ms"], true).statistic - 0.001
    assert rows["raw_ms"][0] == pytest.approx(
        trimmed_mean([ns for one in rows["passes"][0] for ns in one], POLICY.trim) / 1e6
    )


def _truth(tmp_path: Path, lab: Lab) -> tuple[Any, Any]:
    (tmp_path / "truth").mkdir()
    same = lab_with(tmp_path / "truth", cost={"peak_gflops": 1.0})
    rows = measure(same, count=60)
    return rows["arch"], rows["latency_ms"]


def test_a_slice_whose_anchor_failed_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_with(tmp_path, noise={"sigma": 0.005})
    readings: list[bool] = []
    read = anchors.Anchors.read

    def fails_first(self: anchors.Anchors) -> bool:
        readings.append(read(self) and bool(readings))
        return readings[-1]

    monkeypatch.setattr(anchors.Anchors, "read", fails_first)
    rows = measure(lab, count=12)
    rejected, labels = passes_of(lab, "rejected"), passes_of(lab, "label")
    assert rejected
    assert max(one.id for one in rejected) < max(one.id for one in labels)
    assert {len(passes) for passes in rows["passes"]} <= {3, 4, 5}
    numbers: dict[int, list[int]] = {}
    for one in [*rejected, *labels]:
        numbers.setdefault(one.measurement_id, []).append(one.number)
    assert all(sorted(own) == list(range(len(own))) for own in numbers.values())


def test_an_anchor_out_of_line_fails_and_one_that_stays_there_is_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_with(tmp_path)
    trusted: list[bool] = []
    paces = iter([1.0] * 4 + [1.5, 1.0] + [1.5] * 9)  # a burst, then another pace
    timed, read = anchors.Anchors._latency, anchors.Anchors.read
    monkeypatch.setattr(anchors.Anchors, "_latency", lambda self, one: timed(self, one) * next(paces, 1.5))
    monkeypatch.setattr(anchors.Anchors, "read", lambda self: trusted.append(read(self)) or trusted[-1])
    rows = measure(lab, count=60)
    assert trusted[:3] == [True, True, True]
    assert trusted[3:6] == [False, True, True][: len(trusted) - 3]
    assert [one.in_line for one in lab.store.anchors(rows["campaign"][0], 1)].count(False) >= 1


def test_duplicates_are_timed_once(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, noise={"sigma": 0.02})
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    # Edges into node 1, which leads nowhere: one graph.
    twins = [f"|{op}~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|" for op in ops]
    twins += [f"|{op}~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|none~1|none~2|" for op in ops[1:]]
    rows = lab.measure("toy", space="nasbench201", archs=twins, policy="sessions").rows
    assert rows["latency_ms"].nunique() == 1
    assert set(rows["status"]) == {"ok"}
    shared = rows["same_graph_as"].notna().sum()
    assert shared == len(twins) - 1


def test_a_duplicate_that_comes_later_may_be_a_probe(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, noise={"sigma": 0.02})
    ops = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    twins = [f"|{a}~0|+|none~0|none~1|+|nor_conv_3x3~0|{b}~1|none~2|" for a, b in product(("none",), ops)]
    twins += [f"|{a}~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|{b}~2|" for a, b in product(ops[1:3], ops)]
    for count in (1, len(twins)):
        lab.measure("toy", space="nasbench201", archs=twins[:count], policy="sessions")
    rows = lab.store.table(raw=True)
    assert rows["latency_ms"].nunique() == 1
    probes = passes_of(lab, "probe")
    assert 1 <= len(probes) < len(twins) - 1
    assert {probe.measurement_id for probe in probes} == {rows["id"][0]}
    assert all(probe.samples_ns not in rows["passes"][0] for probe in probes)


def test_finished_rows_can_be_refined(tmp_path: Path) -> None:
    from latlab.harness.fleet.jobs import Job

    lab = lab_with(tmp_path, noise={"sigma": 0.1})
    rows = measure(lab, count=4)
    with lab.store.session() as session:
        campaign = session.get_one(Campaign, rows["campaign"][0])
    wanted = [(arch, "listed") for arch in rows["arch"][:2]]
    seen: list[Measurement] = []
    refined = MeasurementSession(lab.store, campaign, 1)
    job = Job(refined.target, lambda measurer, _: seen.extend(measurer.run(refined, wanted, passes=9)))
    assert not lab.run_jobs([job])
    assert [row.status for row in seen] == ["ok", "ok"]
    table = lab.store.table(raw=True).set_index("arch").loc[rows["arch"]]
    assert [len(passes) for passes in table["passes"]] == [9, 9, 5, 5]
    widths = (table["high_ms"] - table["low_ms"]) / table["latency_ms"]
    assert widths[:2].mean() < ((rows["high_ms"] - rows["low_ms"]) / rows["latency_ms"])[:2].mean()


def test_networks_stay_loaded_between_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latlab.harness.devices.session import DeviceSession

    loads: list[str] = []
    load = DeviceSession.load

    def counted(self: DeviceSession, artifact: Any, network: str = "") -> Any:
        loads.append(network)
        return load(self, artifact, network)

    monkeypatch.setattr(DeviceSession, "load", counted)
    rows = measure(lab_with(tmp_path, noise={"sigma": 0.05}), count=12)
    assert len(loads) == len(set(loads)) <= len(rows) + len(anchors.ANCHORS)


def test_anchors_may_be_unsupported(tmp_path: Path) -> None:
    lab = lab_with(tmp_path, noise={"sigma": 0.02}, faults={"max_params": 1})
    rows = measure(lab, count=2)
    assert not (rows["status"] == "ok").any()
    assert not lab.store.anchors(rows["campaign"][0], 1)


def test_only_the_policy_decides_which_labels_are_pooled() -> None:
    assert replace(POLICY, anchors=False).hash() != POLICY.hash()
    assert np.isclose(POLICY.precision, 0.01)
