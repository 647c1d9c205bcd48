"""Tests of the protocols against what the papers' code does, counted by hand on a small table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latlab.harness.bench.protocols import PROTOCOLS
from latlab.harness.bench.tables import LatencyTable, read_table
from latlab.harness.errors import BadInputError
from latlab.predictors import create
from latlab.search_spaces import get


@pytest.fixture(scope="module")
def table(table_file: Path) -> LatencyTable:
    return read_table(table_file, "fbnet")


@pytest.fixture(scope="module")
def help_table() -> LatencyTable:
    """A table of 5,000 rows as HELP's are, with references among the first 4,000; a row's latency is its number."""
    space = get("fbnet")
    archs = [*space.references(), *space.sample(5000, 1)]
    archs = list(dict.fromkeys(archs))[:5000]
    return LatencyTable(
        "synthetic", space, space.genes(archs), {"a": 1 + np.arange(5000.0), "b": 6000 - np.arange(5000.0)}
    )


def test_help_trims_pools_by_each_devices_own_latency(help_table: LatencyTable) -> None:
    protocol = PROTOCOLS["help"]
    for device in ("a", "b"):
        assert sorted(protocol.pool(help_table, device)) == list(range(400, 3600))
        assert sorted(protocol.test(help_table, device, np.arange(3))) == list(range(4100, 4900))
    (source,) = protocol.sources(help_table, ["b"], 4000, seed=0)
    assert len(source.latency_ms) == 3200


def test_help_pays_for_its_references(help_table: LatencyTable) -> None:
    rows = PROTOCOLS["help"].first(help_table, "a", create("ridge", help_table.space))
    assert rows.tolist() == list(range(10))


def test_help_has_one_source_pool(help_table: LatencyTable) -> None:
    with pytest.raises(BadInputError, match="source pool of 4000"):
        PROTOCOLS["help"].sources(help_table, ["a"], 900, seed=0)


def test_nasflat_shares_one_random_set(table: LatencyTable) -> None:
    a, b = PROTOCOLS["nasflat"].sources(table, ["fast", "odd"], 25, seed=1)
    assert np.array_equal(a.genes, b.genes)
    assert len(a.latency_ms) == 25
    with pytest.raises(BadInputError, match="has 75"):
        PROTOCOLS["nasflat"].sources(table, ["fast", "odd"], 100, seed=1)


def test_nasflat_as_published_scores_the_first_128_paid_or_not(table: LatencyTable) -> None:
    paid = np.arange(5)
    assert PROTOCOLS["nasflat_as_published"].test(table, "fast", paid).tolist() == list(range(128))
    assert PROTOCOLS["nasflat"].test(table, "fast", paid).tolist() == list(range(5, 150))


def test_latlab_scores_all_that_was_measured_and_not_paid(table: LatencyTable) -> None:
    paid = np.array([1, 3])
    assert PROTOCOLS["latlab"].test(table, "odd", paid).tolist() == list(range(5, 150, 2))


def test_latlab_sources_have_as_many_samples_as_asked_or_as_there_are(table: LatencyTable) -> None:
    fast, odd = PROTOCOLS["latlab"].sources(table, ["fast", "odd"], 90, seed=1)
    assert (len(fast.latency_ms), len(odd.latency_ms)) == (90, 75)
    few = PROTOCOLS["latlab"].sources(table, ["fast"], 20, seed=1)[0]
    assert np.array_equal(few.genes, fast.genes[:20])
