"""Every predictor passes this suite: what holds for all, and what is asked of those that plan measurements."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from latlab.predictors import Predictor, UnknownPredictorError, create, names
from latlab.predictors.acquisition import choose
from latlab.predictors.bases.fine_tuning import Schedule, Settings
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent
from latlab.search_spaces import Architecture, get

SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3")


def device(archs: Sequence[Architecture], noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Latencies in ms of a synthetic device: a rate per kind of layer, and a cost per operator."""
    rng = np.random.default_rng(seed)
    space = get(archs[0].space)
    latency = []
    for arch in archs:
        layers = space.layers(arch, live=True)
        work = sum(x.macs / (1e6 if x.kind == "depthwise" else 8e6) + x.bytes / 8e6 for x in layers)
        latency.append(0.2 + work + 0.01 * len(layers))
    return np.array(latency) * np.exp(noise * rng.standard_normal(len(latency)))


PLANNERS = ("ridge",)
"""They have a posterior of their own; scores (`ScorePredictor`) borrow one, and some are meant to be poor."""


_FEW = Schedule(epochs=2, batch=32, rate=1e-3, decay=0.0)
SHORT = {"ofa-mlp": {"steps": 60}, "brp-nas": {"settings": Settings(_FEW, _FEW, scratch=_FEW)}}
"""Options of predictors that train for most of a minute on a target alone."""


@pytest.fixture(params=PLANNERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=names())
def any_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fitted(name: str, space: str, n: int = 20, noise: float = 0.02) -> tuple[Predictor, list[Architecture]]:
    predictor = create(name, get(space), **SHORT.get(name, {}))
    support = get(space).sample(n, 1)
    predictor.adapt(support, device(support, noise))
    return predictor, support


@pytest.mark.parametrize("space", SPACES)
def test_learns_a_device_from_few_measurements(name: str, space: str) -> None:
    predictor, _ = fitted(name, space, 30)
    test = get(space).sample(300, 7)
    prediction, truth = predictor.predict(test), device(test)
    assert spearman(prediction.mean_ms, truth) > 0.93
    assert mape_percent(prediction.mean_ms, truth) < 12
    assert (prediction.std_ms > 0).all()
    assert (prediction.lower_ms < prediction.mean_ms).all()
    assert (prediction.mean_ms < prediction.upper_ms).all()


def test_intervals_cover(name: str) -> None:
    covered = []
    for seed in range(8):
        space = get("nasbench201")
        archs = space.sample(430, seed)
        latency = device(archs, 0.05, seed)
        predictor = create(name, space)
        predictor.adapt(archs[:30], latency[:30])
        covered.append(coverage_percent(predictor.predict(archs[30:]), latency[30:]))
    assert 80 <= np.mean(covered) <= 99


def test_more_measurements_less_variance(name: str) -> None:
    test = get("fbnet").sample(50, 3)
    few, many = (fitted(name, "fbnet", n)[0].covariance(test, test) for n in (5, 60))
    assert np.trace(many) < np.trace(few)


def test_covariance_is_one(name: str) -> None:
    predictor, _ = fitted(name, "nasbench201")
    archs = get("nasbench201").sample(40, 5)
    covariance = predictor.covariance(archs, archs)
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-8


def test_leave_one_out_is_what_refitting_without_one_gives(name: str) -> None:
    """With the hyper-parameters held, the closed form equals leaving each out by hand."""
    predictor, support = fitted(name, "nasbench201", 12)
    closed = predictor.leave_one_out()
    latency = device(support, 0.02)
    by_hand = []
    for i in range(12):
        rest = create(name, get("nasbench201"))
        rest.adapt(support[:i] + support[i + 1 :], np.delete(latency, i))
        by_hand.append(rest.predict([support[i]]).mean_ms[0])
    # Refitting moves the hyper-parameters a little, so they agree closely but not exactly.
    assert spearman(closed.mean_ms, np.array(by_hand)) > 0.85
    assert np.median(np.abs(np.log(closed.mean_ms / np.array(by_hand)))) < 0.05


