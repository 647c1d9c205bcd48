"""HELP: its shapes, its second-order gradients, devices with missing references, and that it learns to rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from latlab.predictors import SourceDevice, create
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.bases.trunks import Params, trunk_of
from latlab.predictors.common.metrics import spearman
from latlab.predictors.help import Help
from latlab.predictors.help.hardware_embedding import Scale, embedding, impute, label_scale, source_pool
from latlab.predictors.help.meta_learning import Settings, adapted, meta_loss
from latlab.predictors.help.network import Meta, forward, initial
from latlab.predictors.help.published_checkpoint import published_weights
from latlab.search_spaces import get

CELLS = get("nasbench201")
CHAINS = get("fbnet")
BRIEF = Settings(episodes=40, rate=3e-3, check_every=20)


def latency(genes: IntArray, device: int) -> FloatArray:
    """An easy family: two kinds of operation, whose costs devices vary, and a place where all are dearer."""
    small, large, early = np.random.default_rng(device).uniform([0.5, 2, 1], [1, 3, 3])
    costs = np.repeat([small, large, 0.0], [4, 4, 1])[genes]
    return np.asarray((1 + device) * (5 + early * costs[:, :8].sum(axis=1) + costs[:, 8:].sum(axis=1)))


def sources(genes: IntArray, count: int = 4) -> list[SourceDevice]:
    every = np.concatenate([genes, CHAINS.genes(CHAINS.references())])
    return [SourceDevice(f"d{i}", every, latency(every, i)) for i in range(count)]


@pytest.fixture(scope="module")
def trained() -> Help:
    predictor = Help(CHAINS, settings=BRIEF)
    predictor.pretrain(sources(CHAINS.genes(CHAINS.sample(1000, 1))))
    return predictor


@pytest.mark.parametrize(("name", "inputs"), [("nasbench201", 8), ("fbnet", 132), ("ofa-mobilenetv3", 145)])
def test_shapes_are_the_papers(name: str, inputs: int) -> None:
    meta = initial(trunk_of(get(name)), torch.Generator())
    shapes = {key: tuple(value.shape) for key, value in meta.weights.items() if value.ndim == 2}
    trunk = {key: shape for key, shape in shapes.items() if key.startswith(("arch", "gcn"))}
    assert list(trunk.values()) == [(inputs, 100), *[(100, 100)] * (3 if name == "nasbench201" else 1)]
    assert (shapes["device1.weight"], shapes["device2.weight"]) == ((10, 100), (100, 100))
    halves = shapes["head1.arch"], shapes["head1.device"]
    assert halves == ((100, 200), (100, 200))  # 200 -> 200
    assert (shapes["head2.weight"], shapes["head3.weight"]) == ((200, 200), (200, 1))
    assert meta.inference["inference1.weight"].shape == (10, 10)
    assert meta.inference["inference2.weight"].shape == (10, 1206)
    assert {key: value.shape for key, value in meta.rates.items()} == {k: v.shape for k, v in meta.weights.items()}


def test_graph_convolutions_are_those_over_the_whole_graph() -> None:
    genes = CELLS.genes(CELLS.sample(50, 2))
    encoded = torch.from_numpy(CELLS.encode(genes, "graph"))
    adjacency, hidden = torch.zeros(50, 9, 9), torch.zeros(50, 9, 8)
    adjacency[:, :8, :8], adjacency[:, :8, 8] = encoded[:, :, :8], 1
    hidden[:, :8, :7], hidden[:, 8, 7] = encoded[:, :, 8:], 1
    trunk = trunk_of(CELLS)
    weights = initial(trunk, torch.Generator().manual_seed(0)).weights
    for layer in range(1, 5):
        arriving = (adjacency.mT + torch.eye(9)) @ hidden
        hidden = F.relu(arriving @ weights[f"gcn{layer}.weight"] + weights[f"gcn{layer}.bias"])
    tasks = {name: value.expand(2, *value.shape) for name, value in weights.items()}
    for task in trunk(tasks, trunk.inputs(genes)[None]):
        torch.testing.assert_close(task, hidden[:, 8])


def one_task(weights: Params, x: torch.Tensor, device: torch.Tensor) -> torch.Tensor:
    """The network as one would write it for a single device."""
    for name in ("arch1", "arch2"):
        x = F.relu(x @ weights[f"{name}.weight"] + weights[f"{name}.bias"])
    for name in ("device1", "device2"):
        device = F.relu(device @ weights[f"{name}.weight"] + weights[f"{name}.bias"])
    both = torch.cat([x, device.expand(len(x), -1)], dim=1)
    x = F.relu(both @ torch.cat([weights["head1.arch"], weights["head1.device"]]) + weights["head1.bias"])
    x = F.relu(x @ weights["head2.weight"] + weights["head2.bias"])
    return (x @ weights["head3.weight"] + weights["head3.bias"])[:, 0]


def double(meta: Meta) -> Meta:
    parts = (meta.weights, meta.rates, meta.inference)
    return Meta(*({name: value.double().requires_grad_() for name, value in part.items()} for part in parts))


def test_second_order_gradients_are_those_of_a_plain_loop() -> None:
    trunk = trunk_of(CHAINS)
    generator = torch.Generator().manual_seed(0)
    meta = double(initial(trunk, generator))
    x = trunk.inputs(CHAINS.genes(CHAINS.sample(3 * 12, 0))).double().view(3, 12, -1)
    y, device = torch.rand(3, 12, generator=generator).double(), torch.rand(3, 10, generator=generator).double()
    z = torch.randn(3, 603, generator=generator).double()
    params = adapted(trunk, meta, z, x[:, :4], y[:, :4], device, steps=2, train=True)
    loss = ((forward(trunk, params, x[:, 4:], device) - y[:, 4:]) ** 2).mean()

    def naive(weights: Params, rates: Params) -> torch.Tensor:
        losses = []
        for task in range(3):
            own = dict(weights)
            for layer, halves in enumerate((("head1.arch", "head1.device"), ("head2.weight",), ("head3.weight",))):
                for name, part in zip(halves, z[task, 200 * layer : 200 * layer + 200].chunk(len(halves)), strict=True):
                    own[name] = own[name] * (1 + 0.01 * part[:, None])
                own[f"head{layer + 1}.bias"] = own[f"head{layer + 1}.bias"] + 0.01 * z[task, 600 + layer]
            for _ in range(2):
                error = ((one_task(own, x[task, :4], device[task]) - y[task, :4]) ** 2).mean()
                gradients = torch.autograd.grad(error, list(own.values()), create_graph=True)
                own = {name: own[name] - rates[name] * gradient for name, gradient in zip(own, gradients, strict=True)}
            losses.append(((one_task(own, x[task, 4:], device[task]) - y[task, 4:]) ** 2).mean())
        return torch.stack(losses).mean()

    learned = [*meta.weights.values(), *meta.rates.values()]
    expected = naive(meta.weights, meta.rates)
    torch.testing.assert_close(loss, expected)
    found = torch.autograd.grad(loss, learned)
    for one, other in zip(found, torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(one, other)

    # Along one direction, against a finite difference: second-order terms are there.
    step = 1e-6 * torch.randn(meta.weights["head2.weight"].shape, generator=generator).double()
    with torch.enable_grad():
        ends = [
            naive({**meta.weights, "head2.weight": meta.weights["head2.weight"] + s}, meta.rates) for s in (step, -step)
        ]
    slope = (found[list(meta.weights).index("head2.weight")] * step).sum()
    torch.testing.assert_close((ends[0] - ends[1]) / 2, slope, rtol=1e-4, atol=0)


def test_inference_network_learns_by_both_terms() -> None:
    trunk = trunk_of(CELLS)
    generator = torch.Generator().manual_seed(0)
    meta = initial(trunk, generator)
    for tensor in meta.learned(True):
        tensor.requires_grad_()
    x = trunk.inputs(CELLS.genes(CELLS.sample(12, 0))).expand(2, -1, -1, -1)
    y, device = torch.rand(2, 12), torch.rand(2, 10)
    for weight in (0.0, 0.1):
        settings = Settings(kl_weight=weight)
        loss = meta_loss(trunk, meta, (x[:, :4], y[:, :4]), (x[:, 4:], y[:, 4:]), device, generator, settings)
        gradients = torch.autograd.grad(loss, meta.learned(True))
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients[-4:])


def test_ranks_devices_of_an_easy_family(trained: Help) -> None:
    test = CHAINS.genes(CHAINS.sample(300, 5))
    support = np.concatenate([CHAINS.genes(trained.wanted()), CHAINS.genes(CHAINS.sample(10, 6))])
    for device in (7, 8):
        truth = latency(test, device)
        for n in (1, 2, 5, 20):
            trained.adapt(support[:n], latency(support[:n], device))
            prediction = trained.predict(test)
            assert spearman(prediction.mean_ms, truth) > 0.8
            assert np.isfinite(prediction.upper_ms).all()
        assert np.median(np.abs(prediction.mean_ms / truth - 1)) < 0.1
        assert np.isfinite(trained.leave_one_out().mean_ms).all()


def test_same_seed_same_predictions_and_files_keep_them(trained: Help, tmp_path: Path) -> None:
    genes = CHAINS.genes(CHAINS.sample(40, 7))
    few = replace(BRIEF, episodes=3, check_every=1)
    means = []
    for _ in range(2):
        predictor = Help(CHAINS, seed=3, settings=few)
        predictor.pretrain(sources(genes))
        predictor.adapt(genes[:6], latency(genes[:6], 9))
        means.append(predictor.predict(genes).mean_ms)
    assert (means[0] == means[1]).all()
    predictor.save(tmp_path)
    loaded = Help.load(tmp_path, CHAINS)
    assert np.allclose(loaded.predict(genes).mean_ms, means[0])
    loaded.adapt(genes[:12], latency(genes[:12], 4))
    predictor.adapt(genes[:12], latency(genes[:12], 4))
    assert np.allclose(loaded.predict(genes).mean_ms, predictor.predict(genes).mean_ms)
    with pytest.raises(ValueError, match="fbnet"):
        Help.load(tmp_path, CELLS)


def test_as_published_adapts_to_what_is_no_reference(trained: Help) -> None:
    genes = np.concatenate([CHAINS.genes(trained.wanted()), CHAINS.genes(CHAINS.sample(10, 8))])
    rows = np.arange(20)
    scores = []
    for published in (False, True):
        trained.as_published = published
        trained.adapt(genes, latency(genes, 6))
        scores.append(trained._scores(genes[rows]))
        trained._fit(genes, np.log(latency(genes, 6) * np.where(rows == 10, 3, 1)), np.zeros(20))
        assert (trained._scores(genes) != scores[-1]).any()
    trained.as_published = False
    assert (scores[0] != scores[1]).any()
    assert np.corrcoef(*scores)[0, 1] > 0.99


def test_without_sources_cost_is_the_score() -> None:
    predictor = create("help", CELLS)
    genes = CELLS.genes(CELLS.sample(50, 9))
    predictor.pretrain([])
    predictor.adapt(genes[:3], [3.0, 1.0, 2.0])
    assert np.isfinite(predictor.predict(genes).mean_ms).all()
    assert len(predictor.wanted()) == 10


def test_trimmed_pool_and_references_of_a_source() -> None:
    genes = CHAINS.genes(CHAINS.sample(100, 10))
    pool = source_pool(CHAINS, sources(genes)[2], 0.1, 0)
    assert len(pool.genes) == 80
    assert (pool.labels.min(), pool.labels.max()) == pytest.approx((0.05, 0.95))
    assert np.allclose(pool.scale.latency(pool.labels), latency(pool.genes, 2))
    references = np.log(latency(CHAINS.genes(CHAINS.references()), 2))
    assert np.allclose(pool.log_references, references)
    unknown = source_pool(CHAINS, SourceDevice("d2", genes, latency(genes, 2)), 0.1, 0)
    assert np.allclose(unknown.log_references, references, atol=0.15)
    with pytest.raises(ValueError, match="d2 has 2 measurements"):
        source_pool(CHAINS, SourceDevice("d2", genes[:3], latency(genes[:3], 2)), 0.1, 0)


def test_missing_references_follow_from_sources() -> None:
    random = np.random.default_rng(0)
    known, axis = random.normal(size=10), random.normal(size=10)
    devices = np.array([level + known + amount * axis for level, amount in random.normal(size=(12, 2))])
    target = 3 + known + 0.7 * axis
    partly = np.where(np.arange(10) < 5, target, np.nan)
    filled = impute(partly, devices)
    assert (filled[:5] == target[:5]).all()
    assert np.abs(filled - target)[5:].max() < 0.25
    mean = devices.mean(axis=0)
    assert np.allclose(impute(np.full(10, np.nan), devices), mean - mean.mean())
    assert np.allclose(embedding(np.log(np.arange(1, 11.0))), np.arange(10) / 9)


def test_label_scale_agrees_with_the_network_before_adaptation() -> None:
    truth, guess = Scale(2.0, 8.0), np.array([0.1, 0.4, 0.6, 0.9])
    found = label_scale(truth.latency(guess), guess, [Scale(1, 3)])
    assert (found.low, found.high) == pytest.approx((2, 8))
    alone = label_scale(truth.latency(guess[:1]), guess[:1], [Scale(1, 4), Scale(10, 40)])
    assert alone.high / alone.low == pytest.approx(4)
    assert alone.labels(truth.latency(guess[:1])) == pytest.approx(guess[:1])


@pytest.mark.parametrize("content", [b"root:x:0:0\n", b"", b"\x80\x02J\x01", b"}u.", b"PK\x03\x04xx"])
def test_a_checkpoint_of_arbitrary_bytes_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "help_max_corr.pt"
    path.write_bytes(content)
    space = get("nasbench201")
    with pytest.raises(ValueError, match=r"help_max_corr\.pt cannot be read"):
        published_weights(str(path), trunk_of(space, "cpu"), Settings())
