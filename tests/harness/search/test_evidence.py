"""What a store knows of targets: labels over sessions, and how sessions differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlab.harness import Lab
from latlab.harness.search.evidence import StoreEvidence
from latlab.harness.search.limits import Limit
from latlab.harness.statistics.ranking import Resolve
from latlab.search_spaces import get

TOY = "toy/onnxruntime/cpu/fp32/t1/b1"
ARCHS = [arch.text for arch in get("nasbench201").sample(2, 0)]


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

    def resolve(target, max_ms, archs):  # type: ignore[no-untyped-def]
        question = Resolve(under_ms=max_ms)
        return lab.measure(target, space="nasbench201", archs=archs, policy="quick", resolve=question, raw=False)

    evidence = StoreEvidence(
        lab.store,
        [Limit(TOY, 5.0)],
        "nasbench201",
        False,
        lambda target, metric: lab.predictor(target),
        measure,
        resolve,
    )
    assert evidence.labels() == [{}]
    evidence.measure([fine, large], False)
    (labels,) = evidence.labels()
    assert list(labels) == [fine]
    assert labels[fine].sessions == 1
    assert evidence.failed() == {large}
    assert list(evidence.unknown_spreads()) == [TOY]
    assumed = evidence.unknown_spreads()[TOY]
    assert assumed == pytest.approx(0.0316, rel=0.01)
    for _ in range(2):  # what a run that was killed has measured again is not measured a third time
        evidence.measure([fine], True)
        assert evidence.labels()[0][fine].sessions == 2
    assert not evidence.unknown_spreads()
    assert 0 < evidence.spreads()[0] < assumed, "this device repeats itself exactly"
    passes = lab.store.table(raw=True)["passes"].map(len).sum()
    assert not evidence.resolve([fine])
    assert lab.store.table(raw=True)["passes"].map(len).sum() >= passes
    assert evidence.predicts()[0](get("nasbench201").genes([get("nasbench201").parse(fine)])).mean_ms[0] > 0
