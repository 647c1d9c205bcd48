"""Tests of the words on a busy machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness.measurement.disturbance import disturbances
from latlab.harness.terminal.results import show_measurements


def rows(disturbed: int, networks: int = 40, noise: float = 0.05) -> pd.DataFrame:
    latency = np.linspace(10, 14, networks)
    return pd.DataFrame(
        {
            "target": "busy/onnxruntime/cpu/fp32/t1/b1",
            "arch": [str(one) for one in range(networks)],
            "latency_ms": latency,
            "stderr_ms": noise * latency,
            "high_ms": latency,
            "status": "ok",
            "policy": "default",
            "error": None,
            "verdict": ["disturbed"] * disturbed + [""] * (networks - disturbed),
        }
    )


def test_most_labels_are_disturbed() -> None:
    (found,) = disturbances(rows(30))
    assert (found.disturbed, found.labels) == (30, 40)
    assert 0.2 < found.retest < found.ceiling < 0.95, "5 % of noise over 40 % of spread"
    assert "30 of 40 labels are disturbed" in found.sentence
    assert "rank correlation of 0." in found.sentence
    assert "`latlab doctor busy`" in found.sentence
    (precise,) = disturbances(rows(30, noise=0.001))
    assert precise.retest > found.retest, "it comes from the error bars"


def test_few_labels_are_disturbed() -> None:
    assert disturbances(rows(20)) == ()
    assert disturbances(rows(0)) == ()


def test_too_few_networks_have_no_ranks() -> None:
    (found,) = disturbances(rows(3, networks=4))
    assert "rank" not in found.sentence


def test_it_is_the_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_measurements(rows(30), Path("s.db"), raw=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Something else uses busy: 30 of 40 labels are disturbed.")


@pytest.mark.parametrize(("policy", "thorough"), [("default", True), ("thorough", False)])
def test_labels_that_stay_wide_have_a_way_out(capsys: pytest.CaptureFixture[str], policy: str, thorough: bool) -> None:
    frame = rows(0).assign(verdict="noisy", policy=policy)
    show_measurements(frame, Path("s.db"), raw=False)
    said = capsys.readouterr().out
    assert "40 labels are still wide after all passes" in said
    assert ("--policy thorough" in said) == thorough
    assert "`latlab compare`" in said
    show_measurements(rows(30).assign(verdict="disturbed"), Path("s.db"), raw=False)
    assert "thorough" not in capsys.readouterr().out, "more passes of a disturbed device are disturbed, too"
