"""Tests of encodings by name: their cache, their scale, and what they tell apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latlab.predictors.common import kept
from latlab.predictors.encodings import arch2vec, cate
from latlab.predictors.encodings import encode as encode_module
from latlab.predictors.encodings.encode import Encoder, columns_of, encode
from latlab.predictors.encodings.names import ENCODINGS
from latlab.predictors.encodings.table import EncodingTable
from latlab.predictors.encodings.vector_cache import VectorCache
from latlab.search_spaces import get

SPACE = get("nasbench201")
GENES = SPACE.genes(SPACE.sample(40, 2))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    before = kept._folder
    kept.keep_in(lambda: tmp_path)
    yield tmp_path
    kept.keep_in(before)


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train for so few steps that a test takes a second."""
    for module in (arch2vec, cate):
        monkeypatch.setattr(module, "STEPS", 30)
        monkeypatch.setattr(module, "training_genes", lambda space, seed: space.genes(space.sample(300, seed)))
        module._trained.cache_clear()
    yield
    for module in (arch2vec, cate):
        module._trained.cache_clear()


@pytest.mark.usefixtures("short_training")
@pytest.mark.parametrize("name", ["arch2vec", "cate"])
@pytest.mark.parametrize("space", ["nasbench201", "fbnet", "ofa-mobilenetv3"])
def test_learned_encodings_tell_architectures_apart_and_repeat(name: str, space: str) -> None:
    chosen = get(space)
    genes = chosen.genes(chosen.sample(20, 1))
    first = encode(chosen, genes, name)
    assert first.shape == (20, 32) == (20, len(columns_of(chosen, name)))
    assert np.isfinite(first).all()
    assert len(np.unique(first.round(5), axis=0)) == 20
    module = arch2vec if name == "arch2vec" else cate
    module._trained.cache_clear()  # the next one is read from the folder
    assert np.array_equal(encode(chosen, genes, name), first)
    kept.keep_in(None)
    module._trained.cache_clear()  # and this one is trained again
    assert np.allclose(encode(chosen, genes, name), first, atol=1e-5)
    assert not np.allclose(encode(chosen, genes, name, seed=1), first, atol=1e-3)
    assert np.allclose(encode(chosen, genes[::-1], name), first[::-1], atol=1e-5)


def test_proxies_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def counted(space: object, arch: object, **more: object) -> dict[str, float]:
        runs.append(str(arch))
        return dict.fromkeys(encode_module.PROXIES, float("nan")) | {"flops": float(len(runs))}

    monkeypatch.setattr(encode_module, "zero_cost_proxies", counted)
    first = encode(SPACE, GENES[:3], "zcp")
    again = encode(SPACE, GENES[:4], "zcp")
    assert len(runs) == 4
    assert np.array_equal(first, again[:3], equal_nan=True)
    encode(SPACE, GENES[:1], "zcp", seed=9)
    assert len(runs) == 5


@pytest.mark.parametrize("harm", ["damaged", "folder", "other width"])
def test_a_cache_that_cannot_be_used_is_no_error(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "encodings.db"
    cache = VectorCache(path, "a")
    if harm == "damaged":
        path.write_bytes(b"no database at all" * 100)
    elif harm == "folder":
        path.mkdir()
    else:
        cache.put(GENES[:2], np.ones((2, 7)))
    assert not cache.get(GENES[:2], 3)[1].any()
    cache.put(GENES[:2], np.ones((2, 3)))
    assert cache.get(GENES[:2], 3)[1].all() == (harm != "folder")


def test_a_cache_keeps_what_others_have_put_by_key(tmp_path: Path) -> None:
    first, second = VectorCache(tmp_path / "c.db", "a"), VectorCache(tmp_path / "c.db", "b")
    first.put(GENES[:2], np.array([[1.0, np.nan], [2.0, 3.0]]))
    found, known = first.get(GENES[:3], 2)
    assert known.tolist() == [True, True, False]
    assert np.array_equal(found[:2], [[1.0, np.nan], [2.0, 3.0]], equal_nan=True)
    assert not second.get(GENES[:2], 2)[1].any()
    with sqlite3.connect(tmp_path / "c.db") as file:
        assert file.execute("SELECT count(*) FROM vectors").fetchone() == (2,)


def test_a_scaled_encoding_is_finite_whatever_a_table_holds() -> None:
    rng = np.random.default_rng(0)
    vectors = np.stack(
        [
            10.0 ** rng.uniform(0, 38, 40),
            rng.standard_normal(40) * 1e-3,
            np.full(40, np.nan),
            np.full(40, 7.0),
            np.where(np.arange(40) == 3, np.nan, rng.standard_normal(40)),
        ],
        axis=1,
    )
    table = EncodingTable("t", ["synflow", "plain", "jacov", "params", "mine"], GENES, vectors)
    scaled = Encoder(SPACE, "zcp", table=table)(GENES)
    assert scaled.shape == (40, 5)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= 4
    assert np.array_equal(np.argsort(scaled[:, 0]), np.argsort(vectors[:, 0]))
    assert (scaled[:, 2:4] == 0).all()
    assert scaled[3, 4] == 0
    with pytest.raises(ValueError, match="lacks 1 of 1"):
        Encoder(SPACE, "zcp", table=table)(SPACE.genes(SPACE.sample(41, 2))[40:])


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="totals, costs, zcp"):
        encode(SPACE, GENES, "zcps")
    with pytest.raises(ValueError, match="by no graph"):
        encode(get("hat-encoder"), get("hat-encoder").genes([]), "arch2vec")
    for name in ENCODINGS:
        assert len(columns_of(SPACE, name)) == len(set(columns_of(SPACE, name)))
