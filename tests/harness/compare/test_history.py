"""The history of one network: a change is marked once, and a slower day of the whole device is none."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from latlab.harness.compare.history import Change, changes
from latlab.harness.measurement.anchors import ANCHORS
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import TimingPolicy

NETWORK = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"


def history(path: Path, levels: Sequence[float], days: Sequence[float], seed: int) -> list[Change | None]:
    """Return the changes of a network with these latencies in ms, on days on which all is so many times slower."""
    chance = random.Random(seed)
    policy = TimingPolicy("default", warmup=1, runs=3, trim=0.25, passes=2, spread=1)

    def samples(ms: float) -> list[int]:
        return [round(1e6 * ms * math.exp(abs(chance.gauss(0, 0.002)))) for _ in range(5)]

    with Store(path) as store:
        target = Target.parse("dev/onnxruntime/cpu/fp32/t1/b1")
        campaign = store.campaign(target, "nasbench201", policy, 0, Selection.LISTED)
        with store.writing():
            for number, (level, day) in enumerate(zip(levels, days, strict=True), start=1):
                for place, arch in enumerate(ANCHORS):
                    own = (1 + place) * day * math.exp(chance.gauss(0, 0.004))
                    store.add_anchor(campaign, number, RecordedAnchor([], samples(own), {}, arch=arch))
                row = store.begin(campaign, number, NETWORK, "listed")
                own = level * day * math.exp(chance.gauss(0, 0.004))
                for place in range(2):
                    store.add_pass(row.id, RecordedPass([], samples(own), {}, place))
                store.finish(row.id, Status.OK, latency_ms=own, stderr_ms=own / 100)
        rows: list[dict[str, Any]] = store.table().sort_values("session").to_dict("records")
        return changes(store, rows, 3.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_regression_is_marked_once_and_so_is_its_end(tmp_path: Path, seed: int) -> None:
    levels = [2.0] * 6 + [2.24] * 6 + [2.0] * 6
    days = [random.Random(seed + at).uniform(0.97, 1.03) for at in range(18)]
    found = history(tmp_path / "latlab.db", levels, days, seed)
    kinds = {place: one.kind for place, one in enumerate(found) if one is not None and one.kind}
    assert kinds == {6: "slower", 12: "faster"}
    slower = found[6]
    assert slower is not None
    assert slower.low_percent < 12 < slower.high_percent
    assert slower.anchors == len(ANCHORS)


def test_a_slower_day_is_no_regression(tmp_path: Path) -> None:
    found = history(tmp_path / "latlab.db", [2.0] * 8, [1.0] * 4 + [1.15] * 4, 0)
    assert found[0] is None
    assert all(one is not None and not one.kind for one in found[1:])
