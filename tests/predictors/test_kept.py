"""Tests of arrays that are kept on disk from one process to the next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latlab.predictors.common import kept as module
from latlab.predictors.common.kept import Arrays, keep_in, kept
from latlab.predictors.roost.prior import synthetic_prior
from latlab.search_spaces import get


class Maker:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Arrays:
        self.made += 1
        return {"a": np.arange(3.0), "b": np.array([True, False])}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = module._folder
    keep_in(lambda: tmp_path / "cache")
    yield tmp_path / "cache" / "arrays"
    keep_in(before)


def test_they_are_made_once(folder: Path) -> None:
    make = Maker()
    for _ in range(2):
        found = kept("priors of x", (Maker,), make)
        assert found["a"].tolist() == [0.0, 1.0, 2.0]
        assert found["b"].dtype == bool
    assert make.made == 1
    kept("priors of y", (Maker,), make)
    assert make.made == 2
    assert len(list(folder.iterdir())) == 2


def test_other_code_makes_them_again_in_the_same_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    kept("x", (Maker,), make)
    monkeypatch.setattr(module, "_digest", lambda _: b"changed")
    kept("x", (Maker,), make)
    assert make.made == 2
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04 pickled", None])
def test_a_damaged_file_is_made_again(folder: Path, content: bytes | None) -> None:
    make = Maker()
    kept("x", (Maker,), make)
    (path,) = folder.iterdir()
    if content is None:
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    assert kept("x", (Maker,), make)["a"].tolist() == [0.0, 1.0, 2.0]
    assert make.made == 2
    kept("x", (Maker,), make)
    assert make.made == 2


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    before, make = module._folder, Maker()
    (tmp_path / "file").write_text("")
    keep_in(lambda: tmp_path / "file")
    try:
        assert kept("x", (Maker,), make)["a"].tolist() == [0.0, 1.0, 2.0]
    finally:
        keep_in(before)
    assert os.listdir(tmp_path) == ["file"]


def test_a_kept_prior_is_the_one_that_was_made(folder: Path) -> None:
    space = get("nasbench201")
    synthetic_prior.cache_clear()
    made = synthetic_prior(space, seed=1)
    synthetic_prior.cache_clear()
    read = synthetic_prior(space, seed=1)
    assert len(list(folder.iterdir())) == 1
    for one, other in ((made, read),):
        np.testing.assert_array_equal(one.sample, other.sample)
        np.testing.assert_array_equal(one.of_constant, other.of_constant)
        np.testing.assert_array_equal(one.broad.covariance, other.broad.covariance)
        assert len(one.clusters) == len(other.clusters) > 1
        for mine, its in zip(one.clusters, other.clusters, strict=True):
            np.testing.assert_array_equal(mine.covariance, its.covariance)
            assert (mine.kind, mine.weight, mine.scales) == (its.kind, its.weight, its.scales)
    synthetic_prior.cache_clear()
