"""The page's picture of a store stays the same as a fresh one, however the store grows, and costs what has changed."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from growing_store import GrowingStore

from latlab.harness import Lab
from latlab.harness.compare.result import Question
from latlab.harness.dashboard.fleet_view import campaigns_view, fleet_view
from latlab.harness.dashboard.hub import VIEWS, Hub
from latlab.harness.dashboard.metrics import metrics_text
from latlab.harness.dashboard.watch import StoreWatch
from latlab.harness.store.reading import announces_log
from latlab.harness.store.vocabulary import Status
from latlab.search_spaces import get


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
    assert not announces_log(growing.store.real_path), "an open reader has kept the writer's log"


def test_another_store_in_its_place_is_read_afresh(growing: GrowingStore, tmp_path: Path) -> None:
    growing.measure(0, 0)
    watch = StoreWatch(growing.store.path)
    with GrowingStore(tmp_path / "other.db", name="other").store as other:
        other.fold()
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


def test_comparisons_onboardings_and_searches_leave_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inventory.yaml").write_text("devices:\n  toy: {transport: simulated, kind: ideal}\n")
    lab = Lab("latlab.db")
    archs = [arch.text for arch in get("nasbench201").sample(3, 1)]
    lab.onboard("toy", space="nasbench201", budget=6, policy="quick", predictor="ridge", out="out")
    lab.compare(archs[:2], "toy", space="nasbench201", question=Question(budget_s=0.2))
    lab.search(
        "toy", space="nasbench201", max_latency_ms=1e4, accuracy="macs", budget=2, policy="quick", predictor="ridge",
        out="found",
    )  # fmt: skip
    lab.store.close()
    hub = Hub(Path("latlab.db"))
    (comparison,) = json.loads(hub.view("compare", {}))["comparisons"]
    assert comparison["pairs"][0]["first"] == comparison["models"][0]["name"]
    (search,) = json.loads(hub.view("search", {}))["searches"]
    assert search["found"]
    assert search["rounds"][-1]["front"]
    assert search["rounds"][-1]["measured"]
    lines = json.loads(hub.view("campaigns", {}))["sessions"]
    (onboarding,) = (one for one in lines if one["kind"].startswith("onboarding"))
    view = json.loads(hub.view("session", {"campaign": onboarding["campaign"], "session": "1"}))
    assert [one["n"] for one in view["curve"]] == [3, 4, 5, 6]
    assert (view["line"]["planned"], view["line"]["state"], len(view["labels"])) == (6, "done", 6)
    assert view["line"]["ok"] == sum(one["status"] == Status.OK for one in view["labels"])
