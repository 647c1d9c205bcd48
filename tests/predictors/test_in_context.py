"""The transformer that reads measurements in context: it learns devices in general, and adapts without learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latlab.predictors import SourceDevice
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.metrics import coverage_percent, spearman
from latlab.predictors.in_context.encoding import Encoding
from latlab.predictors.in_context.network import InContextNetwork, Shape, StudentT
from latlab.predictors.in_context.predictor import InContext
from latlab.predictors.in_context.tasks import Tasks, TasksSettings, scale_of
from latlab.predictors.in_context.training import Settings
from latlab.search_spaces import get

SPACE = get("nasbench201")
ARCHS = SPACE.genes(SPACE.sample(1000, 3))
SMALL = TasksSettings(architectures=300, pool=128, components=16)
QUICK = Settings(steps=120, batch=16, queries=32, largest=16, width=32, layers=2, heads=2, tasks=SMALL)
COSTS = {"mixed": (0.0, 0.1, 1.0, 4.0, 0.5), "dense": (0.0, 0.0, 1.0, 7.0, 0.1), "pools": (0.1, 0.1, 1.0, 2.0, 2.0)}


def latency(genes: IntArray, device: str, noise: float = 0.02, seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    total = 3 + np.array(COSTS[device])[genes].sum(axis=1)
    return np.asarray(total * np.exp(noise * random.standard_normal(len(genes))))


def source(device: str, rows: slice = slice(200)) -> SourceDevice:
    return SourceDevice(device, ARCHS[rows], latency(ARCHS[rows], device))


@pytest.fixture(scope="module")
def trained() -> InContext:
    predictor = InContext(SPACE, seed=1, settings=QUICK)
    predictor.pretrain([source("dense"), source("pools", slice(150, 300))])
    return predictor


@pytest.mark.parametrize("n", [1, 3, 20, 40])
def test_reads_a_device_that_it_has_not_seen(trained: InContext, n: int) -> None:
    trained.adapt(ARCHS[-n:], latency(ARCHS[-n:], "mixed"))
    prediction, truth = trained.predict(ARCHS[:900]), latency(ARCHS[:900], "mixed")
    assert spearman(prediction.mean_ms, truth) > (0.9 if n >= 20 else 0.8)
    assert (prediction.lower_ms < prediction.upper_ms).all()
    assert (prediction.std_ms > 0).all()
    if n > 1:
        assert 75 < coverage_percent(prediction, truth) <= 100


def test_unit_of_latency_does_not_matter(trained: InContext) -> None:
    labels = latency(ARCHS[:8], "mixed")
    trained.adapt(ARCHS[:8], labels)
    before = trained.predict(ARCHS[8:20]).mean_ms
    trained.adapt(ARCHS[:8], 1000 * labels)
    assert np.allclose(trained.predict(ARCHS[8:20]).mean_ms, 1000 * before, rtol=1e-4)


def test_order_and_company_do_not_matter(trained: InContext) -> None:
    labels = latency(ARCHS[:12], "mixed")
    trained.adapt(ARCHS[:12], labels)
    together = trained.predict(ARCHS[12:60]).mean_ms
    trained.adapt(ARCHS[11::-1], labels[::-1])
    alone = np.concatenate([trained.predict(ARCHS[i : i + 1]).mean_ms for i in range(12, 60)])
    assert np.allclose(alone, together, rtol=1e-4)
    assert not len(trained.predict(ARCHS[:0]).mean_ms)


def test_leave_one_out_is_adapting_without_one(trained: InContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latlab.predictors.in_context.predictor.CHUNK_CONTEXT", 30)  # several chunks
    labels = latency(ARCHS[:9], "mixed")
    trained.adapt(ARCHS[:9], labels, 0.05 * labels)
    left_out = trained.leave_one_out().mean_ms
    for i in range(9):
        kept = np.arange(9) != i
        trained.adapt(ARCHS[:9][kept], labels[kept], 0.05 * labels[kept])
        assert trained.predict(ARCHS[i : i + 1]).mean_ms[0] == pytest.approx(left_out[i], rel=0.01)


def test_saved_and_loaded(trained: InContext, tmp_path: Path) -> None:
    trained.adapt(ARCHS[:9], latency(ARCHS[:9], "mixed"))
    trained.save(tmp_path)
    loaded = InContext.load(tmp_path, SPACE)
    assert np.allclose(loaded.predict(ARCHS[:50]).upper_ms, trained.predict(ARCHS[:50]).upper_ms, rtol=1e-5)
    assert np.allclose(loaded.leave_one_out().mean_ms, trained.leave_one_out().mean_ms, rtol=1e-5)
    with pytest.raises(ValueError, match="nasbench201, not of fbnet"):
        InContext.load(tmp_path, get("fbnet"))
    facts = tmp_path / "in_context.json"
    facts.write_text(facts.read_text().replace('"layers": 2', '"layers": 3'))
    with pytest.raises(ValueError, match="not hold a predictor of this version"):
        InContext.load(tmp_path, SPACE)


def test_same_seed_same_network() -> None:
    few = Settings(steps=3, batch=2, queries=4, width=16, layers=1, heads=2, tasks=SMALL)
    means = []
    for seed in (0, 0, 1):
        predictor = InContext(SPACE, seed=seed, settings=few)
        predictor.pretrain([source("dense")])
        predictor.adapt(ARCHS[:5], latency(ARCHS[:5], "mixed"))
        means.append(predictor.predict(ARCHS[:20]).mean_ms)
    assert np.array_equal(means[0], means[1])
    assert not np.allclose(means[0], means[2])


def test_without_pretraining_ridge_answers() -> None:
    predictor = InContext(SPACE)
    assert predictor.covariance(ARCHS[:2], ARCHS[:3]).shape == (2, 3)
    with pytest.raises(ValueError, match="nothing has been measured"):
        predictor.predict(ARCHS[:2])
    predictor.adapt(ARCHS[:20], latency(ARCHS[:20], "mixed"))
    assert spearman(predictor.predict(ARCHS).mean_ms, latency(ARCHS, "mixed")) > 0.9
    assert predictor.noise_variance > 0
    assert len(predictor.leave_one_out().mean_ms) == 20


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (SourceDevice("one", ARCHS[:1], np.ones(1)), "one has fewer than two"),
        (SourceDevice("zero", ARCHS[:2], np.array([1.0, 0.0])), "zero: latencies must be positive"),
    ],
)
def test_bad_sources_are_named(bad: SourceDevice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InContext(SPACE, settings=QUICK).pretrain([source("dense"), bad])


def test_tasks_are_about_what_sources_measured() -> None:
    tasks = Tasks(SPACE, [source("dense")], SMALL, np.random.default_rng(0))
    batch = tasks.draw(8, 30)
    assert batch.rows.shape == batch.log_latency.shape == batch.stderr.shape == (8, 30)
    assert all(len(set(row)) == 30 for row in batch.rows)  # a query is never among the measured
    assert tasks.inputs.shape[0] == 300
    measured = tasks.encoding(ARCHS[:200])
    assert all(np.isclose(row, tasks.inputs, atol=1e-5).all(axis=1).any() for row in measured)


def test_components_follow_what_varies() -> None:
    encoding = Encoding.fitted(SPACE, ARCHS)
    plain = encoding.plain(ARCHS)
    random = np.random.default_rng(0)
    hidden = plain[:, [3, 7]] @ random.standard_normal((2, 40))
    encoding.find_components(plain, hidden.T, 2)
    components = encoding(ARCHS)[:, :2]
    fit = components @ np.linalg.lstsq(components, hidden, rcond=None)[0]
    assert np.abs(fit - hidden).max() < 0.2 * hidden.std()


def test_student_t_is_that_of_scipy() -> None:
    from scipy.stats import t

    values = StudentT(torch.tensor([0.3]), torch.tensor([0.5]), torch.tensor([4.0]))
    loss = values.negative_log_likelihood(torch.tensor([1.1]))
    assert float(loss) == pytest.approx(-t.logpdf(1.1, 4, 0.3, 0.5), rel=1e-5)


def test_spread_is_shrunk() -> None:
    assert scale_of(np.array([[1.0]]), 0.5)[0, 0] == pytest.approx(0.5)
    many = np.random.default_rng(0).normal(0, 2, (1, 5000))
    assert scale_of(many, 0.5)[0, 0] == pytest.approx(2, rel=0.05)


def test_queries_see_the_context_only() -> None:
    torch.manual_seed(0)
    network = InContextNetwork(Shape(features=5, width=16, layers=2, heads=2)).eval()
    x, y, device = torch.randn(1, 4, 5), torch.randn(1, 4, 2), torch.zeros(1, 2)
    queries = torch.randn(1, 3, 5)
    with torch.inference_mode():
        context = network.read(x, y, device)
        mean = network(context, queries).mean
        queries[0, 1] += 1
        changed = network(context, queries).mean
    assert torch.equal(mean[0, [0, 2]], changed[0, [0, 2]])
    assert not torch.equal(mean[0, 1], changed[0, 1])
