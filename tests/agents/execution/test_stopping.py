"""Tests of the rules that end warm-ups and passes: on recorded samples (microseconds, NAS-Bench-201 networks in
ONNX Runtime while another process computes in bursts) and made-up ones."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from statistics import mean, median, stdev

import pytest

from latlab.agents.execution.stopping import Rule, Sampling, Stdrel, Warmup, block_size, halves_agree, usual_call_ns
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import Fields
from latlab.agents.protocol.pass_request import MAX_CALLS, PassRequest
from latlab.harness.timing_policy import PRESETS, TimingPolicy

USUAL = [1880, 958, 918, 949, 909, 895, 898, 893, 916, 894, 887, 908, 907, 883, 879, 880, 883, 915, 887, 884]
COOLING = [436, 375, 329, 286, 291, 303, 251, 235, 232, 231, 231, 230]
DISTURBED = [622, 457, 452, 449, 450, 492, 455, 589, 493, 481, 470, 452]


def taken(rule: Rule, samples: list[int], unit_ns: int = 1000, gap_ns: int = 0) -> int:
    """Return how many samples a rule takes, with a gap before each; fail if it wants more than there are."""
    elapsed = 0
    for count, sample in enumerate(samples, 1):
        elapsed += sample * unit_ns + gap_ns
        if rule.enough(sample * unit_ns, elapsed):
            return count
    pytest.fail(f"{len(samples)} samples were not enough")


def asked(warmup: int = 0, runs: int = 1, **fields: object) -> PassRequest:
    return PassRequest(warmup, runs, **fields)  # type: ignore[arg-type]


# Halves


@pytest.mark.parametrize(
    ("samples", "agree"),
    [
        ([100, 100], True),
        ([110, 100], True),
        ([111, 100], False),  # still getting faster: the mean may fall by 10 %
        ([50, 100], True),  # a disturbance in the second half is none of the warm-up's
        ([49, 100], False),
        ([109, 111, 100, 100], True),
        ([130, 100, 100, 100], False),
        ([0, 0], True),
    ],
)
def test_short_halves_agree_by_their_means(samples: list[int], agree: bool) -> None:
    assert halves_agree(samples) is agree


def test_long_halves_agree_by_their_quartiles_too() -> None:
    level = [100, 101, 102, 103, 104, 105, 106, 107]
    assert halves_agree(level + level)
    assert halves_agree([sample + 4 for sample in level] + level)
    raised = [sample + 7 for sample in level]
    assert mean(raised) < 1.1 * mean(level)
    assert not halves_agree(raised + level)  # both quartiles by 7 %
    wide = [100, 101, 102, 103, 104, 116, 117, 118]
    assert not halves_agree(level + wide)  # the upper quartile alone
    assert halves_agree(wide[:6] + level[:6])  # of few, quartiles say nothing


def test_one_disturbed_run_of_many_does_not_keep_halves_apart() -> None:
    level = [100] * 20
    assert halves_agree([100] * 19 + [280] + level)
    assert halves_agree([*level, 1000, *level[1:]])


# Warm-up


def test_a_warm_up_of_so_many_runs() -> None:
    rule = Warmup(asked(warmup=3))
    assert taken(rule, USUAL) == 3
    assert (rule.goal, rule.fewest, rule.settled) == ("3", 3, None)


def test_no_warm_up() -> None:
    assert not Warmup(asked()).begins
    assert Warmup(asked(max_warmup=2)).begins
    assert Warmup(asked(warmup_s=0.1)).begins


@pytest.mark.parametrize(("samples", "runs"), [(USUAL, 3), (COOLING, 5), (DISTURBED, 3), ([100] * 9, 2)])
def test_a_warm_up_goes_on_until_its_halves_agree(samples: list[int], runs: int) -> None:
    rule = Warmup(asked(warmup=2, max_warmup=10))
    assert taken(rule, samples) == runs
    assert (rule.settled, rule.goal) == (True, "at least 2")


def test_the_runs_asked_for_are_done_even_if_the_halves_agree_earlier() -> None:
    rule = Warmup(asked(warmup=6, max_warmup=10))
    assert taken(rule, [100] * 9) == 6
    assert rule.settled is True


def test_a_warm_up_that_does_not_settle_ends_all_the_same() -> None:
    rule = Warmup(asked(warmup=2, max_warmup=7))
    assert taken(rule, [round(1000 * 0.8**n) for n in range(20)]) == 7
    assert rule.settled is False


def test_the_cold_beginning_is_no_part_of_the_comparison() -> None:
    """A slow first run is forgotten soon; compared with all others it would count for long."""
    cold = [10_000, *[100] * 30]
    rule = Warmup(asked(warmup=0, max_warmup=20))
    assert taken(rule, cold) == 3


def test_one_run_cannot_agree_with_itself() -> None:
    rule = Warmup(asked(warmup=1, max_warmup=1))
    assert taken(rule, USUAL) == 1
    assert rule.settled is False


def test_a_warm_up_of_so_many_seconds() -> None:
    rule = Warmup(asked(warmup=1, warmup_s=0.005))
    assert taken(rule, USUAL) == 5  # 1880 + 958 + 918 + 949 + 909 us
    assert rule.settled is None
    assert taken(Warmup(asked(warmup=7, warmup_s=0.001)), USUAL) == 7
    assert taken(Warmup(asked(warmup=1, warmup_s=0.005)), USUAL, gap_ns=10**6) == 3  # by the clock


def test_seconds_go_before_the_bound_of_agreement() -> None:
    rule = Warmup(asked(warmup=1, warmup_s=0.005, max_warmup=2))
    assert taken(rule, USUAL) == 5
    assert rule.settled is True


# Samples


def test_samples_of_a_fixed_number() -> None:
    rule = Sampling(asked(runs=10))
    assert taken(rule, USUAL) == 10
    assert (rule.goal, rule.fewest) == ("10", 10)
    assert not Sampling(asked(runs=0)).begins


def test_tflite_takes_fifty_runs_and_a_second() -> None:
    pass_ = asked(warmup=1, runs=50, warmup_s=0.5, pass_s=1, max_pass_s=150)
    assert taken(Sampling(pass_), [10] * 200, 10**6) == 100
    assert taken(Sampling(pass_), [40] * 200, 10**6) == 50
    assert taken(Sampling(pass_), [4000] * 200, 10**6) == 38  # 152 s
    assert taken(Warmup(pass_), [200] * 9, 10**6) == 3
    assert taken(Warmup(pass_), [700] * 9, 10**6) == 1


def test_the_bound_of_seconds_is_by_the_clock_and_the_least_is_of_samples() -> None:
    assert taken(Sampling(asked(runs=1, pass_s=0.004)), [1000] * 9, gap_ns=10**6) == 4
    assert taken(Sampling(asked(runs=9, max_pass_s=0.004)), [1000] * 9, gap_ns=10**6) == 2
    assert taken(Sampling(asked(runs=9, max_pass_s=0.004)), [9000] * 9) == 1  # never none


def test_there_are_never_more_samples_than_fit_a_message() -> None:
    assert taken(Sampling(asked(runs=1, pass_s=3600)), [0] * 100_001) == 100_000
    assert taken(Warmup(asked(warmup_s=3600)), [0] * 100_001) == 100_000
    assert taken(Sampling(asked(runs=5, pass_s=3600, max_runs=30)), [0] * 100) == 30


# stdrel


def nvbench(samples: list[int], unit_s: float, min_time_s: float, max_noise: float = 0.005) -> int | None:
    """Return how many samples NVBench takes: its rule as its sources have it, without regard for speed."""
    noise = []
    for count in range(1, len(samples) + 1):
        seen = samples[:count]
        if count >= 5:
            noise.append(stdev(seen) / mean(seen))
        if count < 10 or sum(seen) * unit_s < min_time_s:
            continue
        if noise[-1] < max_noise:
            return count
        if len(noise) > 64 and count % 16 == 0 and stdev(noise[-512:]) < 0.05 * mean(noise[-512:]):
            return count
    return None


@pytest.mark.parametrize("sigma", [0.003, 0.0052, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("min_time_s", [0.01, 0.3])
def test_stdrel_ends_where_nvbench_does(sigma: float, seed: int, min_time_s: float) -> None:
    rng = random.Random(seed)
    samples = [round(1e6 * rng.lognormvariate(0, sigma)) for _ in range(1000)]
    wanted = nvbench(samples, 1e-9, min_time_s)
    assert wanted is not None
    rule = Sampling(asked(runs=10, pass_s=min_time_s, stop="stdrel"))
    assert taken(rule, samples, unit_ns=1) == wanted


def test_stdrel_on_a_disturbed_machine_waits_for_its_noise_to_rest() -> None:
    rng = random.Random(5)
    samples = [round(1e6 * rng.lognormvariate(0, 0.01) * (1 if rng.random() < 0.9 else 2)) for _ in range(3000)]
    wanted = nvbench(samples, 1e-9, 0.05)
    assert wanted is not None
    assert wanted > 80
    assert taken(Sampling(asked(runs=10, pass_s=0.05, stop="stdrel")), samples, unit_ns=1) == wanted


def test_stdrel_says_nothing_of_four_samples_or_of_nothing() -> None:
    rule = Stdrel()
    for _ in range(4):
        rule.add(100)
    assert not rule.content
    rule.add(100)
    assert rule.content
    zeros = Stdrel()
    for _ in range(200):
        zeros.add(0)
    assert not zeros.content


def test_fifteen_seconds_end_nvbench_in_any_case() -> None:
    samples = [100, 900] * 500
    assert taken(Sampling(asked(runs=10, pass_s=0.5, max_pass_s=15, stop="stdrel")), samples, 10**6) < 70
    assert taken(Sampling(asked(runs=10, pass_s=0.5, max_pass_s=15, stop="stdrel")), [9000] * 9, 10**6) == 2


def test_rules_cost_the_same_after_many_samples() -> None:
    rule = Sampling(asked(runs=10, pass_s=3600, stop="stdrel"))
    took = []
    for begin in (0, 60_000):
        began = time.perf_counter()
        for index in range(begin, begin + 5000):
            rule.enough(1000 + index % 977, index)
        took.append(time.perf_counter() - began)
        for index in range(begin + 5000, 60_000):
            rule.enough(1000 + index % 977, index)
    assert took[1] < 5 * took[0]
    assert took[0] / 5000 < 1e-4


# Blocks


def test_a_usual_call_is_the_median_of_the_warm_half() -> None:
    assert usual_call_ns([9000, 100]) == 100
    assert usual_call_ns([9000, 500, 100, 104]) == 102
    assert usual_call_ns([7]) == 7
    assert usual_call_ns(USUAL) == median(USUAL[10:])


@pytest.mark.parametrize(
    ("call_ns", "overhead_ns", "overheads", "calls"),
    [
        (900_000, 60, 100, 1),
        (6000, 60, 100, 1),
        (5999, 60, 100, 2),
        (1000, 60, 100, 6),
        (1001, 60, 100, 6),
        (999, 60, 100, 7),
        (1000, 60, 0, 1),
        (0, 60, 100, 6000),
        (0, 0, 100, 1),
        (1, 10**9, 10**6, MAX_CALLS),
    ],
)
def test_a_block_lasts_as_long_as_so_many_overheads(call_ns: int, overhead_ns: int, overheads: int, calls: int) -> None:
    assert block_size(call_ns, overhead_ns, overheads) == calls
    if overheads and calls < MAX_CALLS:
        assert calls * max(call_ns, 1) >= overheads * overhead_ns or call_ns == overhead_ns == 0


# The wire


def test_a_plain_pass_is_asked_for_plainly() -> None:
    assert PRESETS["help"].pass_request().to_fields() == {"warmup": 10, "runs": 50}


def test_all_of_a_pass_comes_over_the_wire() -> None:
    policy = TimingPolicy(
        "all", 2, 10, 0.25, 3, 12,
        max_warmup=9, warmup_s=0.5, pass_s=1, max_pass_s=15, max_runs=500, stop="stdrel", overheads=100,
    )  # fmt: skip
    one = policy.pass_request()
    assert len(one.to_fields()) == 9
    assert PassRequest.read(Fields(one.to_fields())) == one
    assert PassRequest.read(Fields({"warmup": 1, "runs": 2, "stop": None, "pass_s": None})) == PassRequest(1, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup", -1),
        ("runs", 100_001),
        ("runs", None),
        ("max_warmup", 1.5),
        ("warmup_s", "long"),
        ("pass_s", 3601),
        ("max_pass_s", -1),
        ("max_runs", 10**9),
        ("stop", "entropy"),
        ("stop", ""),
        ("overheads", True),
    ],
)
def test_passes_that_no_worker_takes(field: str, value: object) -> None:
    with pytest.raises(AgentError, match=field) as caught:
        PassRequest.read(Fields({"warmup": 1, "runs": 2, field: value}))
    assert caught.value.kind == "bad_request"


def test_how_many_samples_a_pass_may_have() -> None:
    fixed = asked(warmup=2, runs=10)
    assert (fixed.fewest_runs, fixed.most_runs, fixed.most_warmup) == (10, 10, 2)
    assert replace(fixed, pass_s=1).most_runs == replace(fixed, stop="stdrel").most_runs == 100_000
    assert replace(fixed, pass_s=1, max_runs=70).most_runs == 70
    assert replace(fixed, max_runs=70).most_runs == 10
    assert replace(fixed, max_pass_s=1).fewest_runs == 1
    assert replace(fixed, max_warmup=9).most_warmup == 9
    assert replace(fixed, warmup_s=1).most_warmup == 100_000
