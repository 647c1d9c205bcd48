"""Tests of timing policies as values, and of the sampling loops on clocks that the tests advance."""

from __future__ import annotations

import gc
import time
from dataclasses import FrozenInstanceError, replace

import pytest

from latlab.agents.execution.sampling import repeated, take_device_samples, take_samples, timer_overhead_ns
from latlab.agents.execution.stopping import Sampling
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.pass_request import PassRequest
from latlab.harness.timing_policy import PRESETS, PolicyError, TimingPolicy

FOREVER = 1 << 62


def runs(count: int) -> Sampling:
    return Sampling(PassRequest(warmup=0, runs=count))


def test_the_preset_help_is_what_help_does() -> None:
    policy = PRESETS["help"]
    assert (policy.warmup, policy.runs, policy.trim, policy.passes) == (10, 50, 0.1, 1)


def test_what_presets_cost_beside_help() -> None:
    runs = {name: one.most_passes * (one.warmup + one.runs) for name, one in PRESETS.items()}
    assert 0.9 * runs["help"] < runs["default"] <= runs["help"]
    assert runs["quick"] <= runs["help"] / 2
    assert runs["thorough"] <= 2 * runs["help"]


def test_presets_of_passes_that_are_added_have_a_reason_and_a_bound() -> None:
    for name in ("default", "quick", "thorough"):
        policy = PRESETS[name]
        assert policy.passes < policy.max_passes
        assert policy.precision > 0
        assert policy.max_s > 0
        assert policy.anchors


def test_tflite_and_nvbench_are_what_those_do() -> None:
    tflite, nvbench = PRESETS["tflite"], PRESETS["nvbench"]
    assert tflite.pass_request() == PassRequest(1, 50, warmup_s=0.5, pass_s=1, max_pass_s=150)
    assert nvbench.pass_request() == PassRequest(1, 10, pass_s=0.5, max_pass_s=15, stop="stdrel")
    assert (tflite.trim, tflite.passes, nvbench.trim, nvbench.passes) == (0, 1, 0, 1)


def test_presets_are_found_under_their_names() -> None:
    assert all(policy.name == name for name, policy in PRESETS.items())


def test_hashes_are_the_same_on_every_machine() -> None:
    # Recorded: stores refer to them, so a change of these makes measured rows strangers to new ones.
    assert {name: policy.hash() for name, policy in PRESETS.items()} == {
        "default": "9701e2ffd4540fa5",
        "quick": "a05a7532268dc596",
        "thorough": "dd9e6d00cc531164",
        "help": "f733638c6b230ae1",
        "tflite": "49a80a403fe488ca",
        "nvbench": "8836f697ac22264b",
    }


def test_the_name_is_not_in_the_hash_and_all_else_is() -> None:
    policy = PRESETS["default"]
    assert replace(policy, name="mine").hash() == policy.hash()
    others = [
        replace(policy, **change)
        for change in ({"warmup": 3}, {"runs": 11}, {"trim": 0.2}, {"passes": 4}, {"spread": 9}, {"anchors": False})
    ]
    assert len({other.hash() for other in (*others, policy)}) == 7


def test_zero_and_zero_point_zero_are_one_trim() -> None:
    assert replace(PRESETS["help"], trim=0).hash() == replace(PRESETS["help"], trim=0.0).hash()
    assert replace(PRESETS["help"], pass_s=1).hash() == replace(PRESETS["help"], pass_s=1.0).hash()


def test_a_policy_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["help"].runs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup", -1),
        ("runs", 0),
        ("runs", 2.5),
        ("runs", True),
        ("passes", 0),
        ("spread", -1),
        ("trim", 0.5),
        ("trim", -1),
        ("trim", None),
        ("runs", 100_001),
        ("max_runs", 49),
        ("max_warmup", 9),
        ("max_passes", -1),
        ("max_pass_s", 3601),
        ("warmup_s", float("nan")),
        ("precision", float("inf")),
        ("max_s", "long"),
        ("stop", "entropy"),
        ("anchors", 1),
        ("overheads", -1),
    ],
)
def test_a_policy_that_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(PolicyError, match=field) as caught:
        replace(PRESETS["help"], **{field: value})
    assert caught.value.field == field


def test_bounds_that_are_below_what_they_bound() -> None:
    with pytest.raises(PolicyError, match=r"max_passes of a timing policy is 0 or at least passes \(3\), not 2"):
        replace(PRESETS["default"], max_passes=2)
    with pytest.raises(PolicyError, match="max_pass_s"):
        replace(PRESETS["tflite"], max_pass_s=0.5)


