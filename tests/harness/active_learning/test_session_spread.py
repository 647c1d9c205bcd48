"""How sessions of a device differ: from networks that were measured again, from anchors, and in predictions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from latlab.harness import Lab
from latlab.harness.active_learning.fitted_predictor import load_predictor
from latlab.harness.active_learning.session_spread import (
    USUAL_COMMON,
    VIRTUAL_COMMON,
    ComparedSessions,
    SessionSpread,
    repeated,
)
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection
from latlab.harness.telemetry.recorded_pass import RecordedAnchor
from latlab.harness.timing_policy import PRESETS
from latlab.predictors import Prediction
from latlab.search_spaces import get

TOY, OTHER = "toy/onnxruntime/cpu/fp32/t1/b1", "toy/tflite/cpu/fp32/t1/b1"
ARCHS = [arch.text for arch in get("nasbench201").sample(6, 0)]


def _rows(networks: int, shifts: list[float], specific: float, error: float = 0.002) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    level = rng.uniform(1, 2, networks)[:, None] * np.exp(rng.normal(shifts, specific, (networks, len(shifts))))
    return pd.DataFrame(
        [
            {"arch": f"n{row}", "campaign": "c", "session": column, "latency_ms": value, "stderr_ms": error * value}
            for (row, column), value in np.ndenumerate(level)
        ]
    ).assign(
        selection=Selection.LISTED.value,
        fingerprint_id=None,
        space="nasbench201",
        session_id=lambda rows: rows["session"].map("c/{}".format),
    )


def _leveled(store: Store, target: str, rows: pd.DataFrame) -> pd.DataFrame:
    return ComparedSessions(store, target, rows).on_one_level(rows)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "latlab.db")


def _add_session(store: Store, target: str, number: int, log_shift: float) -> None:
    """Add a session in which every anchor is slower by a factor."""
    campaign = store.campaign(target, "nasbench201", PRESETS["default"], 0, "random", {})
    rng = np.random.default_rng(number)
    for _ in range(3):
        for place, arch in enumerate(ARCHS[:4]):
            samples = 1e6 * (1 + place) * np.exp(log_shift + rng.normal(0, 0.003, 9))
            anchor = RecordedAnchor([], [int(one) for one in samples], {}, arch=arch, in_line=True)
            store.add_anchor(campaign, number, anchor)


def test_networks_that_were_measured_again_show_the_spread(store: Store) -> None:
    found = ComparedSessions(store, TOY, _rows(300, [0.0] * 2, 0.06)).spread()
    assert found.specific == pytest.approx(0.06, rel=0.1)
    assert found.common < USUAL_COMMON, "two sessions that agree"
    shifts = list(np.random.default_rng(1).normal(0, 0.1, 40))
    found = ComparedSessions(store, TOY, _rows(50, shifts, 0.01)).spread()
    assert found.common == pytest.approx(np.std(shifts, ddof=1), rel=0.1)
    assert found.specific == pytest.approx(0.01, rel=0.1)
    assert found.sessions == 40


def test_a_spread_is_assumed_as_long_as_there_is_one_session(store: Store) -> None:
    imported = _rows(50, [0.0, 0.5], 0.2).assign(selection=Selection.IMPORTED.value)
    for rows in (_rows(50, [0.0], 0.2), _rows(50, [0.0], 0.2)[:0], imported):
        found = ComparedSessions(store, TOY, rows).spread()
        assert (found.common, found.sessions) == (USUAL_COMMON, 0)
        assert repeated(rows) == 0
    assert ComparedSessions(store, TOY, imported).variance(imported) == 0, "of imported sessions nothing is known"


def test_more_is_assumed_of_a_virtual_machine(store: Store) -> None:
    for virtual, expected in ((True, VIRTUAL_COMMON), (False, USUAL_COMMON)):
        rows = _rows(5, [0.0], 0.01).assign(fingerprint_id=store.fingerprint({"cpus": {"virtual": virtual}}))
        assert ComparedSessions(store, TOY, rows).spread().common == expected
    assert (
        ComparedSessions(store, TOY, rows.assign(fingerprint_id=store.fingerprint({}))).spread().common == USUAL_COMMON
    )


def test_anchors_of_earlier_sessions_show_the_spread(store: Store) -> None:
    alone = _rows(20, [0.0], 0.01)
    for number, shift in enumerate((0.0, 0.15, -0.15, 0.1), 1):
        _add_session(store, TOY, number, shift)
    found = ComparedSessions(store, TOY, alone).spread()
    assert found.sessions == 4
    expected = math.sqrt((2 * USUAL_COMMON**2 + 3 * np.var([0.0, 0.15, -0.15, 0.1], ddof=1)) / 5)
    assert found.common == pytest.approx(expected, rel=0.05)
    elsewhere = ComparedSessions(store, OTHER, alone).spread()
    assert elsewhere.common == pytest.approx(found.common), "what its device does with another runtime"
    assert ComparedSessions(store, "tiny/onnxruntime/cpu/fp32/t1/b1", alone).spread().common == USUAL_COMMON


def test_labels_of_several_sessions_are_surer() -> None:
    assert SessionSpread(0.1, 0.0, 0).of_prediction() == pytest.approx(0.02)
    assert SessionSpread(0.1, 0.0, 9, of_target=1).of_prediction() == pytest.approx(0.02)
    assert SessionSpread(0.1, 0.0, 9, of_target=4).of_prediction() == pytest.approx(0.0125)


def test_labels_of_all_sessions_come_to_one_level(store: Store) -> None:
    """Each session has networks of its own: only anchors say that the second is slower by a quarter."""
    shifts = (0.0, 0.25, 0.05)
    for number, shift in enumerate(shifts, 1):
        _add_session(store, TOY, number, shift)
    campaign = store.campaign(TOY, "nasbench201", PRESETS["default"], 0, "random", {}).id
    rows = _rows(30, [0.0], 0.0).assign(campaign=campaign)
    rows["session"] = 1 + np.arange(30) % 3
    truth = rows["latency_ms"].to_numpy()
    raw = truth * np.exp([shifts[one - 1] for one in rows["session"]])
    measured = rows.assign(latency_ms=raw)
    found = _leveled(store, TOY, measured)
    assert found["latency_ms"].to_numpy() == pytest.approx(truth * math.exp(0.1), rel=0.01)
    assert (found["stderr_ms"] / found["latency_ms"]).to_numpy() == pytest.approx(0.002, rel=0.3)
    assert measured["latency_ms"].to_numpy() == pytest.approx(
        truth * np.exp([shifts[one - 1] for one in rows["session"]])
    )
    imported = _leveled(store, TOY, measured.assign(selection=Selection.IMPORTED.value))
    assert imported["latency_ms"].equals(measured["latency_ms"])
    assert _leveled(store, OTHER, measured)["latency_ms"].equals(measured["latency_ms"]), "another target"
    assert _leveled(store, TOY, measured[:0]).empty


def test_sessions_that_agree_leave_labels_as_they_are(store: Store) -> None:
    for number in (1, 2, 3):
        _add_session(store, TOY, number, 0.0)
    rows = _rows(10, [0.0], 0.01)
    assert _leveled(store, TOY, rows)["latency_ms"].to_numpy() == pytest.approx(rows["latency_ms"], rel=2e-3)


def test_one_name_in_two_spaces_is_two_networks(store: Store) -> None:
    rows = pd.concat([_rows(10, [0.0], 0.0), _rows(10, [2.0], 0.0).assign(space="fbnet", campaign="d")])
    rows["session_id"] = rows["campaign"] + "/0"
    assert repeated(rows) == 0
    assert ComparedSessions(store, TOY, rows).spread().common == USUAL_COMMON


def test_intervals_widen_around_the_same_latency() -> None:
    narrow = Prediction(*(np.array(one) for one in ([1.0, 10.0], [0.05, 0.0], [0.92, 10.0], [1.09, 10.0])))
    wide = narrow.widened(0.01)
    assert np.array_equal(wide.mean_ms, narrow.mean_ms)
    assert wide.std_ms == pytest.approx([math.sqrt(math.expm1(math.log1p(0.0025) + 0.01)), 10 * 0.10025], rel=1e-3)
    assert (wide.lower_ms < narrow.lower_ms).all()
    assert wide.upper_ms[1] == pytest.approx(10 * math.exp(0.16449), rel=1e-6), "90 % of a Gaussian of 10 %"
    assert narrow.widened(0.0) is narrow
    assert np.isfinite(narrow.widened(1e9).upper_ms).all()


def test_what_is_taken_out_of_the_labels_still_widens_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks that were measured in two sessions show the shift also after their labels are on one level."""
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    lab = Lab("latlab.db")
    for again in (False, True):
        lab.measure("toy", space="nasbench201", archs=ARCHS, policy="quick", raw=False, new_session=again)
    agreeing = lab.predictor("toy").card.session_variance
    with lab.store.transaction() as connection:
        connection.exec_driver_sql("UPDATE measurements SET latency_ms = latency_ms * 1.5 WHERE session = 2")
    lab.store.close()
    differing = Lab("latlab.db").predictor("toy").card.session_variance
    assert agreeing < 2 * USUAL_COMMON**2
    assert differing > 10 * agreeing


def test_predictions_of_a_store_and_of_a_folder_hold_for_another_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    lab = Lab("latlab.db")
    lab.measure("toy", space="nasbench201", archs=ARCHS, policy="quick", raw=False)
    predictor = lab.predictor("toy")
    assert predictor.card.session_variance == pytest.approx(2 * USUAL_COMMON**2)
    found = predictor.predict(ARCHS)
    predictor.save("folder")
    again = load_predictor("folder")
    assert again.card.session_variance == predictor.card.session_variance
    for one in (again.predict(ARCHS), predictor.formula().predict(_features(predictor))):  # type: ignore[union-attr]
        assert one.lower_ms == pytest.approx(found.lower_ms, rel=1e-6)
        assert one.std_ms == pytest.approx(found.std_ms, rel=1e-6)
    assert (found.upper_ms / found.mean_ms > math.exp(1.6 * math.sqrt(2) * USUAL_COMMON)).all()


def _features(predictor) -> np.ndarray:  # type: ignore[no-untyped-def]
    space = predictor.space
    return np.asarray(space.features(space.canonical_genes(space.genes([space.parse(arch) for arch in ARCHS]))))
