"""Limits, and the probability that they are kept."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from latlab.harness.errors import BadInputError
from latlab.harness.search.limits import Constraints, Limit, Measured, kept, kept_jointly, limits_of
from latlab.harness.search.wording import short_names
from latlab.predictors import Prediction
from latlab.predictors.common.log_latency import in_ms

LIMIT = Limit("pi/onnxruntime/cpu/fp32/t1/b1", 20.0)


@pytest.mark.parametrize("freedom", [5, 12, 30, 1e9])
def test_the_probability_is_that_of_the_predictors_own_distribution(freedom: float) -> None:
    centre, scale = np.log([5.0, 9.0, 10.0, 14.0]), np.array([0.1, 0.2, 0.05, 0.3])
    found = kept(in_ms(centre, scale**2, freedom, shift=0.0), 10.0)
    np.testing.assert_allclose(found, special.stdtr(freedom, (math.log(10.0) - centre) / scale), atol=0.003)


def test_the_ends_of_the_interval_are_kept_as_often_as_it_says() -> None:
    prediction = in_ms(np.log(np.array([3.0, 30.0])), np.array([0.01, 0.09]), 14.0)
    for end, probability in ((prediction.upper_ms, 0.95), (prediction.lower_ms, 0.05)):
        for row in range(2):
            assert kept(prediction, float(end[row]))[row] == pytest.approx(probability, abs=1e-6)


def test_a_prediction_without_error_keeps_or_not() -> None:
    sure = np.array([4.0, 6.0])
    assert kept(Prediction(sure, 0 * sure, sure, sure), 5.0).tolist() == [1.0, 0.0]


def test_no_prediction_has_no_probability() -> None:
    none = np.empty(0)
    assert kept(Prediction(none, none, none, none), 5.0).shape == (0,)


def test_several_limits_are_kept_jointly() -> None:
    np.testing.assert_allclose(kept_jointly([np.array([0.9, 1.0]), np.array([0.5, 0.8])]), [0.45, 0.8])


def test_a_label_keeps_a_limit_as_often_as_another_session_does() -> None:
    rng = np.random.default_rng(0)
    spread, error, limit = 0.04, 0.01, 10.0
    stated, seen = [], []
    for _ in range(40_000):
        truth = limit * math.exp(rng.uniform(-0.3, 0.3))
        label = truth * math.exp(rng.normal(0, math.hypot(spread, error)))
        stated.append(Measured(label, error * label).kept(limit, spread))
        seen.append(truth * math.exp(rng.normal(0, spread)) <= limit)
    frame = pd.DataFrame({"stated": stated, "seen": seen, "place": np.digitize(stated, [0.2, 0.5, 0.8, 0.95])})
    means = frame.groupby("place")[["stated", "seen"]].mean()
    np.testing.assert_allclose(means["stated"], means["seen"], atol=0.04)
    exact = stats.norm.cdf(math.log(10 / 9.7) / math.sqrt(0.01**2 + 2 * 0.04**2))
    assert Measured(9.7, 0.097).kept(10.0, 0.04) == pytest.approx(exact)
    assert Measured(9.7, 0.097, 3).kept(10.0, 0.04) > exact, "a mean of sessions is nearer to the next"
    assert [Measured(one, 0.0).kept(10.0, 0.0) for one in (9.9, 10.0, 10.1)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit("pi", 0.0), "the limit of pi is 0 ms"),
        (lambda: Limit("pi", -1.0), "the limit of pi is -1 ms"),
        (lambda: Limit("pi", math.nan), "the limit of pi is nan ms"),
        (lambda: Limit("pi", math.inf), "the limit of pi is inf ms"),
        (lambda: Constraints(()), "there is no limit to search under"),
        (lambda: Constraints((LIMIT,), 0.0), "confidence must be between 0 and 1"),
        (lambda: Constraints((LIMIT,), 1.0), "confidence must be between 0 and 1"),
        (lambda: Constraints((LIMIT,), math.nan), "confidence must be between 0 and 1"),
        (lambda: Limit("t", -1.0, "energy_mj"), "the most energy_mj of t must be positive, not -1"),
        (lambda: Constraints((LIMIT,), max_macs=-5.0), "the most MACs must be a positive number"),
        (lambda: Constraints((LIMIT,), max_params=math.nan), "the most parameters must be a positive number"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInputError, match=message):
        make()


def test_each_target_has_its_own_limit_or_that_of_all() -> None:
    named = {"pi": ["pi/onnxruntime/cpu/fp32/t1/b1"], "phone": ["phone/tflite/cpu/fp32/t4/b1"]}
    assert [one.max_ms for one in limits_of(named, 20)] == [20, 20]
    assert [one.max_ms for one in limits_of(named, {"": 20, "phone": 8})] == [20, 8]
    assert [one.max_ms for one in limits_of(named, {"pi": 5, "phone/tflite/cpu/fp32/t4/b1": 8})] == [5, 8]
    several = {"pi": [*named["pi"], "pi/onnxruntime/cpu/fp32/t4/b1"]}
    assert [one.max_ms for one in limits_of(several, {"pi": 9, several["pi"][1]: 4})] == [9, 4]
    with pytest.raises(BadInputError, match="phone has no limit"):
        limits_of(named, {"pi": 5})
    with pytest.raises(BadInputError, match="there is a limit for mars, which is no target"):
        limits_of(named, {"": 5, "mars": 8})


def test_short_names_tell_targets_apart() -> None:
    pi, four, phone = "pi/tflite/cpu/fp32/t1/b1", "pi/tflite/cpu/fp32/t4/b1", "phone/tflite/gpu/fp32/t1/b1"
    assert short_names([pi, pi]) == {pi: ""}
    assert short_names([pi, phone]) == {pi: "pi", phone: "phone"}
    assert short_names([pi, four]) == {pi: "pi t1", four: "pi t4"}
    assert short_names([pi, four, phone]) == {pi: "pi cpu t1", four: "pi cpu t4", phone: "phone gpu t1"}
