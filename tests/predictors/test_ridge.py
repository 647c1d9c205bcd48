"""Bayesian ridge regression: its two ways of solving agree with one another and with finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from latlab.predictors import ridge
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.ridge import Ridge, _scaled, _solve
from latlab.search_spaces import get

FBNET = get("fbnet")


def labels(n: int) -> tuple[IntArray, FloatArray, FloatArray]:
    archs = FBNET.sample(n, 3)
    macs = np.array([sum(layer.macs for layer in FBNET.layers(arch)) for arch in archs])
    rng = np.random.default_rng(0)
    latency = (3 + macs / 1e8) * np.exp(0.02 * rng.standard_normal(n))
    latency[::17] *= 1.5
    return FBNET.genes(archs), latency, latency * rng.uniform(0, 0.03, n)


@pytest.mark.parametrize("n", [30, 90, 200])  # fewer and more than the 73 features
def test_labels_and_features_give_the_same(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    genes, latency, stderr = labels(n)
    found = []
    for by_labels in (True, False):
        monkeypatch.setattr(ridge, "_by_labels", lambda groups, chosen=by_labels: chosen)
        predictor = Ridge(FBNET)
        predictor.adapt(genes, latency, stderr)
        left, new = predictor.leave_one_out(), predictor.predict(FBNET.sample(50, 9))
        found.append([
            left.mean_ms, left.upper_ms, new.mean_ms, new.upper_ms,
            predictor.covariance(genes[:20], genes[:9]), predictor._log_scales, predictor.noise_variance,
        ])  # fmt: skip
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-7)


def test_gradients() -> None:
    genes, latency, stderr = labels(90)
    predictor = Ridge(FBNET)
    groups, y, noise = predictor._groups_of(genes), np.log(latency), (stderr / latency) ** 2 + 1e-3
    theta = np.log([0.5, 0.2, 0.1, 0.03])
    kernels = [group @ group.T for group in groups]

    def loss(theta: FloatArray) -> float:
        scaled = _scaled(groups, theta)
        covariance = scaled @ scaled.T + np.diag(noise)
        return float(0.5 * y @ np.linalg.solve(covariance, y) + 0.5 * np.linalg.slogdet(covariance)[1])

    for found in (_solve(groups, kernels, theta, noise, y), _solve(groups, None, theta, noise, y)):
        assert 0.5 * y @ found.alpha + 0.5 * found.log_determinant == pytest.approx(loss(theta), rel=1e-8)
        for g in range(len(groups)):
            step = 1e-4 * (np.arange(4) == g)
            assert found.gradient[g] == pytest.approx((loss(theta + step) - loss(theta - step)) / 2e-4, rel=1e-4)
