"""What a store knows of targets: labels over sessions, and how sessions differ."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.search.evidence import USUAL_SPREAD, StoreEvidence, session_spread
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.vocabulary import Selection
from latlab.search_spaces import get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
ARCHS = [arch.text for arch in get("nasbench201").sample(2, 0)]


def _rows(networks: int, sessions: int, spread: float, error: float = 0.002) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    level = rng.uniform(1, 2, networks)[:, None] * np.exp(rng.normal(0, spread, (networks, sessions)))
    return pd.DataFrame(
        [
            {"arch": f"n{row}", "session_id": f"s{column}", "latency_ms": value, "stderr_ms": error * value}
            for (row, column), value in np.ndenumerate(level)
        ]
    ).assign(selection=Selection.LISTED.value)


def test_the_spread_is_what_repeated_networks_show() -> None:
    assert session_spread(_rows(200, 2, 0.06)) == pytest.approx(0.06, rel=0.1)
    assert session_spread(_rows(200, 3, 0.01)) == pytest.approx(0.01, rel=0.2)
    assert session_spread(_rows(300, 2, 0.0)) < 0.004, "error bars explain it all"


def test_without_repetitions_the_usual_spread_is_assumed() -> None:
    assert session_spread(_rows(50, 1, 0.2)) == USUAL_SPREAD
    assert session_spread(_rows(50, 1, 0.2)[:0]) == USUAL_SPREAD
    assert session_spread(_rows(50, 2, 0.2).assign(selection=Selection.IMPORTED.value)) == USUAL_SPREAD


def test_one_repetition_that_agrees_is_no_proof() -> None:
    rows = _rows(1, 2, 0.0)
    assert session_spread(rows) == pytest.approx(USUAL_SPREAD * math.sqrt(2 / 3), rel=0.05)


def test_labels_of_a_store_by_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text(
        "devices:\n  toy: {transport: simulated, kind: ideal, faults: {max_params: 300000}}\n"
    )
    lab = Lab("latlab.db")
    large = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|nor_conv_3x3~2|"
    fine = "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|"

    def measure(archs, again):  # type: ignore[no-untyped-def]
        return lab.measure(TOY, space="nasbench201", archs=archs, policy="quick", new_session=again, raw=False)

    def resolve(target, archs):  # type: ignore[no-untyped-def]
        question = Resolve(under_ms=labels[fine].latency_ms)
        return lab.measure(target, space="nasbench201", archs=archs, policy="quick", resolve=question, raw=False)

    evidence = StoreEvidence(
        lab.store, [TOY], "nasbench201", False, lambda target: lab.predictor(target), measure, resolve
    )
    assert evidence.labels() == [{}]
    evidence.measure([fine, large], False)
    (labels,) = evidence.labels()
    assert list(labels) == [fine]
    assert labels[fine].sessions == 1
    assert evidence.failed() == {large}
    assert evidence.unknown_spreads() == [TOY]
    for _ in range(2):  # what a run that was killed has measured again is not measured a third time
        evidence.measure([fine], True)
        assert evidence.labels()[0][fine].sessions == 2
    assert evidence.unknown_spreads() == []
    assert 0 < evidence.spreads()[0] < USUAL_SPREAD
    passes = lab.store.table(raw=True)["passes"].map(len).sum()
    assert not evidence.resolve([fine])
    assert lab.store.table(raw=True)["passes"].map(len).sum() >= passes
    assert evidence.predicts()[0](get("nasbench201").genes([get("nasbench201").parse(fine)])).mean_ms[0] > 0
