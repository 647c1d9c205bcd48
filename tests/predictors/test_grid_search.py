"""Hyper-parameters from a grid: the same choice with Ray Tune and without it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping

import numpy as np
import pytest

from latlab.predictors import SourceDevice
from latlab.predictors.common import grid_search
from latlab.predictors.common.grid_search import Report, search_grid
from latlab.predictors.ofa_mlp import GRID, OFAMLP
from latlab.search_spaces import get

WITH_RAY = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("tensorboardX") is not None


def train(values: Mapping[str, float], report: Report) -> None:
    """A valley whose bottom is at a = 2, b = -1, which all trials approach."""
    for step in range(1, 31):
        report(step, (values["a"] - 2) ** 2 + (values["b"] + 1) ** 2 + 1 / step)


def test_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert search_grid(train, {"a": (0, 2, 3), "b": (-1, 1)}, steps=30) == {"a": 2, "b": -1}
    with pytest.raises(ValueError, match="no hyper-parameters"):
        search_grid(lambda values, report: report(1, float("nan")), {"a": (1, 2)}, steps=1)


@pytest.mark.slow
@pytest.mark.skipif(not WITH_RAY, reason="needs Ray Tune (pip install latlab[tune])")
def test_by_ray_tune() -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    try:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
        assert search_grid(train, {"a": (0.0, 2.0, 3.0), "b": (-1.0, 1.0)}, steps=30) == {"a": 2, "b": -1}
    finally:
        ray.shutdown()


def test_once_for_all_s_predictor_takes_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tried = []

    def spied(train: grid_search.Train, grid: Mapping[str, tuple[float, ...]], *, steps: int) -> dict[str, float]:
        def spy(values: Mapping[str, float], report: Report) -> None:
            errors: list[float] = []

            def both(step: int, error: float) -> None:
                errors.append(error)
                report(step, error)

            train(values, both)
            tried.append((min(errors), dict(values)))

        return search_grid(spy, grid, steps=steps)

    monkeypatch.setattr("latlab.predictors.ofa_mlp.search_grid", spied)
    space = get("fbnet")
    genes = space.genes(space.sample(60, 0))
    predictor = OFAMLP(space, steps=60, grid=True)
    predictor.pretrain([SourceDevice("a", genes, 1 + genes.sum(axis=1) / 50)])
    assert len(tried) == np.prod([len(values) for values in GRID.values()])
    assert predictor._optimisation == min(tried, key=lambda one: one[0])[1]
