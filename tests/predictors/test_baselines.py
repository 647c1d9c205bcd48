"""Baselines do what they say: totals, tables of sources, combinations of them, sums over blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latlab.predictors import Predictor, SourceDevice, create
from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.cost_totals import COSTS, totals
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman
from latlab.predictors.common.ridge_regression import ridge
from latlab.predictors.lookup_table import Lookup
from latlab.search_spaces import BlockSpace, SearchSpace, blocks_of, get

SPACES = ("nasbench201", "fbnet", "ofa-mobilenetv3")
FROM_SOURCES = ("source-mean", "stacking")


def block_latency(blocks: BlockSpace, seed: int = 0) -> FloatArray:
    """What a synthetic device takes for each block, in ms; its kernels differ in how well they are made."""
    random = np.random.default_rng(seed)
    rates = random.lognormal(0, 0.5, 3)
    kinds = random.lognormal(0, 0.15, int(blocks.kinds.max()) + 1)
    layers = [blocks.layers(block) for block in blocks.enumerate()]
    macs = np.array([sum(layer.macs for layer in some) for some in layers])
    moved = np.array([sum(layer.bytes for layer in some) for some in layers])
    operators = np.array([len(some) for some in layers])
    return np.asarray(
        (rates[0] * macs / 4e6 + rates[1] * moved / 8e6 + rates[2] * 0.01 * operators) * kinds[blocks.kinds]
    )


def device(space: SearchSpace, genes: IntArray, seed: int = 0, noise: float = 0.0) -> FloatArray:
    """Latencies of whole networks on the device of `block_latency`."""
    blocks = blocks_of(space)
    assert blocks is not None
    costs = np.append(block_latency(blocks, seed), 0.0)
    latency = 0.1 + costs[blocks.ids(genes)] @ blocks.repeats
    return np.asarray(latency * np.exp(noise * np.random.default_rng(seed + 100).standard_normal(len(genes))))


def genes_of(space: SearchSpace, n: int, seed: int = 1) -> IntArray:
    return space.genes(space.sample(n, seed))


@pytest.mark.parametrize("name", [*SPACES, "hat-encoder"])
def test_totals_are_sums_over_layers(name: str) -> None:
    space = get(name)
    archs = space.sample(20, 2)
    found = totals(space)(space.genes(archs))
    for arch, row in zip(archs, found, strict=True):
        layers = space.layers(arch)
        assert list(row) == [*(sum(getattr(layer, cost) for layer in layers) for cost in COSTS[:3]), len(layers)]
    assert np.array_equal(totals(space)(space.genes(archs), "operators", "macs"), found[:, [3, 0]])


@pytest.mark.parametrize(("name", "column"), [("flops", 0), ("params", 1), ("kernels", 3)])
@pytest.mark.parametrize("space", SPACES)
def test_totals_rank(name: str, column: int, space: str) -> None:
    genes = genes_of(get(space), 200)
    predictor = create(name, get(space))
    predictor.adapt(genes[:3], [1.0, 2.0, 3.0])
    order = predictor.predict(genes).mean_ms
    assert spearman(order, totals(get(space))(genes)[:, column]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["flops", "params", "kernels", "lookup"])
def test_many_are_predicted_quickly(name: str) -> None:
    """The aim is 200,000 a second; a busy machine gets a twentieth of that."""
    import time

    space = get("fbnet")
    genes = np.tile(genes_of(space, 500), (80, 1))
    predictor = create(name, space)
    predictor.adapt(genes[:20], device(space, genes[:20]))
    start = time.process_time()
    predictor.predict(genes)
    assert len(genes) / (time.process_time() - start) > 10_000


def sources(space: SearchSpace, count: int = 4, n: int = 150) -> list[SourceDevice]:
    """Each measured other architectures."""
    found = []
    for seed in range(1, count + 1):
        genes = genes_of(space, n, seed)
        found.append(SourceDevice(f"source{seed}", genes, device(space, genes, seed, 0.01)))
    return found


@pytest.fixture(scope="module", params=FROM_SOURCES)
def pretrained(request: pytest.FixtureRequest) -> Predictor:
    predictor = create(request.param, get("fbnet"))
    predictor.pretrain(sources(get("fbnet")))
    return predictor


def test_sources_rank_a_new_device(pretrained: Predictor) -> None:
    space = get("fbnet")
    genes = genes_of(space, 400, 9)
    for n, least in ((1, 0.85), (20, 0.87)):
        pretrained.adapt(genes[:n], device(space, genes[:n], 9))
        assert spearman(pretrained.predict(genes[n:]).mean_ms, device(space, genes[n:], 9)) > least


def test_stacking_finds_the_source_that_is_the_target() -> None:
    space = get("fbnet")
    genes = genes_of(space, 400, 9)
    rank = {}
    for name in FROM_SOURCES:
        predictor = create(name, space)
        predictor.pretrain(sources(space))
        predictor.adapt(genes[:20], device(space, genes[:20], 2))
        rank[name] = spearman(predictor.predict(genes[20:]).mean_ms, device(space, genes[20:], 2))
    assert rank["stacking"] > max(0.95, rank["source-mean"])


@pytest.mark.parametrize("name", FROM_SOURCES)
def test_without_sources_flops_rank(name: str) -> None:
    space = get("nasbench201")
    genes = genes_of(space, 100)
    predictor = create(name, space)
    predictor.adapt(genes[:2], [1.0, 2.0])
    macs = totals(space)(genes, "macs")[:, 0]
    assert spearman(predictor.predict(genes).mean_ms, macs) == pytest.approx(1)


def test_sources_are_saved(pretrained: Predictor, tmp_path: Path) -> None:
    space = get("fbnet")
    genes = genes_of(space, 50, 9)
    pretrained.adapt(genes[:10], device(space, genes[:10], 9))
    pretrained.save(tmp_path)
    again = type(pretrained).load(tmp_path, space)
    assert np.array_equal(again.predict(genes).upper_ms, pretrained.predict(genes).upper_ms)


# The lookup table


@pytest.mark.parametrize("name", SPACES)
def test_lookup_learns_blocks_from_networks(name: str) -> None:
    space = get(name)
    genes = genes_of(space, 500)
    predictor = create("lookup", space)
    for n, least in ((3, 0.85), (60, 0.95)):
        predictor.adapt(genes[:n], device(space, genes[:n], 1, 0.01))
        assert spearman(predictor.predict(genes[n:]).mean_ms, device(space, genes[n:], 1)) > least


@pytest.mark.parametrize("name", SPACES)
def test_measured_blocks_need_hardly_a_network(name: str, tmp_path: Path) -> None:
    """Each block was timed with the overhead of a call, which a network pays once; a third was not timed at all."""
    space = get(name)
    blocks = blocks_of(space)
    assert blocks is not None
    measured = 0.03 + block_latency(blocks)
    known = {
        blocks.block_names[i]: measured[i]
        for i in np.random.default_rng(0).permutation(blocks.size)[: blocks.size * 2 // 3]
    }
    genes = genes_of(space, 500)
    told, untold = Lookup(space), Lookup(space)
    told.use_blocks(known)
    zero_shot = told.predict(genes)
    assert mape_percent(zero_shot.mean_ms, device(space, genes)) < 30
    assert coverage_percent(zero_shot, device(space, genes)) > 80
    for predictor in (told, untold):
        predictor.adapt(genes[:5], device(space, genes[:5], noise=0.01))
    truth = device(space, genes[5:])
    assert spearman(told.predict(genes[5:]).mean_ms, truth) > 0.97
    assert mape_percent(told.predict(genes[5:]).mean_ms, truth) < 6
    assert mape_percent(told.predict(genes[5:]).mean_ms, truth) < mape_percent(untold.predict(genes[5:]).mean_ms, truth)
    told.save(tmp_path)
    assert np.array_equal(Lookup.load(tmp_path, space).predict(genes).upper_ms, told.predict(genes).upper_ms)


@pytest.mark.parametrize("factor", [100, 0.001])
def test_lookup_stands_outliers(factor: float) -> None:
    space = get("nasbench201")
    genes = genes_of(space, 400)
    labels = device(space, genes[:20], noise=0.02)
    labels[:2] *= factor
    predictor = create("lookup", space)
    predictor.adapt(genes[:20], labels)
    assert spearman(predictor.predict(genes[20:]).mean_ms, device(space, genes[20:])) > 0.9


def test_lookup_needs_blocks() -> None:
    with pytest.raises(ValueError, match="hat-encoder is none"):
        create("lookup", get("hat-encoder"))


# Ridge regression


def test_ridge_is_the_least_left_one_out_error() -> None:
    random = np.random.default_rng(0)
    x, true = random.standard_normal((30, 12)), random.standard_normal(12)
    y = 5 + x @ true + 0.1 * random.standard_normal(30)
    fit = ridge(x, y)
    assert np.allclose(fit.coefficients, true, atol=0.15)
    assert fit.intercept == pytest.approx(5, abs=0.15)
    nothing = random.standard_normal(30)
    free = np.linalg.lstsq(x - x.mean(axis=0), nothing, rcond=None)[0]
    assert np.linalg.norm(ridge(x, nothing).coefficients) < 0.9 * np.linalg.norm(free)
    assert not ridge(x[:2], y[:2]).coefficients.any()


def test_ridge_heeds_weights_and_outliers() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 3))
    y = x @ [1.0, 2.0, 3.0] + 0.05 * random.standard_normal(40)
    y[:4] += 20
    assert np.allclose(ridge(x, y).coefficients, [1, 2, 3], atol=0.3)
    weight = np.where(np.arange(40) < 4, 1e-6, 1.0)
    assert np.allclose(ridge(x, y, weight).coefficients, [1, 2, 3], atol=0.1)