class Clock:
    """A stand-in for `perf_counter_ns`: each call of the network takes the next of `durations`, in nanoseconds."""

    def __init__(self, durations: list[int]) -> None:
        self.now = 1000
        self._durations = iter(durations)

    def __call__(self) -> int:
        return self.now

    def network(self) -> None:
        self.now += next(self._durations)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock([30, 10, 20, 40, 50])
    monkeypatch.setattr(time, "perf_counter_ns", clock)
    return clock


def test_samples_keep_their_order(clock: Clock) -> None:
    assert take_samples(clock.network, runs(5), FOREVER) == [30, 10, 20, 40, 50]


def test_no_run_begins_after_the_deadline(clock: Clock) -> None:
    with pytest.raises(AgentError, match="after 3 of 5 runs") as caught:
        take_samples(clock.network, runs(5), deadline_ns=1055)
    assert caught.value.kind == "timeout"
    assert clock.now == 1060


def test_a_run_that_ends_late_counts_when_it_was_the_last(clock: Clock) -> None:
    assert take_samples(clock.network, runs(3), deadline_ns=1055) == [30, 10, 20]


def test_no_garbage_is_collected_between_samples() -> None:
    states: list[bool] = []
    take_samples(lambda: states.append(gc.isenabled()), runs(3), FOREVER)
    assert states == [False, False, False]
    assert gc.isenabled()


def test_the_collector_comes_back_when_the_network_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        take_samples(lambda: 1 // 0, runs(3), FOREVER)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        take_samples(lambda: None, runs(1), FOREVER)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_samples_are_about_right_on_the_real_clock() -> None:
    samples = take_samples(lambda: time.sleep(0.002), runs(5), FOREVER)
    assert all(2_000_000 <= sample < 50_000_000 for sample in samples)


def test_own_policies_have_names_of_their_own() -> None:
    assert TimingPolicy("quick", 1, 5, 0.0, 2, 0).name == "quick"


def test_a_rule_is_asked_after_each_sample_for_what_it_took_and_the_time_since_the_first(clock: Clock) -> None:
    asked = []

    class UntilThree:
        begins, goal, fewest = True, "3", 3

        def enough(self, sample_ns: int, elapsed_ns: int) -> bool:
            asked.append((sample_ns, elapsed_ns))
            clock.now += 500  # a rule's own time is in no sample
            return len(asked) == 3

    assert take_samples(clock.network, UntilThree(), FOREVER) == [30, 10, 20]
    assert asked == [(30, 30), (10, 540), (20, 1060)]


def test_a_pass_of_no_runs(clock: Clock) -> None:
    assert take_samples(clock.network, runs(0), FOREVER) == []


def test_a_late_pass_says_how_many_runs_it_wanted(clock: Clock) -> None:
    rule = Sampling(PassRequest(warmup=0, runs=2, pass_s=1))
    with pytest.raises(AgentError, match="after 3 of at least 2 runs"):
        take_samples(clock.network, rule, deadline_ns=1055)


def test_a_block_of_calls_is_one_sample(clock: Clock) -> None:
    assert take_samples(repeated(clock.network, 2), runs(2), FOREVER) == [40, 60]
    network = clock.network
    assert repeated(network, 1) == network


def test_the_timer_costs_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < timer_overhead_ns() < 100_000
    ticks = iter(range(0, 10**9, 50))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks) // 1000 * 1000)  # ticks in microseconds
    assert timer_overhead_ns() == pytest.approx(50, rel=0.1)


class Device:
    """An accelerator with a queue, its clock and its driver's view of it, on a time that only they advance."""

    LAUNCH, WAIT = 7_000, 3_000
    default_sm_mhz: int | None = 2000

    def __init__(self, monkeypatch: pytest.MonkeyPatch, durations: list[int], mhz: list[int | None]) -> None:
        self.now = 1_000_000
        self.slept: list[float] = []
        self.awake = True
        self._durations, self._mhz = iter(durations), iter(mhz)
        self._work = self._span = 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)

    def network(self) -> None:
        self.now += self.LAUNCH
        self._work = next(self._durations)

    def start(self) -> None:
        self._begin = self.now

    def stop(self) -> None:
        self._span = self.now - self._begin + self._work

    def wait(self) -> None:
        self.now += self.WAIT + self._work
        self._work = 0

    def elapsed_ns(self) -> int:
        return self._span

    def sm_mhz(self) -> int | None:
        return next(self._mhz)

    def idle(self) -> bool:
        return not self.awake


