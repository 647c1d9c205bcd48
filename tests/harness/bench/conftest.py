"""Fixtures of the bench's tests: a small table of synthetic devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.search_spaces import get

ROWS = 150
DEVICES = {"fast": (1.0, 0.0), "wide": (0.6, 0.1), "slow": (3.0, 0.4), "launch": (0.1, 1.0), "odd": (0.3, 0.8)}
"""Milliseconds per 10 million multiply-accumulates, and per operator."""


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 150 networks of FBNet; the device `odd` has measured only every other one."""
    space = get("fbnet")
    archs = space.sample(ROWS, 3)
    layers = [space.layers(arch) for arch in archs]
    work = np.array([sum(one.macs for one in own) for own in layers]) / 1e7
    launches = np.array([len(own) for own in layers]) / 10
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"arch": [arch.text for arch in archs]})
    for name, (per_work, per_launch) in DEVICES.items():
        frame[name] = (1 + per_work * work + per_launch * launches) * np.exp(0.02 * rng.standard_normal(ROWS))
    frame.loc[::2, "odd"] = np.nan
    path = tmp_path_factory.mktemp("bench") / "table.parquet"
    frame.to_parquet(path)
    return path
