"""Tests of the estimators on recorded samples, against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from scipy.signal import lfilter

from latlab.harness.statistics import estimators as statistics
from latlab.harness.statistics.estimators import (
    ar1_inflation,
    autocorrelation,
    between_stderr,
    needs_pass,
    summarise,
    t_quantile,
    trimmed_mean,
    variance_inflation,
    winsorised_stderr,
)
from latlab.harness.timing_policy import TimingPolicy

# One NAS-Bench-201 network in ONNX Runtime on a busy 2-core machine, in ns: a sitting of 50 runs after 10 discarded...
SITTING = [
    *(881805, 797120, 770091, 787455, 773674, 865946, 790469, 822692, 987925, 785759, 833357, 776013, 782786, 793200),
    *(775957, 863100, 776378, 750719, 742612, 770177, 1095551, 916824, 799393, 773842, 850138, 796903, 768473, 774747),
    *(776137, 851107, 767206, 775416, 766527, 944095, 858078, 774882, 750434, 772324, 769985, 887262, 801470, 934242),
    *(769370, 751871, 860900, 933284, 792299, 774699, 755421, 835486),
]
# ...and five passes of 10 runs, the first of which fell into a burst.
PASSES = [
    [1518420, 1307000, 1090456, 1489304, 1182196, 1083143, 1124222, 1238452, 1010834, 990783],
    [949929, 775206, 813540, 776106, 746835, 856350, 773746, 775254, 791872, 784483],
    [848104, 789223, 788181, 767924, 884889, 806969, 778116, 782479, 2649542, 857056],
    [1033572, 777135, 768740, 760813, 900310, 812652, 786958, 775051, 761063, 845339],
    [891481, 775145, 758507, 757248, 742886, 982717, 781645, 747476, 755188, 800195],
]


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.25, 0.49])
@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 19, 50])
def test_trimmed_mean_is_scipys(trim: float, count: int) -> None:
    assert trimmed_mean(SITTING[:count], trim) == pytest.approx(scipy.stats.trim_mean(SITTING[:count], trim), rel=1e-12)


def test_trimmed_mean_cuts_whole_samples_where_binary_fractions_fall_short() -> None:
    # .3 x 10 is 2.999...: scipy cuts 2 samples there, and means it; three are meant.
    assert trimmed_mean([0, 0, 0, 1, 2, 3, 4, 90, 90, 90], 0.3) == pytest.approx(2.5)


@pytest.mark.parametrize("trim", [-0.1, 0.5, 1.0])
def test_trim_must_leave_something(trim: float) -> None:
    with pytest.raises(ValueError, match="trim"):
        trimmed_mean(SITTING, trim)


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no samples"):
        trimmed_mean([], 0.1)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2])
def test_winsorised_stderr_is_yuens(trim: float) -> None:
    """scipy's trimmed two-sample test divides by sqrt(d_a + d_b), Yuen's squared standard errors."""
    for other in PASSES[1:]:
        statistic = scipy.stats.ttest_ind(SITTING, other, equal_var=False, trim=trim).statistic
        difference = trimmed_mean(SITTING, trim) - trimmed_mean(other, trim)
        ours = math.hypot(winsorised_stderr(SITTING, trim), winsorised_stderr(other, trim))
        assert difference / ours == pytest.approx(statistic, rel=1e-9)


def test_winsorised_stderr_by_hand() -> None:
    # 1 2 3 4 100 with one cut at each end: Winsorised 2 2 3 4 4, SSD 4, h = 3.
    assert winsorised_stderr([100, 1, 3, 2, 4], 0.2) == pytest.approx(math.sqrt(4 / (3 * 2)))


def test_winsorised_stderr_of_one_sample_is_not_known() -> None:
    assert winsorised_stderr([5], 0.1) == 0.0
    assert winsorised_stderr([5, 6, 7], 0.4) == 0.0


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.9, 0.95, 0.975, 0.9995])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30, 31, 199, 200, 201, 2000])
def test_t_quantile_is_scipys(p: float, freedom: int) -> None:
    assert t_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-7, abs=1e-12)


@pytest.mark.parametrize(("p", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_t_quantile_has_a_domain(p: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="quantile of t"):
        t_quantile(p, freedom)


def test_autocorrelation_is_around_the_mean_of_all_passes() -> None:
    flat = np.ravel(PASSES)
    centred = np.array(PASSES) - flat.mean()
    found = np.sum(centred[:, 1:] * centred[:, :-1]) / np.sum(centred**2) * 50 / 45
    assert autocorrelation(PASSES, 0.0) == pytest.approx((found + 1 / 50) / (1 - 4 / 50))


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_autocorrelation_of_short_passes_is_right_on_average(rho: float) -> None:
    found = [autocorrelation([_ar1(rho, 10, 5 * seed + k) for k in range(5)], 0.0) for seed in range(150)]
    assert np.mean(found) == pytest.approx(rho, abs=0.06)


def test_autocorrelation_has_bounds_and_needs_samples() -> None:
    assert autocorrelation([[1, 2], [3, 4, 5, 6, 7, 8, 9]], 0.0) == 0.0
    assert autocorrelation([[7.0] * 20], 0.1) == 0.0
    assert autocorrelation([[1.0]] * 12, 0.1) == 0.0
    assert autocorrelation([[1.0, 2.0] * 20], 0.1) == -0.3
    assert autocorrelation([[float(k) for k in range(40)]], 0.0) <= 0.95


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("count", [1, 2, 10, 50])
def test_ar1_inflation_is_the_sum_over_lags(rho: float, count: int) -> None:
    expected = 1 + 2 * sum((1 - lag / count) * rho**lag for lag in range(1, count))
    assert ar1_inflation(rho, count) == pytest.approx(expected)


def _ar1(rho: float, count: int, seed: int) -> list[float]:
    noise = np.random.default_rng(seed).standard_normal(count + 100)
    values = lfilter([math.sqrt(1 - rho**2)], [1, -rho], noise)[100:]
    return [float(value) for value in 1000 + 30 * values]


def test_variance_inflation_grows_with_autocorrelation() -> None:
    def mean(rho: float) -> float:
        return float(np.mean([variance_inflation(_ar1(rho, 800, seed), 0.1) for seed in range(60)]))

    assert mean(0.0) == pytest.approx(1.0, abs=0.2)
    # (1 + rho) / (1 - rho) = 4 for long batches; batches of 40 see most of it, trimming takes a little.
    assert 3.0 < mean(0.6) < 4.3


def test_variance_inflation_needs_samples() -> None:
    assert variance_inflation([*SITTING] * 7, 0.1) == 0.0
    assert variance_inflation([5.0] * 500, 0.1) == 0.0


def test_one_sitting_is_what_help_computes() -> None:
    summary = summarise([SITTING], 0.1)
    assert summary.latency_ms == pytest.approx(scipy.stats.trim_mean(SITTING, 0.1) / 1e6, rel=1e-12)
    inflation = ar1_inflation(autocorrelation([SITTING], 0.1), 50)
    error = winsorised_stderr(SITTING, 0.1) * math.sqrt(inflation) / 1e6
    freedom = round(39 / max(1.0, inflation) ** 1.5)
    half = scipy.stats.t.ppf(0.975, freedom) * error
    assert summary.high_ms - summary.latency_ms == pytest.approx(half)
    assert summary.stderr_ms == pytest.approx(half / scipy.stats.norm.ppf(0.975))
    assert (summary.passes, summary.samples) == (1, 50)


def test_a_long_sitting_counts_correlations_that_one_step_does_not_see() -> None:
    wave = [round(1e6 + 20 * math.sin(k / 20) + value) for k, value in enumerate(_ar1(0.0, 1000, 0))]
    summary = summarise([wave], 0.0)
    inflation = variance_inflation(wave, 0.0)
    error = winsorised_stderr(wave, 0.0) * math.sqrt(inflation) / 1e6
    half = scipy.stats.t.ppf(0.975, round(999 / inflation**1.5)) * error
    assert summary.high_ms - summary.latency_ms == pytest.approx(half)
    assert variance_inflation(wave, 0.0) > ar1_inflation(autocorrelation([wave], 0.0), 1000)


def test_a_burst_in_one_pass_of_five_moves_the_latency_little() -> None:
    calm, summary = summarise(PASSES[1:], 0.1), summarise(PASSES, 0.1)
    assert calm.latency_ms == pytest.approx(0.80, abs=0.01)
    assert summary.latency_ms == pytest.approx(scipy.stats.trim_mean(np.ravel(PASSES), 0.1) / 1e6)
    mean_of_means = float(np.mean([trimmed_mean(one, 0.1) for one in PASSES])) / 1e6
    assert mean_of_means - calm.latency_ms > 1.2 * (summary.latency_ms - calm.latency_ms)
    assert summary.stderr_ms > 2 * calm.stderr_ms  # and the error bar knows of it
    assert summary.low_ms < calm.latency_ms < summary.high_ms


def test_between_stderr_without_trimming_is_that_of_the_pass_means() -> None:
    means = [float(np.mean(one)) for one in PASSES]
    assert between_stderr(PASSES, 0.0) == pytest.approx(scipy.stats.sem(means), rel=1e-12)


def test_between_stderr_of_single_samples_is_the_winsorised_one() -> None:
    alone = [[sample] for sample in SITTING]
    kept = 50 - 2 * 5
    expected = winsorised_stderr(SITTING, 0.1) * math.sqrt(50 / 49 * (kept - 1) / kept)
    assert between_stderr(alone, 0.1) == pytest.approx(expected, rel=1e-12)


def test_passes_that_differ_by_much_more_than_their_samples_are_all_that_counts() -> None:
    passes = [[round(1e6 + 1e4 * level + value) for value in _ar1(0.0, 10, level)] for level in (0, 3, 1, 4, 2)]
    summary = summarise(passes, 0.1)
    half = scipy.stats.t.ppf(0.975, 4) * between_stderr(passes, 0.1) / 1e6
    assert (summary.high_ms - summary.low_ms) / 2 == pytest.approx(half, rel=0.25)


def test_passes_that_agree_by_luck_do_not_narrow_the_interval() -> None:
    passes = [[900_000, 1_000_000, 1_100_000] * 4] * 4
    summary = summarise(passes, 0.0)
    assert between_stderr(passes, 0.0) == pytest.approx(0.0)
    inflation = ar1_inflation(autocorrelation(passes, 0.0), 12)
    within = winsorised_stderr([ns for one in passes for ns in one], 0.0) * math.sqrt(inflation) / 1e6
    assert summary.stderr_ms > 0.9 * within > 0


def test_two_passes_that_differ_widen_it() -> None:
    passes = [[1_000_000, 1_000_002] * 5, [1_200_000, 1_200_002] * 5]
    summary = summarise(passes, 0.0)
    assert between_stderr(passes, 0.0) == pytest.approx(100_000)  # half the difference, in ns
    assert summary.high_ms - summary.latency_ms > 0.25


def test_samples_without_scatter_leave_students_t_over_the_passes() -> None:
    summary = summarise([[1_000_000] * 10, [1_100_000] * 10, [1_200_000] * 10], 0.0)
    half = scipy.stats.t.ppf(0.975, 2) * scipy.stats.sem([1.0, 1.1, 1.2])
    assert summary.high_ms - summary.latency_ms == pytest.approx(half)
    assert summarise([[1_000_000] * 10] * 3, 0.1).stderr_ms == 0.0


def test_one_sample_a_pass_is_a_mean_of_few() -> None:
    summary = summarise([[1_000_000], [1_010_000], [1_020_000]], 0.0)
    assert 0.005 < summary.stderr_ms < 0.05


def _adaptive(rho: float, sigma: float, seed: int, policy: TimingPolicy) -> list[list[int]]:
    passes: list[list[int]] = []
    while needs_pass(passes, policy, 0.0):
        z = (np.array(_ar1(rho, policy.runs, 100 * seed + len(passes))) - 1000) / 30
        passes.append(np.rint(1e6 * (1 + sigma * z)).astype(int).tolist())
    return passes


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("sigma", [0.01, 0.04])
def test_the_interval_covers_although_passes_are_added_by_it(rho: float, sigma: float) -> None:
    policy = TimingPolicy("x", warmup=2, runs=10, trim=0.1, passes=3, spread=2, max_passes=5, precision=0.01)
    summaries = [summarise(_adaptive(rho, sigma, seed, policy), 0.1) for seed in range(250)]
    covered = np.mean([one.low_ms < 1.0 < one.high_ms for one in summaries])
    assert 0.91 < covered < 0.99


def test_a_single_sample_has_no_error_bar() -> None:
    summary = summarise([[1_500_000]], 0.1)
    assert (summary.latency_ms, summary.stderr_ms, summary.low_ms) == (1.5, 0.0, 1.5)


@pytest.mark.parametrize("passes", [[], [[]], [[1], []]])
def test_no_samples_no_summary(passes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise(passes, 0.1)


def test_relative_half_width() -> None:
    summary = summarise(PASSES, 0.1)
    assert summary.relative_half_width == pytest.approx((summary.high_ms - summary.latency_ms) / summary.latency_ms)
    assert statistics.summarise([[0]], 0.0).relative_half_width == math.inf


def test_passes_are_added_from_the_floor_to_the_cap_until_the_interval_is_narrow() -> None:
    policy = TimingPolicy("x", warmup=2, runs=10, trim=0.1, passes=3, spread=2, max_passes=5, precision=0.01, max_s=2.0)
    narrow, wide = [_ar1(0.0, 10, seed) for seed in range(5)], PASSES
    narrow = [[1_000_000 + round(value) for value in one] for one in narrow]
    assert [needs_pass(narrow[:count], policy, 0.1) for count in range(6)] == [True, True, True, False, False, False]
    assert [needs_pass(wide[:count], policy, 0.1) for count in range(6)] == [True, True, True, True, True, False]
    assert not needs_pass(wide[:3], policy, 2.0)  # its seconds are used up
    assert needs_pass(wide[:2], policy, 2.0)  # the floor holds all the same


def test_without_a_precision_the_floor_is_enough() -> None:
    policy = TimingPolicy("x", warmup=2, runs=10, trim=0.1, passes=2, spread=1, max_passes=5)
    assert [needs_pass(PASSES[:count], policy, 0.1) for count in range(4)] == [True, True, False, False]
