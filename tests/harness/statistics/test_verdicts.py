"""Tests of the verdicts on passes: seeded synthetic samples, and telemetry as devices report it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from latlab.harness.statistics.verdicts import KINDS, Verdict, judge, judge_together, usual_clock_mhz
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.timing_policy import PRESETS, TimingPolicy

POLICY = TimingPolicy("x", warmup=2, runs=10, trim=0.1, passes=3, spread=2, max_passes=5, precision=0.02)
HELP = PRESETS["help"]
GOOD = Verdict("", "")


def recorded(samples_ns: Sequence[int], at_s: float | None, telemetry: Mapping[str, Any]) -> RecordedPass:
    if isinstance(telemetry, Mapping):
        telemetry = {**telemetry, "at_s": at_s}
    return RecordedPass([], list(samples_ns), telemetry)  # type: ignore[arg-type]


def samples(rng: random.Random, count: int, level: Callable[[int], float], sigma: float = 0.01) -> list[int]:
    return [round(1e6 * level(k) * (1 + sigma * rng.gauss(0, 1))) for k in range(count)]


def passes(
    levels: Sequence[float] = (1.0,) * 5,
    telemetry: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
    seed: int = 0,
    sigma: float = 0.01,
) -> list[RecordedPass]:
    rng = random.Random(seed)
    told = telemetry if isinstance(telemetry, list) else [telemetry or {}] * len(levels)
    return [
        recorded(samples(rng, 10, lambda _, level=level: level, sigma), 100.0 + 7 * number, told[number])
        for number, level in enumerate(levels)
    ]


def sitting(level: Callable[[int], float], seed: int = 0, **telemetry: Any) -> list[RecordedPass]:
    return [recorded(samples(random.Random(seed), 50, level), 100.0, telemetry)]


def test_a_steady_network_is_good() -> None:
    assert judge(passes(), POLICY) == GOOD
    assert judge(sitting(lambda _: 1.0), HELP) == GOOD
    assert not judge(passes(), POLICY)


@pytest.mark.parametrize("wrong", [[], [recorded([], 0.0, {})]])
def test_nothing_has_no_verdict(wrong: list[RecordedPass]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        judge(wrong, POLICY)


def test_false_alarms_are_rare() -> None:
    found = [judge(passes(seed=seed), POLICY) for seed in range(120)]
    assert sum(map(bool, found)) <= 3
    found = [judge(sitting(lambda _: 1.0, seed), HELP) for seed in range(80)]
    assert sum(map(bool, found)) <= 3


def test_noisy_is_what_is_wider_than_the_precision() -> None:
    wide = passes(sigma=0.08)
    verdict = judge(wide, POLICY)
    assert verdict.kind == "noisy"
    assert verdict.why.startswith("the interval is ± ")
    assert judge(wide, TimingPolicy("y", warmup=2, runs=10, trim=0.1, passes=5, spread=1)) == GOOD  # 5 % there
    assert judge(passes(sigma=0.3), HELP).kind == "noisy"


# Drift


def test_latency_that_rises_from_pass_to_pass_drifts() -> None:
    verdict = judge(passes([1.0, 1.02, 1.04, 1.06, 1.08]), POLICY)
    assert verdict.kind == "drift"
    assert "longer from first to last" in verdict.why
    assert "shorter" in judge(passes([1.08, 1.06, 1.04, 1.02, 1.0]), POLICY).why


def test_drift_goes_by_time_not_by_number() -> None:
    records = passes([1.0, 1.04, 1.041, 1.042, 1.043])
    late = [recorded(records[0].samples_ns, 0.0, {}), *records[1:]]
    assert judge(records, POLICY).kind != "drift"
    assert judge(late, POLICY).kind == "drift"


def test_one_burst_is_no_drift() -> None:
    assert judge(passes([1.0, 1.0, 1.0, 1.0, 1.3]), POLICY).kind not in ("", "drift")


def test_a_drift_that_does_not_matter_is_none() -> None:
    assert judge(passes([1.0, 1.001, 1.002, 1.003, 1.004], sigma=1e-4), POLICY) == GOOD


def test_one_sitting_drifts_along_its_samples() -> None:
    assert judge(sitting(lambda k: 1 + k / 500), HELP).kind == "drift"


@pytest.mark.parametrize(
    ("times", "kind"), [([5.0] * 5, "noisy"), ([None] * 5, "drift"), ([float("nan")] * 5, "drift")]
)
def test_equal_times_show_no_drift_and_missing_ones_give_way_to_the_order(times: list[Any], kind: str) -> None:
    records = [
        recorded(one.samples_ns, at_s, {})
        for one, at_s in zip(passes([1.0, 1.02, 1.04, 1.06, 1.08]), times, strict=True)
    ]
    assert judge(records, POLICY).kind == kind


# Throttled


def state(**told: Any) -> dict[str, Any]:
    return {"before": told, "after": told}


@pytest.mark.parametrize(
    ("telemetry", "why"),
    [
        ({"throttled": True}, "pass 1 ran with a throttled clock"),
        ({"before": {"throttled": 3}, "after": {"throttled": 5}}, "the device throttled its clock in pass 1"),
        (state(throttled=0x50005), "its bits are 0x50005"),
        (state(gpu=[{"throttled_by": ["power cap", "hardware thermal slowdown"]}]), "hardware thermal slowdown"),
    ],
)
def test_a_device_that_says_it_is_throttled(telemetry: dict[str, Any], why: str) -> None:
    verdict = judge(passes(telemetry=[telemetry, {}, {}, {}, {}]), POLICY)
    assert verdict.kind == "throttled"
    assert why in verdict.why


@pytest.mark.parametrize(
    "telemetry",
    [
        {"throttled": False},
        state(throttled=7),  # it was throttled before: a counter that stands still
        state(throttled=0x50000),  # since boot, not now
        {"before": {"throttled": 9}, "after": {"throttled": 0}},
        state(gpu=[{"throttled_by": ["power cap"]}]),
        state(gpu=[{"throttled_by": None}, None]),
    ],
)
def test_what_is_not_throttled(telemetry: dict[str, Any]) -> None:
    assert judge(passes(telemetry=telemetry), POLICY) == GOOD


def test_a_clock_below_three_quarters_of_the_usual_is_throttled() -> None:
    clocks = [state(frequency_mhz=[600.0, mhz]) for mhz in (1500.0, 1490.0, 1000.0, 1500.0, 1500.0)]
    verdict = judge(passes(telemetry=clocks), POLICY)
    assert verdict == Verdict("throttled", "the clock was at 1000 MHz after pass 3, which is usually 1500")
    low = state(frequency_mhz=[1000.0])
    assert judge(passes(telemetry=low), POLICY) == GOOD  # for all that these passes tell
    assert judge(passes(telemetry=low), POLICY, usual_mhz=1500.0).kind == "throttled"
    assert judge(passes(telemetry=low), POLICY, usual_mhz=1300.0) == GOOD


def test_a_gpus_clock_goes_by_its_samples() -> None:
    told = {**state(frequency_mhz=[3000.0]), "sm_mhz": [1200] * 10}
    assert judge(passes(telemetry=told), POLICY, usual_mhz=1980.0).kind == "throttled"
    assert usual_clock_mhz([told]) == 1200


def test_the_usual_clock_is_of_most_passes() -> None:
    assert usual_clock_mhz([state(frequency_mhz=[mhz, 600.0]) for mhz in (1500.0, 1500.0, 1500.0, 3000.0)]) == 3000.0
    assert usual_clock_mhz([state(frequency_mhz=[mhz]) for mhz in [1500.0] * 9 + [3000.0]]) == 1500.0
    assert usual_clock_mhz([{}, state(frequency_mhz=None)]) is None


def test_a_step_while_it_becomes_warmer_is_throttling() -> None:
    warming = [state(temperature_c={"soc": 60.0 + number, "board": 40.0}) for number in range(5)]
    cooling = [state(temperature_c={"soc": 64.0 - number}) for number in range(5)]
    up = [1.0, 1.0, 1.4, 1.4, 1.4]
    verdict = judge(passes(up, warming), POLICY)
    assert verdict.kind == "throttled"
    assert "40 % longer at once, while it went from 60 to 64 °C" in verdict.why
    assert judge(passes(up, cooling), POLICY).kind != "throttled"
    assert judge(passes(up[::-1], cooling), POLICY).kind == "throttled"
    assert judge(passes(telemetry=warming), POLICY) == GOOD  # warm, and as quick as before
    step = sitting(
        lambda k: 1.0 + 0.4 * (k > 30), before={"temperature_c": {"a": 70}}, after={"temperature_c": {"a": 80}}
    )
    assert judge(step, HELP).kind == "throttled"


# Disturbed


def rises(**by: Any) -> dict[str, Any]:
    """Counters that rise by so much in a pass."""
    before = {key: dict.fromkeys(value, 100) if isinstance(value, dict) else 100 for key, value in by.items()}
    after = {
        key: {name: 100 + more for name, more in value.items()} if isinstance(value, dict) else 100 + value
        for key, value in by.items()
    }
    return {"before": before, "after": after}


def test_stolen_time_disturbs() -> None:
    stolen = rises(cpu_ticks={"busy": 10, "idle": 8, "steal": 2})
    verdict = judge(passes(telemetry=stolen), POLICY)
    assert verdict == Verdict("disturbed", "the hypervisor took 10 % of the CPUs' time away")
    assert judge(passes(telemetry=rises(cpu_ticks={"busy": 100, "idle": 100, "steal": 2})), POLICY) == GOOD
    once = [rises(cpu_ticks={"busy": 2, "idle": 2, "steal": 1}), {}, {}, {}, {}]
    assert judge(passes(telemetry=once), POLICY) == GOOD  # one tick is nothing


def test_interruptions_disturb_when_they_hit_more_runs_than_are_trimmed() -> None:
    assert judge(passes(telemetry=rises(preemptions=1)), POLICY) == GOOD
    verdict = judge(passes(telemetry=rises(preemptions=3)), POLICY)
    assert verdict == Verdict("disturbed", "other processes interrupted it 15 times in 50 runs")
    long = [recorded([100 * ns for ns in one.samples_ns], one.at_s, one.telemetry) for one in passes()]
    told = [recorded(one.samples_ns, one.at_s, rises(preemptions=3)) for one in long]
    assert judge(told, POLICY) == GOOD  # a millisecond in a tenth of a second


def test_pressure_only_explains_a_wide_interval() -> None:
    waited = rises(pressure_us=5000)  # of 10,000 us
    assert judge(passes(telemetry=waited), POLICY) == GOOD
    verdict = judge(passes(telemetry=waited, sigma=0.08), POLICY)
    assert verdict.kind == "disturbed"
    assert "50 % of the time; the interval is" in verdict.why


# Bimodal


def test_two_clusters_are_bimodal() -> None:
    levels = [1.0, 1.3, 1.0, 1.3, 1.0]
    verdict = judge(passes(levels), POLICY)
    assert verdict.kind == "bimodal"
    assert "40 % of the runs are 30 % longer than the others" in verdict.why
    assert verdict.slow_share == pytest.approx(0.4)
    mixed = judge(sitting(lambda k: 1.0 if k % 3 else 1.3), HELP)
    assert (mixed.kind, mixed.slow_share) == ("bimodal", pytest.approx(0.34))


def test_a_few_outliers_are_no_cluster() -> None:
    assert judge(sitting(lambda k: 2.0 if k in (7, 30) else 1.0), HELP) == GOOD


def test_clusters_that_hardly_differ_are_one() -> None:
    assert judge(sitting(lambda k: 1.0 if k % 3 else 1.05, seed=1), HELP) == GOOD


def test_what_some_networks_show_holds_for_all_of_a_session() -> None:
    seen, unseen = Verdict("bimodal", "40 %", 0.4), GOOD
    hot = Verdict("throttled", "hot")
    found = judge_together([*[seen] * 6, *[unseen] * 5, hot])
    assert [one.kind for one in found] == ["bimodal"] * 11 + ["throttled"]
    assert "20 % of all runs in this session" in found[6].why
    assert found[0] is seen
    assert judge_together([seen, *[unseen] * 11]) == [seen, *[unseen] * 11]  # a tenth of them is trimmed
    assert judge_together([seen] * 3 + [unseen]) == [seen] * 3 + [unseen]  # too few to say
    hot = [Verdict("throttled", "hot", 0.4)] * 6
    assert judge_together([*hot, *[unseen] * 5]) == [*hot, *[unseen] * 5]  # which has its own verdict
    assert judge_together([]) == []


# All


def test_the_gravest_comes_first_and_all_are_told() -> None:
    told = [{**rises(preemptions=5), "throttled": True}] * 5
    verdict = judge(passes([1.0, 1.3, 1.0, 1.3, 1.0], told), POLICY)
    assert verdict.kind == "throttled"
    assert [text.split()[0] for text in verdict.why.split("; ")] == ["pass", "other", "40", "the"]
    assert all(kind in KINDS for kind in ("", "noisy", "drift", "throttled", "bimodal", "disturbed"))


HOSTILE: list[Any] = [
    None,
    7,
    "x",
    [],
    [None, {}],
    {"before": 3, "after": [{}]},
    {"before": None, "after": None},
    {"throttled": "yes", "sm_mhz": {"a": 1}},
    {"sm_mhz": [None, "x", float("nan"), True]},
    state(throttled=True, temperature_c=[1], frequency_mhz={"a": 1}, gpu=7, cpu_ticks=[1], preemptions="x"),
    state(throttled=-5, temperature_c={"a": None, "b": "x"}, frequency_mhz=[None, "1", float("inf")], gpu=[3, None]),
    state(gpu=[{"throttled_by": 7, "temperature_c": "hot"}], cpu_ticks={"steal": None}, pressure_us=float("nan")),
    {"before": {"cpu_ticks": {"steal": 9}}, "after": {"cpu_ticks": {"steal": "9"}}},
    {"before": {"preemptions": 9}, "after": {"preemptions": 1}},
    state(throttled=1 << 80, frequency_mhz=[1e308, -1.0]),
    state(gpu=[{"throttled_by": [["nested"], {}, 3]}]),
]


@pytest.mark.parametrize("telemetry", HOSTILE)
def test_whatever_a_device_tells_does_no_harm(telemetry: Any) -> None:
    records = [recorded(one.samples_ns, one.at_s, telemetry) for one in passes()]
    assert judge(records, POLICY) == GOOD
    usual_clock_mhz([telemetry])


@pytest.mark.parametrize("values", [[[0] * 10] * 3, [[1] * 10] * 3, [[5]], [[0, 10**15]], [[1], [2], [3]], [[7] * 50]])
def test_odd_samples_do_no_harm(values: list[list[int]]) -> None:
    records = [recorded(one, float(number), {}) for number, one in enumerate(values)]
    assert judge(records, POLICY).kind in KINDS