def test_the_device_is_timed_and_the_launch_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000, 40_000, 60_000], [1980, 1900, 1500])
    taken = take_device_samples(device.network, device, runs(3), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert taken.samples_ns == [57_000, 47_000, 67_000]
    assert taken.report() == {
        "launch_ns": [7000, 7000, 7000],
        "discarded": 0,
        "throttled": False,
        "sm_mhz": [1980, 1900, 1500],
    }
    assert device.slept == []


def test_without_a_driver_to_ask_no_clocks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 3, [])
    taken = take_device_samples(device.network, device, runs(3), FOREVER)
    assert taken.report() == {"launch_ns": [7000] * 3, "discarded": 0, "throttled": False}


def test_a_clock_that_is_sometimes_unknown_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 3, [1980, None, 1980])
    taken = take_device_samples(device.network, device, runs(3), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert "sm_mhz" not in taken.report()
    assert len(taken.samples_ns) == 3


def test_samples_under_a_throttled_clock_are_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000, 99_000, 98_000, 40_000], [1980, 1499, 900, 1500])
    taken = take_device_samples(device.network, device, runs(2), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert taken.samples_ns == [57_000, 47_000]
    assert taken.sm_mhz == [1980, 1500]
    assert (taken.discarded, taken.throttled) == (2, False)
    assert device.slept == [0.05, 0.05]


def test_a_gpu_that_has_slept_is_woken_by_work(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [90_000, 50_000], [345, 1980])
    device.awake = False
    taken = take_device_samples(device.network, device, runs(1), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert (taken.samples_ns, taken.discarded) == ([57_000], 1)
    assert device.slept == []


def test_discards_are_bounded_and_what_is_kept_then_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [90_000] * 6, [800] * 6)
    taken = take_device_samples(device.network, device, runs(3), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert taken.samples_ns == [97_000] * 3
    assert (taken.discarded, taken.throttled) == (3, True)


def test_a_gpu_without_a_known_default_is_never_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000], [300])
    device.default_sm_mhz = None
    taken = take_device_samples(device.network, device, runs(1), FOREVER, gpu=device)  # type: ignore[arg-type]
    assert (taken.discarded, taken.throttled, taken.sm_mhz) == (0, False, [300])


def test_the_deadline_holds_while_a_gpu_cools_down(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 99, [100] * 99)
    deadline = device.now + 120_000_000  # two pauses, and some
    with pytest.raises(AgentError, match="after 0 of 50 runs") as caught:
        take_device_samples(device.network, device, runs(50), deadline, gpu=device)  # type: ignore[arg-type]
    assert caught.value.kind == "timeout"


def test_events_that_miss_the_work_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a runtime on a stream of its own would look like: fast and wrong."""
    device = Device(monkeypatch, [5_000_000] * 5, [])
    monkeypatch.setattr(device, "elapsed_ns", lambda: Device.LAUNCH)
    with pytest.raises(AgentError, match="does not use the stream that is timed") as caught:
        take_device_samples(device.network, device, runs(5), FOREVER)
    assert caught.value.kind == "crash"


def test_one_interruption_of_the_host_is_no_such_error(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 5, [])
    wait, waits = device.wait, iter([0, 0, 9_000_000, 0, 9_000_000, 0])

    def interrupted() -> None:
        wait()
        device.now += next(waits)

    monkeypatch.setattr(device, "wait", interrupted)
    assert len(take_device_samples(device.network, device, runs(5), FOREVER).samples_ns) == 5


def test_a_rule_ends_samples_of_a_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 99, [1980] * 99)
    rule = Sampling(PassRequest(warmup=0, runs=2, pass_s=0.0005))
    taken = take_device_samples(device.network, device, rule, FOREVER, gpu=device)  # type: ignore[arg-type]
    assert taken.samples_ns == [57_000] * 9
    assert len(taken.launch_ns) == len(taken.sm_mhz) == 9


def test_discards_are_bounded_in_an_open_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [90_000] * 99, [800] * 99)
    rule = Sampling(PassRequest(warmup=0, runs=2, pass_s=1, max_runs=10))
    taken = take_device_samples(device.network, device, rule, FOREVER, gpu=device)  # type: ignore[arg-type]
    assert (len(taken.samples_ns), taken.throttled) == (10, True)
    assert taken.discarded <= 10


def test_no_runs_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [], [])
    assert take_device_samples(device.network, device, runs(0), FOREVER).samples_ns == []


def test_the_collector_is_off_on_a_device_too(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [50_000] * 2, [])
    states: list[bool] = []

    def network() -> None:
        states.append(gc.isenabled())
        device.network()

    take_device_samples(network, device, runs(2), FOREVER)
    assert states == [False, False]
    assert gc.isenabled()
