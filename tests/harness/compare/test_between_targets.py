"""Tests of the comparison of two targets, on simulated devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.compare.between_targets import TargetComparison, compare_targets
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.report.compare.page import render, write_page
from latlab.harness.transports.simulated.config import SimulatedDevice

TARGETS = ("quick/onnxruntime/cpu/fp32/t1/b1", "slow/tflite/cpu/fp32/t1/b1")


def rows(first: list[float], second: list[float], stderr: float = 0.001, **more: Any) -> pd.DataFrame:
    parts = []
    for target, latencies in zip(TARGETS, (first, second), strict=True):
        names = [f"<i>{number}</i>" for number in range(len(latencies))]
        parts.append(
            pd.DataFrame(
                {"target": target, "arch": names, "latency_ms": latencies, "stderr_ms": stderr, "status": "ok",
                 "simulated": False, **more}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def compared(*args: Any, **options: Any) -> TargetComparison:
    return compare_targets(rows(*args, **options), *TARGETS, "fbnet")


def test_figures_worked_out_by_hand() -> None:
    found = compared([1, 2, 3, 4], [2, 6, 5, 8])
    assert found.agreement.spearman == pytest.approx(0.8)
    assert found.ratio.ratio == pytest.approx(2)
    assert list(found.networks["second_rank"]) == [1, 3, 2, 4]
    assert set(found.changed["arch"]) == {"<i>1</i>", "<i>2</i>"}
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["targets"] == list(TARGETS)
    assert len(told["rows"]) == 4


def test_wide_error_bars_change_no_rank() -> None:
    assert compared([1, 2, 3, 4], [2, 6, 5, 8], stderr=2.0).changed.empty


def test_networks_that_failed_on_one_side_are_counted() -> None:
    table = rows([1, 2, 3], [2, 4, 6])
    table.loc[0, "status"] = "crash"
    found = compare_targets(table, *TARGETS, "fbnet")
    assert (len(found.networks), found.failed) == (2, 1)
    table["status"] = "crash"
    with pytest.raises(BadInputError, match="no network of fbnet"):
        compare_targets(table, *TARGETS, "fbnet")


@pytest.mark.parametrize("count", [1, 2, 3, 900])
def test_the_page(count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(1, 50, count)
    found = compared(list(first), list(first * rng.uniform(1, 2, count)))
    page = write_page(found, tmp_path / "new" / "page.html").read_text()
    assert "<svg" in page
    assert "<i>" not in page
    if not found.changed.empty:
        assert "&lt;i&gt;" in page
    assert "#c0de" not in page


def test_the_page_says_if_no_rank_changes() -> None:
    page = render(compared([1, 2, 3], [2, 4, 6]))
    assert "No network changes its rank" in page
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert len([one for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("title")]) == 3


def test_what_is_missing_is_measured_and_then_nothing(tmp_path: Path) -> None:
    made = Lab(tmp_path / "s.db")
    made.inventory = Inventory(
        {
            name: SimulatedDevice.model_validate({"transport": "simulated", "kind": kind})
            for name, kind in (("quick", "server"), ("slow", "pi4"))
        }
    )
    found = made.compare_targets(TARGETS, space="nasbench201", count=6)
    assert len(found.networks) == 6
    assert found.ratio.ratio > 1
    assert found.simulated
    before = len(made.store.table())
    made.compare_targets(TARGETS, space="nasbench201", count=6)
    assert len(made.store.table()) == before
    for wrong in (TARGETS[:1], (*TARGETS, TARGETS[0])):
        with pytest.raises(BadInputError, match="two targets"):
            made.compare_targets(wrong, space="nasbench201", count=2)
