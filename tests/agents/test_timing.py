"""The policy as a value, and the sampling loop on a clock that ticks when it is told to."""

from __future__ import annotations

import gc
import time
from dataclasses import FrozenInstanceError, replace

import pytest

from latlab.agents.errors import AgentError
from latlab.agents.timing import PRESETS, TimingPolicy, take_samples

FOREVER = 1 << 62


def test_the_preset_help_is_what_help_does() -> None:
    policy = PRESETS["help"]
    assert (policy.warmup, policy.runs, policy.trim, policy.passes) == (10, 50, 0.1, 1)


def test_the_default_takes_as_many_runs_as_help() -> None:
    policy, other = PRESETS["default"], PRESETS["help"]
    assert policy.passes * (policy.warmup + policy.runs) == other.warmup + other.runs


def test_presets_are_found_under_their_names() -> None:
    assert all(policy.name == name for name, policy in PRESETS.items())


def test_hashes_are_the_same_on_every_machine() -> None:
    # Recorded: stores refer to them, so a change of these makes measured rows strangers to new ones.
    assert {name: policy.hash() for name, policy in PRESETS.items()} == {
        "help": "f733638c6b230ae1",
        "default": "698805d372b142dc",
    }


def test_the_name_is_not_in_the_hash_and_all_else_is() -> None:
    policy = PRESETS["default"]
    assert replace(policy, name="mine").hash() == policy.hash()
    others = [
        replace(policy, **change)
        for change in ({"warmup": 3}, {"runs": 11}, {"trim": 0.2}, {"passes": 6}, {"spread": 9})
    ]
    assert len({other.hash() for other in (*others, policy)}) == 6


def test_zero_and_zero_point_zero_are_one_trim() -> None:
    assert replace(PRESETS["help"], trim=0).hash() == replace(PRESETS["help"], trim=0.0).hash()


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
    ],
)
def test_a_policy_that_makes_no_sense(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        replace(PRESETS["help"], **{field: value})


class Clock:
    """Readings of `perf_counter_ns`: each call of the network takes what is next in `durations`."""

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
    assert take_samples(clock.network, 5, FOREVER) == [30, 10, 20, 40, 50]


def test_what_happens_between_samples_is_not_in_them(clock: Clock) -> None:
    def between() -> None:
        clock.now += 7000

    assert take_samples(clock.network, 3, FOREVER, between) == [30, 10, 20]


def test_no_run_begins_after_the_deadline(clock: Clock) -> None:
    with pytest.raises(AgentError, match="after 3 of 5 runs") as caught:
        take_samples(clock.network, 5, deadline_ns=1055)
    assert caught.value.kind == "timeout"
    assert clock.now == 1060


def test_a_run_that_ends_late_counts_when_it_was_the_last(clock: Clock) -> None:
    assert take_samples(clock.network, 3, deadline_ns=1055) == [30, 10, 20]


def test_no_garbage_is_collected_between_samples() -> None:
    states: list[bool] = []
    take_samples(lambda: states.append(gc.isenabled()), 3, FOREVER)
    assert states == [False, False, False]
    assert gc.isenabled()


def test_the_collector_comes_back_when_the_network_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        take_samples(lambda: 1 // 0, 3, FOREVER)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        take_samples(lambda: None, 1, FOREVER)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_samples_are_about_right_on_the_real_clock() -> None:
    samples = take_samples(lambda: time.sleep(0.002), 5, FOREVER)
    assert all(2_000_000 <= sample < 50_000_000 for sample in samples)


def test_own_policies_have_names_of_their_own() -> None:
    assert TimingPolicy("quick", 1, 5, 0.0, 2, 0).name == "quick"
