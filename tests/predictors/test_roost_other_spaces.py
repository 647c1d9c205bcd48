"""ROOST with labels of the target in another space: its algebra, what it gains, and what it must not lose."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from latlab.predictors.base import FloatArray, IntArray, OtherSpace
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman
from latlab.predictors.roost import Roost, other_spaces
from latlab.predictors.roost import prior as prior_module
from latlab.predictors.roost.joint_prior import are_related, joint_prior
from latlab.predictors.roost.other_spaces import DISAGREEMENT, INFLATED, marginals
from latlab.predictors.roost.posterior import LEVEL, condition, condition_each
from latlab.predictors.roost.prior import Component, SyntheticPrior, mixture, synthetic_prior
from latlab.predictors.synthetic.devices import synthesise, synthesise_jointly
from latlab.predictors.synthetic.workload import workload_of, workloads_of
from latlab.search_spaces import get

CELLS, LAYERS = get("nasbench201"), get("fbnet")


def simple_prior(components: tuple[Component, ...], broad: Component) -> SyntheticPrior:
    d = len(broad.mean)
    return SyntheticPrior(np.ones(d), np.eye(d), components, broad, 0.01 * np.eye(d), np.zeros(d, dtype=bool))


# The algebra


def test_the_other_table_is_the_conditional_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    # Known noise that is much larger than any sigma, and a narrow prior: then nothing is mixed, and all is linear.
    rng = np.random.default_rng(0)
    mean = np.array([1.0, 2.0, 1.5, 0.5])
    root = 0.08 * rng.standard_normal((4, 4)) * mean[:, None]
    covariance = root @ root.T
    one = Component("synthetic", mean, covariance, 1.0, (1.0,))
    monkeypatch.setitem(prior_module.WEIGHTS, "broad", 1e-200)
    features = rng.uniform(0.5, 2, (300, 2))
    truth = mean + root @ rng.standard_normal(4)
    noise = 0.5
    log_latency = np.log(7 * features @ truth[:2]) + noise * rng.standard_normal(300)
    own = simple_prior((), Component("broad", mean[2:], covariance[2:, 2:], 1.0, (1.0,)))
    found = marginals(simple_prior((one,), one), own, features, log_latency, np.full(300, noise**2))

    level = np.exp(np.mean(log_latency - np.log(features @ mean[:2])))
    prior = level**2 * (covariance + LEVEL**2 * np.outer(mean, mean))
    beside = np.concatenate([features, np.zeros((300, 2))], axis=1)
    table = level * mean
    for _ in range(20):
        f = beside @ table
        slope = beside / f[:, None]
        gain = prior @ slope.T @ np.linalg.inv(slope @ prior @ slope.T + (noise**2 + INFLATED**2) * np.eye(300))
        table = level * mean + gain @ (log_latency - np.log(f) + slope @ (table - level * mean))
    posterior = prior - gain @ slope @ prior
    scale = table[2:].mean()
    assert [one.level for one in found] == pytest.approx([scale] * len(DISAGREEMENT), rel=0.01)
    for component, (of_level, share) in zip(found, DISAGREEMENT, strict=True):
        relative = table[2:] / scale
        np.testing.assert_allclose(component.mean, relative, rtol=0.01)
        expected = posterior[2:, 2:] / scale**2 + of_level**2 * np.outer(relative, relative) + share * own.pooled
        np.testing.assert_allclose(component.covariance, expected, rtol=0.05)


def test_components_add_up_to_the_mixture() -> None:
    prior = synthetic_prior(CELLS)
    archs = CELLS.sample(10, 1)
    labels = np.log(np.random.default_rng(0).uniform(1, 9, 10))
    arguments = mixture(prior, []), CELLS.features(CELLS.genes(archs)) / prior.scale, labels, np.full(10, 1e-4)
    whole, each = condition(*arguments), condition_each(*arguments)
    assert sum(weight for weight, _, _ in each) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(sum(weight * mean for weight, mean, _ in each), whole.mean, rtol=1e-3, atol=1e-4)
    second = sum(weight * (covariance + np.outer(mean, mean)) for weight, mean, covariance in each)
    np.testing.assert_allclose(second - np.outer(whole.mean, whole.mean), whole.covariance, rtol=1e-2, atol=1e-3)


def test_one_device_is_the_same_in_two_workloads() -> None:
    archs = CELLS.sample(20, 1)
    first, second = synthesise_jointly(workloads_of([(CELLS, archs), (CELLS, archs)]), 30, 5)
    for name in ("latency", "reading", "level"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    alone = synthesise(workload_of(CELLS, archs), 30, 5)
    np.testing.assert_array_equal(synthesise_jointly([workload_of(CELLS, archs)], 30, 5)[0].latency, alone.latency)


def test_spaces_that_have_little_in_common() -> None:
    assert are_related(CELLS, LAYERS)
    assert not are_related(CELLS, get("hat-encoder"))
    assert not are_related(get("hat-encoder"), CELLS)


# Devices that the prior has not seen


class Measured(NamedTuple):
    """Latencies of ten synthetic devices in both spaces, in ms: shape (devices, networks)."""

    cells: IntArray
    cells_ms: FloatArray
    layers: IntArray
    layers_ms: FloatArray

    def told(self, device: int, factor: float = 1.0, shuffled: bool = False) -> OtherSpace:
        labels = factor * self.cells_ms[device, :20]
        return OtherSpace(CELLS, self.cells[:20], np.random.default_rng(1).permutation(labels) if shuffled else labels)


@pytest.fixture(scope="module")
def measured() -> Measured:
    archs = CELLS.sample(20, 3), LAYERS.sample(300, 3)
    cells, layers = synthesise_jointly(workloads_of([(CELLS, archs[0]), (LAYERS, archs[1])]), 10, 99)
    level = (layers.level / cells.level)[:, None]
    return Measured(CELLS.genes(archs[0]), 5 * cells.latency, LAYERS.genes(archs[1]), 5 * level * layers.latency)


@pytest.fixture(scope="module")
def alone() -> Roost:
    return Roost(LAYERS)


@pytest.fixture(scope="module")
def told(measured: Measured) -> list[Roost]:
    """A predictor for each device, which knows the labels of the other space."""
    found = []
    for device in range(len(measured.cells_ms)):
        predictor = Roost(LAYERS)
        predictor.use_other_spaces([measured.told(device)])
        found.append(predictor)
    return found


def ranks(predictor: Roost, measured: Measured, device: int, labels: int) -> float:
    predictor.adapt(measured.layers[:labels], measured.layers_ms[device, :labels])
    rest = predictor.predict(measured.layers[labels:]).mean_ms
    return spearman(rest, measured.layers_ms[device, labels:])


def test_without_a_label_it_knows_ranks_and_level(measured: Measured, alone: Roost, told: list[Roost]) -> None:
    rank, error, covered = [], [], []
    for device, predictor in enumerate(told):
        predictor.adapt([], [])
        truth, found = measured.layers_ms[device], predictor.predict(measured.layers)
        assert np.isfinite(found.upper_ms).all()
        assert (found.lower_ms > 0).all()
        assert np.median(found.upper_ms / found.lower_ms) > 2, "nothing was measured in this space"
        rank.append(spearman(found.mean_ms, truth))
        error.append(mape_percent(found.mean_ms, truth))
        covered.append(coverage_percent(found, truth))
    without = [ranks(alone, measured, device, 0) for device in range(len(told))]
    assert np.mean(rank) > np.mean(without) + 0.05
    assert np.mean(error) < 45
    assert np.mean(covered) > 85


def test_labels_of_both_spaces_are_better_than_of_one(measured: Measured, alone: Roost, told: list[Roost]) -> None:
    devices = range(len(told))
    for labels, gain in ((3, 0.0), (5, -0.003), (10, -0.003)):
        with_both = np.mean([ranks(told[device], measured, device, labels) for device in devices])
        assert with_both > np.mean([ranks(alone, measured, device, labels) for device in devices]) + gain


def test_unrelated_labels_do_little_harm(measured: Measured, alone: Roost) -> None:
    lost = []
    for device in range(4):
        misled = Roost(LAYERS)
        misled.use_other_spaces([measured.told(device, factor=30, shuffled=True)])
        lost.append(ranks(alone, measured, device, 10) - ranks(misled, measured, device, 10))
        truth = measured.layers_ms[device, 10:]
        assert mape_percent(misled.predict(measured.layers[10:]).mean_ms, truth) < 15, "the level is that of ten labels"
    assert np.mean(lost) < 0.02


def test_the_level_is_that_of_the_labels(measured: Measured, told: list[Roost]) -> None:
    told[0].adapt([], [])
    other = Roost(LAYERS)
    other.use_other_spaces([measured.told(0, factor=1000)])
    np.testing.assert_allclose(
        other.predict(measured.layers).mean_ms, 1000 * told[0].predict(measured.layers).mean_ms, rtol=1e-6
    )


# Manners


def test_without_others_nothing_changes(measured: Measured, alone: Roost) -> None:
    predictor = Roost(LAYERS)
    predictor.use_other_spaces([measured.told(0)])
    assert predictor.other_spaces == {"nasbench201": 20 - int(CELLS.constant(measured.cells).sum())}
    predictor.use_other_spaces([])
    assert predictor.other_spaces == {}
    for labels in (0, 8):
        for one in (alone, predictor):
            one.adapt(measured.layers[:labels], measured.layers_ms[0, :labels])
        for name in ("mean_ms", "std_ms", "lower_ms", "upper_ms"):
            ours, theirs = (getattr(one.predict(measured.layers), name) for one in (alone, predictor))
            np.testing.assert_array_equal(ours, theirs)


def test_labels_that_are_not_used(measured: Measured, alone: Roost) -> None:
    predictor = Roost(LAYERS)
    few = OtherSpace(CELLS, measured.cells[:2], measured.cells_ms[0, :2])
    own = OtherSpace(LAYERS, measured.layers[:9], measured.layers_ms[0, :9])
    words = get("hat-encoder")
    unlike = OtherSpace(words, words.genes(words.sample(9, 0)), np.arange(1.0, 10))
    predictor.use_other_spaces([few, own, unlike])
    assert predictor.other_spaces == {}
    with pytest.raises(ValueError, match="positive"):
        predictor.use_other_spaces([OtherSpace(CELLS, measured.cells, -measured.cells_ms[0])])
    with pytest.raises(ValueError, match="same length"):
        predictor.use_other_spaces([OtherSpace(CELLS, measured.cells[:5], measured.cells_ms[0])])


@pytest.mark.parametrize("labels", [0, 6])
def test_a_saved_one_needs_no_labels_of_other_spaces(
    labels: int, measured: Measured, told: list[Roost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = told[1]
    predictor.adapt(measured.layers[:labels], measured.layers_ms[1, :labels])
    predictor.save(tmp_path)
    monkeypatch.setattr(other_spaces, "joint_prior", None)
    loaded = Roost.load(tmp_path, LAYERS)
    assert loaded.other_spaces == predictor.other_spaces
    for name in ("mean_ms", "std_ms", "lower_ms", "upper_ms"):
        theirs, ours = (getattr(one.predict(measured.layers), name) for one in (loaded, predictor))
        np.testing.assert_allclose(theirs, ours, rtol=1e-9)


def test_many_labels_are_thinned(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_spaces, "MOST_LABELS", 5)
    predictor = Roost(LAYERS)
    predictor.use_other_spaces([measured.told(0)])
    assert predictor.other_spaces == {"nasbench201": 5}


def test_the_joint_prior_is_made_once() -> None:
    assert joint_prior(CELLS, LAYERS) is joint_prior(CELLS, LAYERS)
