"""Tests of replication, further passes where intervals overlap: which networks get them, its end, and its benefit."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError
from latlab.harness.fleet.campaigns import Measurements
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.measurement.replication import Replication
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.ranking import RankedNetwork, Resolve, compare, next_round, uniform_s
from latlab.harness.store.store import Store
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.search_spaces import get

SPACE, COUNT = "nasbench201", 16
BUSY = {"sigma": 0.05, "autocorrelation": 0.4}


def labels(*latencies: float, error: float = 0.01, passes: int = 5) -> list[RankedNetwork]:
    """Return labels of networks a, b, ...; the standard error is a share of each."""
    return [RankedNetwork(chr(97 + n), ms, error * ms, passes, 0.01 * ms) for n, ms in enumerate(latencies)]


def states(found: list[RankedNetwork], resolve: Resolve) -> list[tuple[str | None, str | None, str]]:
    return [(one.faster, one.slower, one.state) for one in compare(found, resolve)]


# Pure


def test_what_is_compared_with_a_limit() -> None:
    found = compare(labels(10.0, 20.0, 11.0), Resolve(under_ms=15))
    assert [(one.faster, one.slower) for one in found] == [("a", None), ("c", None), (None, "b")]
    assert {one.state for one in found} == {"decided"}
    assert found[2].gap_percent == pytest.approx(100 / 3)


def test_what_is_compared_for_the_fastest() -> None:
    found = compare(labels(14.0, 10.0, 12.0, 13.0, 11.0), Resolve(top=2))
    assert [(one.faster, one.slower) for one in found] == [("b", "e"), ("e", "c"), ("e", "d"), ("e", "a")]
    all_ = compare(labels(14.0, 10.0, 12.0), Resolve())
    assert [(one.faster, one.slower) for one in all_] == [("b", "c"), ("c", "a")]
    assert states(labels(1.0, 2.0), Resolve(top=7)) == [("a", "b", "decided")]


def test_probability_is_of_the_difference_of_logarithms() -> None:
    (one,) = compare(labels(10.0, 10.2, error=0.01), Resolve())
    z = math.log(1.02) / math.hypot(0.01, 0.01)
    assert one.probability == pytest.approx(0.5 + math.erf(z / math.sqrt(2)) / 2)
    assert one.state == "open"


@pytest.mark.parametrize(
    ("second", "error", "state"),
    [(10.5, 0.01, "decided"), (10.05, 0.001, "decided"), (10.05, 0.005, "tie"), (10.05, 0.02, "open"),
     (10.3, 0.02, "open"), (10.0, 0.0, "tie"), (10.001, 0.0, "decided")],
)  # fmt: skip
def test_when_a_comparison_is_over(second: float, error: float, state: str) -> None:
    assert states(labels(10.0, second, error=error), Resolve()) == [("a", "b", state)]


def test_without_a_zone_there_are_no_ties() -> None:
    found = labels(10.0, 10.05, error=0.005)
    assert states(found, Resolve(ties_percent=0)) == [("a", "b", "open")]
    assert states(found, Resolve(ties_percent=5)) == [("a", "b", "tie")]


def test_passes_go_to_what_is_open() -> None:
    found = labels(10.0, 10.3, 20.0, 30.0, 30.2, error=0.02)
    assert set(next_round(found, Resolve(top=1), 100)) == {"a", "b"}
    assert set(next_round(found, Resolve(under_ms=30), 100)) == {"d", "e"}
    assert set(next_round(found, Resolve(), 100)) == {"a", "b", "d", "e"}
    assert next_round(found, Resolve(under_ms=25), 100) == {}
    assert not next_round([], Resolve(), 100)
    assert not compare([], Resolve())


def test_a_round_is_no_larger_than_half_of_what_there_is() -> None:
    assert next_round(labels(10.0, 10.0, error=0.1), Resolve(), 100) == {"a": 8, "b": 8}
    just = labels(10.0, 10.0, error=0.0045)
    assert next_round(just, Resolve(), 100) == {"a": 6, "b": 6}


def test_spending_is_bounded() -> None:
    found = labels(10.0, 10.1, 10.2, 10.3, error=0.05)
    capped = Resolve(most_passes=6)
    assert next_round(found, capped, 100) == dict.fromkeys("abcd", 6)
    assert next_round(labels(10.0, 10.1, error=0.05, passes=6), capped, 100) == {}
    assert next_round(found, Resolve(), 0.0) == {}
    few = next_round(found, Resolve(), 0.75)  # a pass takes 0.1 s
    assert sum(total - 5 for total in few.values()) == 7
    assert "a" not in next_round(found, Resolve(), 100, without={"a"})


def test_the_noisier_and_the_quicker_of_two_comes_first() -> None:
    noisy = [RankedNetwork("calm", 10, 0.01, 5, 0.1), RankedNetwork("wild", 10.1, 0.5, 5, 0.1)]
    assert next(iter(next_round(noisy, Resolve(), 100))) == "wild"
    dear = [RankedNetwork("dear", 10, 0.2, 5, 1.0), RankedNetwork("cheap", 10.1, 0.2, 5, 0.1)]
    assert next(iter(next_round(dear, Resolve(), 100))) == "cheap"


def test_what_the_same_passes_for_all_would_have_taken() -> None:
    done = [
        RankedNetwork("a", 10.0, 0.05, 20, 0.1),
        RankedNetwork("b", 10.2, 0.05, 20, 0.1),
        RankedNetwork("c", 30.0, 1.0, 5, 0.3),
    ]
    took = uniform_s(done, dict.fromkeys("abc", 5), Resolve(top=1))
    assert took == pytest.approx(0.5 * 2)  # with seven passes for each, 1.98 % is 1.65 standard errors
    assert uniform_s(done, {"a": 20, "b": 20, "c": 5}, Resolve(under_ms=20)) == 0


@pytest.mark.parametrize(
    "bad",
    [{"under_ms": 5, "top": 3}, {"under_ms": 0}, {"under_ms": math.nan}, {"top": 0}, {"ties_percent": -1},
     {"confidence": 0.5}, {"confidence": 1}, {"most_passes": 0}, {"most_s": -1}],
)  # fmt: skip
def test_bad_questions(bad: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        Resolve(**bad)


@pytest.mark.parametrize("goal", [Resolve(top=5), Resolve(under_ms=12.0), Resolve()])
def test_it_ends_and_is_right_as_often_as_it_says(goal: Resolve) -> None:
    """Normal noise of known size: of decided comparisons no more are wrong than expected, of ties few by more."""
    rng = np.random.default_rng(1)
    wrong = expected = spent = even = 0.0
    for _ in range(40):
        truth = 10 * np.exp(np.sort(rng.uniform(0, 0.4, 30)))
        passes = [list(ms * np.exp(0.04 * rng.standard_normal(5))) for ms in truth]

        def label(place: int, passes: list[list[float]] = passes) -> RankedNetwork:
            ms = float(np.mean(passes[place]))
            return RankedNetwork(str(place), ms, 0.04 * ms / len(passes[place]) ** 0.5, len(passes[place]), ms / 100)

        known = [label(place) for place in range(30)]
        before = {one.name: one.passes for one in known}
        while wanted := next_round(known, goal, math.inf):
            for name, total in wanted.items():
                more = truth[int(name)] * np.exp(0.04 * rng.standard_normal(total - len(passes[int(name)])))
                passes[int(name)] += list(more)
                known[int(name)] = label(int(name))
        assert max(one.passes for one in known) <= 50
        spent += sum((one.passes - 5) * one.pass_s for one in known)
        even += uniform_s(known, before, goal)

        def ms_of(name: str | None, truth: np.ndarray = truth) -> float:
            return goal.under_ms or 0.0 if name is None else float(truth[int(name)])

        for one in compare(known, goal):
            if one.state == "decided":
                wrong += ms_of(one.faster) > ms_of(one.slower)
                expected += 1 - one.probability
    assert wrong <= expected + 3 * math.sqrt(expected)
    assert spent < even


# On simulated devices


def lab_of(store: Path, **noise: Any) -> Lab:
    lab = Lab(store)
    config = SimulatedDevice.model_validate({"kind": "server", "seed": 3, "noise": noise or BUSY})
    lab.inventory = Inventory({"busy": config})
    return lab


def resolved(found: Measurements) -> dict[str, Any]:
    one = found.resolved[0].to_json()
    assert len(found.resolved) == 1
    assert json.loads(json.dumps(one)) == one
    return one


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return lab_of(tmp_path / "latlab.db")


def test_labels_get_passes_until_the_fastest_are_known(lab: Lab) -> None:
    said: list[str] = []
    before = lab.measure("busy", space=SPACE, count=COUNT).rows.set_index("arch")
    goal = Resolve(top=6, most_s=100)
    found = lab.measure("busy", space=SPACE, count=COUNT, resolve=goal, listener=RunListener(say=said.append))
    rows = found.rows.set_index("arch")
    outcome = resolved(found)
    assert set(rows["status"]) == {"ok"}
    more = rows["passes"].map(len) - before["passes"].map(len)
    own = rows["same_graph_as"].isna()
    assert outcome["passes"] == more[own].sum() > 0
    assert outcome["repeated"] == (more[own] > 0).sum() < len(rows) / 2
    for arch, passes in before["passes"].items():
        assert rows.loc[arch, "passes"][: len(passes)] == passes
    assert (rows.loc[more > 0, "raw_ms"] != before.loc[more > 0, "raw_ms"]).all()
    assert (rows.loc[more == 0, "raw_ms"] == before.loc[more == 0, "raw_ms"]).all()
    assert outcome["exhausted"] != "seconds"
    assert outcome["undecided"] == 0 or outcome["exhausted"] == "passes"
    assert 0 < outcome["timed_s"] <= outcome["most_s"]
    assert said
    assert all(line.startswith("busy/") for line in said)


def test_the_same_call_goes_on(lab: Lab) -> None:
    first = resolved(lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6, most_s=0.05)))
    assert first["exhausted"] == "seconds"
    assert 0 < first["timed_s"] < 0.1
    second = resolved(lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6, most_s=100)))
    assert second["passes"] > 0
    assert second["exhausted"] != "seconds"
    third = resolved(lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6)))
    assert third["passes"] == third["timed_s"] == 0
    assert third["comparisons"] == second["comparisons"]


def test_a_network_has_no_more_passes_than_it_may(lab: Lab) -> None:
    found = lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6, ties_percent=0, most_passes=7))
    assert resolved(found)["exhausted"] == "passes"
    assert found.rows["passes"].map(len).max() == 7


def test_without_noise_nothing_is_repeated(tmp_path: Path) -> None:
    lab = lab_of(tmp_path / "latlab.db", sigma=0.0)
    outcome = resolved(lab.measure("busy", space=SPACE, count=15, resolve=Resolve()))
    assert outcome["passes"] == 0
    assert outcome["undecided"] == 0


def test_networks_of_the_same_graph_share_what_is_added(lab: Lab) -> None:
    conv = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
    dead = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"  # its first edge leads nowhere
    lab.measure("busy", space=SPACE, archs=[conv, dead])
    (latency,) = set(lab.store.table()["latency_ms"])
    found = lab.measure("busy", space=SPACE, archs=[dead, conv], resolve=Resolve(under_ms=latency, most_s=100))
    assert len(resolved(found)["networks"]) == 1
    assert resolved(found)["passes"] > 0
    assert found.rows["latency_ms"].nunique() == 1
    assert found.rows["latency_ms"][0] != latency
    assert found.rows["passes"][0] == found.rows["passes"][1]


def test_passes_of_a_killed_run_count(lab: Lab) -> None:
    """It ended after passes were stored and before their row was: the row is finished, without timing it again."""
    rows = lab.measure("busy", space=SPACE, count=6).rows
    row, own = rows.iloc[0], rows["passes"][0]
    number = max(one.number for one in lab.store.passes(int(row["id"]))) + 1
    slow = [3 * ns for ns in own[0]]
    for extra in range(4):
        lab.store.add_pass(int(row["id"]), RecordedPass([1], slow, {}, number + extra))
    found = lab.measure("busy", space=SPACE, count=6, resolve=Resolve(under_ms=1e6))
    again = found.rows
    assert again["passes"][0] == [*own, slow, slow, slow, slow]
    assert again["latency_ms"][0] > 1.2 * row["latency_ms"]
    assert resolved(found)["below"] == 6


def test_a_device_lost_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlab.harness.fleet.retries.BACKOFF_S", (0.01,))
    lab = lab_of(tmp_path / "latlab.db")
    lab.measure("busy", space=SPACE, count=COUNT)
    config = lab.inventory.device("busy")
    assert isinstance(config, SimulatedDevice)
    config.device("busy").inject("disconnect", after_requests=7)
    found = lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6, most_s=100))
    rows = found.rows
    assert found.errors == ()
    assert set(rows["status"]) == {"ok"}
    assert resolved(found)["exhausted"] != "seconds"
    assert rows["passes"].map(len).max() > 5
    assert "lost" in set(lab.store.incidents()["kind"])


def test_what_cannot_be_repeated_keeps_its_label(lab: Lab) -> None:
    before = lab.measure("busy", space=SPACE, count=COUNT).rows.set_index("arch")
    config = lab.inventory.device("busy")
    assert isinstance(config, SimulatedDevice)
    for after in range(4):
        config.device("busy").inject("crash", verb="load", after_requests=after)
    rows = lab.measure("busy", space=SPACE, count=COUNT, resolve=Resolve(top=6, most_s=100)).rows.set_index("arch")
    assert set(rows["status"]) == {"ok"}
    same = rows["passes"].map(len) == before["passes"].map(len)
    assert (rows.loc[same, "raw_ms"] == before.loc[same, "raw_ms"]).all()


# The command


def latlab(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["latlab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    noise = json.dumps(BUSY)
    Path("inventory.yaml").write_text(
        f"devices:\n  busy: {{transport: simulated, kind: server, seed: 3, noise: {noise}}}\n"
    )


def test_the_command(busy: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("measure", "busy", "--space", SPACE, "--count", str(COUNT), "--resolve", "--top", "5")
    assert latlab(*words, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert "the 5 fastest, of" in said.out
    assert "decided: " in said.out
    assert "round 1:" in said.err
    assert latlab(*words, "--json", monkeypatch=monkeypatch) == 0
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(rows) == COUNT
    assert last["resolved"]["undecided"] == 0
    assert last["resolved"]["passes"] == 0
    median = sorted(row["latency_ms"] for row in rows)[COUNT // 2]
    assert latlab(*words[:-2], "--under", str(median), "--ties", "2", monkeypatch=monkeypatch) == 0
    assert "below: " in capsys.readouterr().out


@pytest.mark.parametrize("words", [("--top", "5"), ("--under", "3"), ("--resolve", "--top", "5", "--under", "3"),
                                   ("--resolve", "--under", "-1"), ("--resolve", "--top", "0")])  # fmt: skip
def test_bad_options(busy: None, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert latlab("measure", "busy", "--space", SPACE, "--count", "3", *words, monkeypatch=monkeypatch) == 2
    assert not Path("latlab.db").exists() or Store("latlab.db").table().empty


@pytest.mark.parametrize(
    ("samples", "facts"),
    [
        ([100, 110, 105], {"calls": 1000}),  # microseconds, timed in blocks
        ([1_000_000], {"aggregate": {"runs": 50, "std_ns": 10}}),  # benchmark_model
        ([1_000_000, 1_100_000], {}),
    ],
)
def test_what_is_finished_is_over_however_it_was_timed(lab: Lab, samples: list[int], facts: dict[str, Any]) -> None:
    """Else the same command would go back to the device each time."""
    target = Target("busy", "onnxruntime")
    campaign = lab.store.campaign(target, SPACE, PRESETS["help"], 0, "listed")
    session = MeasurementSession(lab.store, campaign, 1)
    names = [arch.text for arch in get(SPACE).references()[:3]]
    for place, name in enumerate(names):
        row = session.begin(name, "listed")
        one = RecordedPass([50], [ns * (place + 1) for ns in samples], facts)
        lab.store.add_pass(row.id, one)
        label = one.samples_ns[0] / 1e6
        times = {"warm_s": one.warmup_s, "measure_s": one.samples_s}
        lab.store.finish(row.id, "ok", latency_ms=label, stderr_ms=1e-9, times_s=times)
    assert Replication(session, names, Resolve(top=2)).is_over
    lab.store.add_pass(row.id, RecordedPass([50], samples, facts, 1))  # a killed run has left this one
    assert not Replication(session, names, Resolve(top=2)).is_over
