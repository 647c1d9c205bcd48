"""A grid of hyper-parameters, by Ray Tune where it is installed, else one after the other.

Ray Tune runs trials side by side and stops the worse ones early by ASHA (Li et al., A System for Massively Parallel
Hyperparameter Tuning, MLSys 2020). Without it each trial runs to its end, in the same grid.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

__all__ = ["Report", "Train", "search_grid"]

Report = Callable[[int, float], None]
"""Called with the number of steps that are done, and the validation error then."""
Train = Callable[[Mapping[str, float], Report], None]
"""Trains with hyper-parameters, and reports now and then."""
REDUCTION = 3
"""ASHA keeps one of so many trials at each of its stages."""
GRACE = 0.1
"""The share of the steps that each trial is given."""


def search_grid(train: Train, grid: Mapping[str, Sequence[float]], *, steps: int) -> dict[str, float]:
    """Return the hyper-parameters of a grid with the least validation error.

    Args:
        train: trains once; with Ray Tune it runs in other processes, to which it is sent.
        grid: values of each hyper-parameter.
        steps: the steps of a training.

    Raises:
        ValueError: no trial reported a finite error.
    """
    with_ray = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("tensorboardX") is not None
    errors = _by_ray(train, grid, steps) if with_ray else _one_by_one(train, grid)
    finite = {at: error for at, error in errors.items() if error < float("inf")}
    if not finite:
        raise ValueError("no hyper-parameters of the grid gave a finite validation error")
    best = min(finite, key=lambda at: finite[at])
    return dict(zip(grid, best, strict=True))


def _one_by_one(train: Train, grid: Mapping[str, Sequence[float]]) -> dict[tuple[float, ...], float]:
    found = {}
    for values in product(*grid.values()):
        reported: list[float] = []
        train(dict(zip(grid, values, strict=True)), lambda _, error, own=reported: own.append(error))  # type: ignore[misc]
        found[values] = min(reported, default=float("inf"))
    return found


def _by_ray(train: Train, grid: Mapping[str, Sequence[float]], steps: int) -> dict[tuple[float, ...], float]:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trial(config: dict[str, float]) -> None:
        train(config, lambda step, error: tune.report({"step": step, "error": error}))

    with tempfile.TemporaryDirectory(prefix="latlab-tune-") as folder:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        tuner = tune.Tuner(
            trial,
            param_space={name: tune.grid_search(list(values)) for name, values in grid.items()},
            tune_config=tune.TuneConfig(
                metric="error",
                mode="min",
                scheduler=ASHAScheduler(
                    time_attr="step",
                    max_t=steps,
                    grace_period=max(int(GRACE * steps), 1),
                    reduction_factor=REDUCTION,
                ),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results: Any = tuner.fit()
        found = {}
        if results.errors:
            raise results.errors[0]
        for one in results:
            values = tuple(float(one.config[name]) for name in grid)
            frame = one.metrics_dataframe
            found[values] = float(frame["error"].min()) if frame is not None and len(frame) else float("inf")
    return found