def test_noisy_labels_count_less(name: str) -> None:
    space = get("nasbench201")
    support = space.sample(30, 1)
    latency = device(support)
    wrong = latency.copy()
    wrong[:6] *= np.exp(np.random.default_rng(0).normal(0, 1, 6))
    stderr = np.where(np.arange(30) < 6, 1.0 * wrong, 0.01 * wrong)
    test = space.sample(200, 9)
    told, untold = create(name, space), create(name, space)
    told.adapt(support, wrong, stderr)
    untold.adapt(support, wrong)
    truth = device(test)
    assert mape_percent(told.predict(test).mean_ms, truth) < mape_percent(untold.predict(test).mean_ms, truth)


def test_save_and_load(any_name: str, tmp_path: Path) -> None:
    predictor, _ = fitted(any_name, "fbnet")
    test = get("fbnet").sample(20, 3)
    predictor.save(tmp_path / "p")
    again = type(predictor).load(tmp_path / "p", get("fbnet"))
    assert np.array_equal(again.predict(test).upper_ms, predictor.predict(test).upper_ms)
    assert not [f for f in (tmp_path / "p").iterdir() if f.suffix in (".pkl", ".pt")]
    with pytest.raises(ValueError, match="not of nasbench201"):
        type(predictor).load(tmp_path / "p", get("nasbench201"))


def test_bad_labels_are_refused(any_name: str) -> None:
    predictor = create(any_name, get("nasbench201"))
    support = get("nasbench201").sample(3, 0)
    for bad in ([1.0, 2.0], [1.0, 2.0, 0.0], [1.0, 2.0, float("nan")], [1.0, 2.0, -1.0]):
        with pytest.raises(ValueError, match="lat"):
            predictor.adapt(support, bad)


def test_without_measurements_it_is_wide_or_refused(any_name: str) -> None:
    predictor, archs = create(any_name, get("nasbench201")), get("nasbench201").sample(3, 0)
    refusal, prediction = "", None
    try:
        prediction = predictor.predict(archs)
    except ValueError as error:
        refusal = str(error)
    if prediction is None:
        assert "nothing has been measured" in refusal
    else:  # it has a prior to speak from
        assert (prediction.upper_ms > 2 * prediction.lower_ms).all()


def test_unknown_name() -> None:
    with pytest.raises(UnknownPredictorError, match="ridge"):
        create("crystal-ball", get("nasbench201"))


# Acquisition


def posterior_variance(name: str, support: list[Architecture], test: list[Architecture]) -> float:
    predictor = create(name, get(test[0].space))
    predictor.adapt(support, device(support, 0.02))
    return float(np.mean(np.diag(predictor.covariance(test, test))))


def test_choice_beats_chance(name: str) -> None:
    space = get("nasbench201")
    pool, reference, test = space.sample(400, 0), space.sample(200, 1), space.sample(200, 2)
    chosen = [pool[i] for i in choose(create(name, space), pool, reference, 8)]
    assert len(set(chosen)) == 8
    by_chance = [posterior_variance(name, random.Random(s).sample(pool, 8), test) for s in range(5)]
    assert posterior_variance(name, chosen, test) < np.median(by_chance)


def test_first_choices_are_diverse(name: str) -> None:
    space = get("fbnet")
    pool = space.sample(300, 0)
    chosen = choose(create(name, space), pool, space.sample(200, 1), 4)
    macs = [sum(layer.macs for layer in space.layers(pool[i])) for i in chosen]
    everyone = [sum(layer.macs for layer in space.layers(arch)) for arch in space.sample(300, 0)]
    assert np.std(macs) > np.std(everyone)


def test_pending_counts_as_measured(name: str) -> None:
    predictor, support = fitted(name, "nasbench201", 10)
    pool = [a for a in get("nasbench201").sample(200, 4) if a not in set(support)]
    one, two = (pool[i] for i in choose(predictor, pool, pool[:100], 2))
    rest = [a for a in pool if a != one]
    assert rest[choose(predictor, rest, pool[:100], 1, pending=[one])[0]] == two


def test_metrics_know_their_answers() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(a, a**3) == pytest.approx(1)
    assert np.isnan(spearman(a, np.ones(4)))
    assert mape_percent(a * 1.1, a) == pytest.approx(10)
    assert within_percent(np.array([1.05, 2.5, 3.0, 4.0]), a) == 75
