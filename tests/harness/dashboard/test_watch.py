"""The page's picture of a store stays the same as a fresh one, however the store grows, and costs what has changed."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growing_store import GrowingStore

from latlab.harness.active_learning.learning_notes import LearningNotes
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.compare.result import ComparedModel, ComparisonResult, Pair, Question
from latlab.harness.compare.run import RESULT
from latlab.harness.dashboard.fleet_view import campaigns_view, fleet_view
from latlab.harness.dashboard.hub import VIEWS, Hub
from latlab.harness.dashboard.metrics import metrics_text
from latlab.harness.dashboard.watch import StoreWatch
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.search.limits import Constraints, Limit, Measured
from latlab.harness.search.notes import Look, SearchNotes
from latlab.harness.statistics.paired import Interval, Outcome
from latlab.harness.store.reading import announces_log
from latlab.harness.store.vocabulary import Selection, Status
from latlab.search_spaces import get

pytestmark = pytest.mark.filterwarnings("ignore:the store .* damaged row")


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[GrowingStore]:
    grown = GrowingStore(tmp_path / "latlab.db")
    with grown.store:
        yield grown


def differences(watch: StoreWatch) -> list[Any]:
    """Where a watch differs from one that has just begun."""
    pairs = zip(picture(watch), picture(StoreWatch(watch.path)), strict=True)
    found = [(name, old[name], new[name]) for old, new in pairs for name in old if old[name] != new[name]]
    return [
        (name, key, before[key], after[key])
        for name, was, now in found
        for before, after in zip(was, now, strict=True)
        for key in before
        if before[key] != after[key]
    ]


def picture(watch: StoreWatch) -> Any:
    """What a watch knows, without what is counted only while it looks."""
    now = time.time()
    fleet, campaigns = fleet_view(watch, now), campaigns_view(watch, now)
    for line in [*fleet["devices"], *campaigns["sessions"], *(one["progress"] or {} for one in fleet["devices"])]:
        line.pop("per_minute", None)
        line.pop("left", None)
    fleet.pop("per_minute")
    return json.loads(json.dumps([fleet, campaigns]))


def test_what_has_changed_is_enough(growing: GrowingStore) -> None:
    watch = StoreWatch(growing.store.path)
    with growing.store.writing():
        rows = [growing.begin(device, 0) for device in range(3)]
        watch.look()
        for row in rows:
            growing.time(row, celsius=60 + row)
        watch.look()
        assert {one["state"] for one in picture(watch)[0]["devices"]} == {"measuring"}
        assert watch.devices["dev0"].temperature_c == 60 + rows[0]
        growing.finish(rows[0])
        growing.finish(rows[1], status="unsupported_op", error="no such operator")
        growing.store.note("dev2", "lost", "the link is down")
        growing.store.lose(growing.campaigns[2].id, 1, "the link is down")
        watch.look()
        assert differences(watch) == []
        assert watch.devices["dev2"].state(time.time()) == "lost"
        growing.measure(0, 1)
        growing.measure(1, 1)
        growing.store.note("dev2", "back", "it is back")
        growing.store.resume(growing.campaigns[2], 1)
        growing.time(rows[2], 1)
        growing.finish(rows[2])
        growing.measure(2, 1, session=2)
        watch.look()
        assert differences(watch) == []
    assert (watch.devices["dev0"].ok, watch.devices["dev1"].failed) == (2, 1)
    (line,) = (one for one in campaigns_view(watch, time.time())["sessions"] if one["target"].startswith("dev0"))
    assert (line["ok"], line["planned"], line["state"], line["simulated"]) == (2, 8, "measuring", True)
    text = metrics_text(watch, time.time())
    assert 'status="unsupported_op"} 1\n' in text
    assert 'latlab_incidents_total{device="dev2",kind="lost"} 1\n' in text
    assert not announces_log(growing.store.path), "an open reader has kept the writer's log"


def test_another_store_in_its_place_is_read_afresh(growing: GrowingStore, tmp_path: Path) -> None:
    growing.measure(0, 0)
    watch = StoreWatch(growing.store.path)
    with GrowingStore(tmp_path / "other.db", name="other").store as other:
        other.access.fold()
    growing.store.close()
    (tmp_path / "other.db").replace(tmp_path / "latlab.db")
    watch.look()
    assert {one.device for one in watch.campaigns.values()} == {"other0", "other1", "other2"}
    assert not any(one.ok for one in watch.sessions.values())


def test_every_view_of_a_damaged_store_is_json(growing: GrowingStore) -> None:
    """What was tampered with is left out or shown as it is; no view ends with a traceback."""
    for device in range(3):
        growing.measure(device, device)
    growing.store.close()
    with closing(sqlite3.connect(growing.store.path)) as file, file:
        file.execute("UPDATE measurements SET latency_ms = 'x', arch = x'ff00fe', verdict = 5 WHERE id = 1")
        file.execute("UPDATE measurements SET status = '<b>', session = 'y', started_at = 7 WHERE id = 2")
        file.execute("UPDATE campaigns SET policy = '[', target = '\x1b[31m' WHERE target LIKE 'dev0%'")
        file.execute('UPDATE sessions SET facts = \'{"search": 3, "comparison": [], "planned": "x"}\'')
        file.execute("UPDATE passes SET telemetry = '{', at = 'never'")
        file.execute("INSERT INTO incidents (at, device, kind, message) VALUES ('', x'ff', 3, '\x07')")
    hub = Hub(growing.store.path)
    campaign = growing.campaigns[2]
    params = {"campaign": campaign.id, "session": "1", "target": campaign.target, "space": campaign.space}
    for name in VIEWS:
        for asked in ({}, params, {"session": "٣", "campaign": "'", "arch": "%"}):
            assert isinstance(json.loads(hub.view(name, asked)), dict)
            assert "\x1b" not in hub.view(name, asked)
    assert "latlab_measurements_total" in hub.metrics()


def test_comparisons_onboardings_and_searches_leave_what_the_page_shows(growing: GrowingStore) -> None:
    first, _, third = growing.campaigns
    session = MeasurementSession(growing.store, first, 1)
    loop, notes = ClosedLoop(get("nasbench201"), "ridge", budget=8), LearningNotes(session)
    for network, arch in enumerate(growing.archs):
        loop.record(arch, Status.OK, 2.0 + network, 0.01)
        loop.fit()
        notes.look(loop)
    models = tuple(ComparedModel(one, "dev1/x", 1.0, 9, "ok") for one in ("old", "new"))
    pair = Pair(0, 1, Interval(0.1, 0.05, 0.15, 9), Outcome.FASTER)
    result = ComparisonResult("dev1", models, (pair,), Question(), 9, 9.0, "decided")
    compared = growing.store.campaign(
        session.target, "nasbench201", session.policy, 0, Selection.COMPARE, {"of": "two"}
    )
    growing.store.begin(compared, 1, "old", "compare")
    MeasurementSession(growing.store, compared, 1).add_facts(**{RESULT: result.to_json()})
    searched = SearchNotes(growing.store, third, Constraints((Limit(third.target, 4.0),)), "macs", 9)
    for number in (0, 1):
        x = np.array([0.5, 0.9 + number / 10])
        labels = [(Measured(3.0, 0.1, 1),)]
        searched.add(Look(number, 2 + number, x, x * 100, growing.archs[:1], labels, np.array([70.0]), 0))
    searched.end("stands")
    hub = Hub(growing.store.path)
    (comparison,) = json.loads(hub.view("compare", {}))["comparisons"]
    (shown,) = comparison["pairs"]
    assert (shown["first"], shown["second"], shown["verdict"]) == ("old", "new", "faster")
    assert shown["low"] < shown["second_longer"] < shown["high"]
    (search,) = json.loads(hub.view("search", {}))["searches"]
    assert (search["found"], search["limits"], search["spent"]) == ("stands", [f"4 ms on {third.target}"], 3)
    assert [one["front"][-1][0] for one in search["rounds"]] == [0.9, 1.0]
    assert search["rounds"][-1]["best"] == {"arch": growing.archs[0], "ratio": 0.75, "accuracy": 70.0}
    assert search["rounds"][-1]["measured"] == [[0.75, 70.0]]
    view = json.loads(hub.view("session", {"campaign": first.id, "session": "1"}))
    assert [one["n"] for one in view["curve"]] == [3, 4, 5, 6, 7, 8]
    assert all(-1 <= one["loo_spearman"] <= 1 for one in view["curve"])
