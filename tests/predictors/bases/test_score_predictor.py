"""Scores become milliseconds: from one label on, whatever the outliers, in the order of the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.common.metrics import coverage_percent
from latlab.search_spaces import get

SPACE = get("nasbench201")
ARCHS = SPACE.genes(SPACE.sample(1000, 3))
WEIGHTS = np.array([0.0, 0.1, 1.0, 4.0, 0.3])


class Known(ScorePredictor):
    """A score in odd units that is the truth."""

    name: ClassVar[str] = "known"
    title: ClassVar[str] = "test"

    def _scores(self, genes: IntArray) -> FloatArray:
        return 1e4 + 50 * WEIGHTS[genes].sum(axis=1)


class Learned(ScorePredictor):
    """Least squares of the labels on counts of operations; too flexible for few labels."""

    name: ClassVar[str] = "learned"
    title: ClassVar[str] = "test"
    folds: ClassVar[int] = 5

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        level = log_latency.mean() if len(log_latency) else 0.0
        self.weights = np.linalg.lstsq(self._counts(genes), log_latency - level, rcond=1e-6)[0]

    def _counts(self, genes: IntArray) -> FloatArray:
        return np.asarray((genes[:, :, None] == np.arange(5)).reshape(len(genes), 30), dtype=np.float64)

    def _scores(self, genes: IntArray) -> FloatArray:
        return np.asarray(self._counts(genes) @ self.weights)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self.weights}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.weights = arrays["weights"]


def latency(genes: IntArray, noise: float = 0.0, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    return np.asarray(np.exp(1 + 0.1 * WEIGHTS[genes].sum(axis=1) + noise * random.standard_normal(len(genes))))


@pytest.mark.parametrize("kind", [Known, Learned])
@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_works_from_one_label(kind: type[ScorePredictor], n: int) -> None:
    predictor = kind(SPACE)
    predictor.adapt(ARCHS[:n], latency(ARCHS[:n], 0.02))
    prediction = predictor.predict(ARCHS)
    order = np.argsort(predictor._scores(ARCHS))
    assert (np.diff(prediction.mean_ms[order]) >= 0).all()  # the score's order, at the edges too
    assert np.isfinite(prediction.upper_ms).all()
    assert (prediction.lower_ms < prediction.mean_ms).all()
    assert (prediction.mean_ms < prediction.upper_ms).all()


@pytest.mark.parametrize("kind", [Known, Learned])
def test_without_labels_there_is_no_scale(kind: type[ScorePredictor]) -> None:
    predictor = kind(SPACE)
    predictor.pretrain([])
    with pytest.raises(ValueError, match="nothing has been measured"):
        predictor.predict(ARCHS)


def test_scale_is_learned() -> None:
    predictor = Known(SPACE)
    predictor.adapt(ARCHS[:20], latency(ARCHS[:20], 0.02))
    assert np.allclose(predictor.predict(ARCHS).mean_ms, latency(ARCHS), rtol=0.1)


def test_outliers_do_not_pull_the_line() -> None:
    labels = latency(ARCHS[:20], 0.02)
    labels[:3] *= 8
    predictor = Known(SPACE)
    predictor.adapt(ARCHS[:20], labels)
    error = np.abs(np.log(predictor.predict(ARCHS).mean_ms / latency(ARCHS)))
    assert np.median(error) < 0.15


def test_slope_is_never_negative() -> None:
    predictor = Known(SPACE)
    predictor.adapt(ARCHS[:10], 1 / latency(ARCHS[:10]))
    order = np.argsort(predictor._scores(ARCHS))
    assert (np.diff(predictor.predict(ARCHS).mean_ms[order]) >= 0).all()


@pytest.mark.parametrize(("kind", "n"), [(Known, 5), (Known, 20), (Learned, 40)])
def test_intervals_cover(kind: type[ScorePredictor], n: int) -> None:
    covered = []
    for seed in range(12):
        genes = np.random.default_rng(seed).permutation(ARCHS)
        labels = latency(genes, 0.1, seed)
        predictor = kind(SPACE)
        predictor.adapt(genes[:n], labels[:n])
        covered.append(coverage_percent(predictor.predict(genes[n:]), labels[n:]))
    assert 82 <= np.mean(covered) <= 98


def test_leave_one_out_is_refitting_without_one() -> None:
    predictor, labels = Known(SPACE), latency(ARCHS[:12], 0.05)
    predictor.adapt(ARCHS[:12], labels)
    closed = predictor.leave_one_out().mean_ms
    for i in range(12):
        kept = np.arange(12) != i
        predictor.adapt(ARCHS[:12][kept], labels[kept])
        # Weights and noise are held in the closed form, so they agree closely but not exactly.
        assert closed[i] == pytest.approx(predictor.predict(ARCHS[i : i + 1]).mean_ms[0], rel=0.02)


def test_folds_tell_an_overfit() -> None:
    """On labels that it has learned by heart its residuals would be 0; the interval must know better."""
    predictor = Learned(SPACE)
    labels = latency(ARCHS[:25], 0.2)
    predictor.adapt(ARCHS[:25], labels)
    prediction = predictor.predict(ARCHS[25:])
    assert np.median(prediction.std_ms / prediction.mean_ms) > 0.15


def test_planner_plans() -> None:
    predictor = Known(SPACE)
    prior = np.trace(predictor.covariance(ARCHS[:30], ARCHS[:30]))
    predictor.adapt(ARCHS[50:70], latency(ARCHS[50:70], 0.02))
    assert 0 < np.trace(predictor.covariance(ARCHS[:30], ARCHS[:30])) < prior
    assert predictor.noise_variance > 0


@pytest.mark.parametrize("kind", [Known, Learned])
def test_save_and_load(kind: type[ScorePredictor], tmp_path: Path) -> None:
    predictor = kind(SPACE, seed=3)
    predictor.adapt(ARCHS[:20], latency(ARCHS[:20], 0.1))
    predictor.save(tmp_path)
    again = kind.load(tmp_path, SPACE)
    assert np.array_equal(again.predict(ARCHS).upper_ms, predictor.predict(ARCHS).upper_ms)
    assert np.array_equal(again.leave_one_out().mean_ms, predictor.leave_one_out().mean_ms)
    with pytest.raises(ValueError, match="not of fbnet"):
        kind.load(tmp_path, get("fbnet"))
    with pytest.raises(ValueError, match="missing"):
        kind.load(tmp_path / "elsewhere", SPACE)
