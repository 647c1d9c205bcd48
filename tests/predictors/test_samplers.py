"""Tests of samplers: what each of them chooses by, and that none chooses twice or what is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latlab.predictors import SourceDevice, create
from latlab.predictors.encodings.table import EncodingTable
from latlab.predictors.samplers import ENCODED, SAMPLERS, Pool, parse_sampler
from latlab.search_spaces import get

SPACE = get("nasbench201")
GENES = SPACE.genes(SPACE.sample(200, 0))
ROWS = np.arange(10, 200)
TAKEN = np.array([12, 13])


def pool() -> Pool:
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(5)
    vectors = np.repeat(centres, 40, axis=0) + rng.standard_normal((200, 5)) * 0.1
    latency = 1.0 + np.arange(200.0)
    sources = [SourceDevice("a", GENES, latency), SourceDevice("b", GENES[50:150], latency[50:150] ** 2)]
    return Pool(
        SPACE,
        GENES,
        ROWS,
        taken=TAKEN,
        predictor=create("ridge", SPACE),
        sources=sources,
        table=EncodingTable("clusters", list("abcde"), GENES, vectors),
        latency_ms=latency,
    )


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("n", [0, 1, 5, 11])
def test_choices_differ_and_are_open(name: str, n: int) -> None:
    sampler = parse_sampler(name)
    rows = sampler.choose(pool(), n, np.random.default_rng(1))
    assert len(rows) == len(set(rows.tolist())) == n
    assert np.isin(rows, np.setdiff1d(ROWS, TAKEN)).all()
    assert np.array_equal(rows, sampler.choose(pool(), n, np.random.default_rng(1)))


@pytest.mark.parametrize("name", [*ENCODED, "random", "params", "designed", "latency-oracle"])
def test_all_that_is_open_can_be_chosen_and_not_more(name: str) -> None:
    few = replace(pool(), rows=np.array([20, 21, 90, 150]))
    assert sorted(parse_sampler(name).choose(few, 4, np.random.default_rng(0)).tolist()) == [20, 21, 90, 150]
    with pytest.raises(ValueError, match="5 of 4 architectures"):
        parse_sampler(name).choose(few, 5, np.random.default_rng(0))


def test_k_means_takes_one_of_each_cluster() -> None:
    rows = parse_sampler("kmeans:zcp").choose(pool(), 5, np.random.default_rng(2))
    assert set((rows // 40).tolist()) == set(range(5))
    both = parse_sampler("diverse:zcp").choose(pool(), 10, np.random.default_rng(2))
    assert set((both[:5] // 40).tolist()) == set(range(5))


def test_buckets_and_quantiles_span_what_they_sort_by() -> None:
    oracle = parse_sampler("latency-oracle").choose(pool(), 4, np.random.default_rng(0))
    assert np.array_equal((np.searchsorted(np.setdiff1d(ROWS, TAKEN), oracle) // 47), range(4))
    by_sources = parse_sampler("latency-quantiles").choose(pool(), 4, np.random.default_rng(0))
    assert np.array_equal(np.sort(by_sources), by_sources)
    assert 20 < by_sources[0] < 60
    assert 150 < by_sources[3] < 190


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "there are: random, params, designed"),
        ("kmeans:nonsense", "unknown encoding 'nonsense'"),
        ("kmeans:", "unknown encoding ''"),
        ("random:zcp", "reads no encoding"),
        ("", "unknown sampler"),
    ],
)
def test_what_is_no_sampler_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_sampler(text)


def test_what_is_missing_is_named() -> None:
    bare = Pool(SPACE, GENES, ROWS)
    rng = np.random.default_rng(0)
    for name, says in (
        ("latency-oracle", "which only `latlab bench` has"),
        ("latency-quantiles", "have measured 0 of the architectures"),
        ("designed", "needs a predictor"),
    ):
        with pytest.raises(ValueError, match=says):
            parse_sampler(name).choose(bare, 3, rng)
    small = EncodingTable("small.csv", ["x"], GENES[:12], np.arange(12.0)[:, None])
    with pytest.raises(ValueError, match=r"small\.csv has 2 of"):
        parse_sampler("cosine:zcp").choose(replace(bare, table=small), 3, rng)
