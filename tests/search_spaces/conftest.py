"""Fixtures of the search-space tests; every installed space runs through the same suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latlab.search_spaces import SearchSpace, get, names


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=names())
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return get(request.param)


@pytest.fixture
def data() -> Path:
    """The folder of published tables."""
    folder = os.environ.get("LATLAB_DATA")
    if not folder:
        pytest.skip("LATLAB_DATA names no folder of published tables")
    return Path(folder)
