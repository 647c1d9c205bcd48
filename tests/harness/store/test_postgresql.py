"""A store in a real PostgreSQL server holds and says what one in SQLite does, and several controllers share it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from peers.postgresql import PASSWORD, PostgreSQLServer
from sqlalchemy import inspect

from latlab.harness.errors import LatlabError
from latlab.harness.importers.read import read_sources
from latlab.harness.store import server
from latlab.harness.store.claims import TakenError
from latlab.harness.store.copying import copy_store
from latlab.harness.store.errors import StoreWarning
from latlab.harness.store.inspection import check_store, store_info
from latlab.harness.store.merging import merge_stores
from latlab.harness.store.migrations import upgrade
from latlab.harness.store.place import ServerPlace, store_path
from latlab.harness.store.schema import SCHEMA_VERSION, Base
from latlab.harness.store.server import engine_of_server
from latlab.harness.store.sources import keep, listing, remove
from latlab.harness.store.store import Campaign, Label, LeaseToken, StaleLeaseError, Store, StoreError
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import PRESETS

pytestmark = pytest.mark.peers
TARGET = Target("local", "onnxruntime")
CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "sqlite":
        place = str(tmp_path / "latlab.db")
    else:
        place = request.getfixturevalue("postgresql").new_database()
    with Store(place) as made:
        yield made


def campaign_of(store: Store, seed: int = 0) -> Campaign:
    return store.campaign(TARGET, "letters", PRESETS["default"], seed, "random")


def filled(store: Store, *archs: str) -> Campaign:
    """Write everything that a store can hold."""
    campaign = campaign_of(store)
    fingerprint = store.fingerprint({"cores": 4, "simulated": True})
    with store.writing():
        for arch in archs or ("a", "b"):
            row = store.begin(campaign, 1, arch, "listed", artifact_sha256=arch, fingerprint_id=fingerprint)
            store.add_pass(row.id, RecordedPass([5], [10, 11], {"before": {}, "after": {}}, 0))
            store.add_pass(row.id, RecordedPass([], [12], {}, 1, PassKind.PROBE))
            store.finish(row.id, "ok", latency_ms=1.5, raw_ms=1.5, stderr_ms=0.1, metrics={"p50_ms": 1.0, "rss": 2})
        store.add_anchor(campaign, 1, RecordedAnchor([1], [2, 3], {"x": 1}, arch=CELL, in_line=True))
        store.note_session(campaign.id, 1, seed=3)
        store.note(TARGET.device, "lost", "no answer\0 100 %?")
    return campaign


def content(store: Store) -> dict[str, Any]:
    """All that the store says of itself, without what each call makes anew."""
    (campaign,) = store.campaigns()["campaign"]
    return {
        "table": store.table(raw=True).astype(object).where(lambda one: one.notna(), None).to_dict("records"),
        "campaigns": store.campaigns().to_dict("records"),
        "passes": [(one.samples_ns, one.telemetry, one.kind) for one in store.session_passes(campaign, 1)],
        "anchors": store.anchors(campaign, 1),
        "facts": store.session_facts(campaign, 1),
        "incidents": store.incidents()["device"].tolist(),
        "sources": listing(store).astype(object).where(lambda one: one.notna(), None).to_dict("records"),
        "labelled": store.labelled(),
        "finished": store.finished("letters"),
    }


def test_what_is_written_reads_the_same(store: Store) -> None:
    assert not store.exists()
    assert store.campaigns().empty
    campaign = filled(store)
    assert store.exists()
    assert store.size_bytes() > 0
    assert campaign_of(store).id == campaign.id
    assert [one.samples_ns for one in store.passes(store.rows(campaign, 1)["a"].id)] == [[10, 11], [12]]
    table = store.table(raw=True)
    assert table["passes"].tolist() == [[[10, 11]], [[10, 11]]]
    assert table[["p50_ms", "rss", "order"]].to_numpy().tolist() == [[1.0, 2, 0], [1.0, 2, 1]]
    assert table["simulated"].all()
    assert store.incidents()["message"].tolist()[0].startswith("no answer")
    assert store.anchored_sessions(TARGET.device, 3) == [(str(TARGET), campaign.id, 1)]
    assert len(store.table(networks=1)) == 1
    before = store.version(), store.labels_digest("letters")
    first = store.rows(campaign, 1)["a"].id
    store.relabel([Label(first, 2.0, 0.2, 1.8, 2.2, "", {"p50_ms": 2.5})])
    found = store.table().set_index("arch").loc["a"]
    assert (found["latency_ms"], found["p50_ms"], found["rss"]) == (2.0, 2.5, 2)
    assert (store.version(), store.labels_digest("letters")) != before
    failed = store.begin(campaign, 1, "c", "listed", artifact_sha256="a")
    assert store.same_graph(failed) is not None
    store.finish(failed.id, "crash", error="gone")
    assert store.failures()["error"].tolist() == ["gone"]
    assert check_store(store.path).is_sound


def test_leases_sources_and_unfinished_rows(store: Store, tmp_path: Path) -> None:
    campaign = campaign_of(store)
    row = store.begin(campaign, 1, "a", "listed")
    store.claim(LeaseToken("local", "f", 2))
    with pytest.raises(StaleLeaseError):
        store.claim(LeaseToken("local", "f", 1))
    store.add_pass(row.id, RecordedPass([], [7], {}, 0), LeaseToken("local", "f", 2))
    with pytest.raises(StaleLeaseError):
        store.add_pass(row.id, RecordedPass([], [8], {}, 1), LeaseToken("local", "f", 1))
    assert store.lose(campaign.id, 1, "gone") == 1
    assert store.resume(campaign, 1)["a"].status == "running"
    (tmp_path / "theirs.csv").write_text(f"arch,latency_ms\n{CELL},3.5\n")
    keep(store, read_sources([tmp_path / "theirs.csv"], space="nasbench201", device="board"))
    assert listing(store)["name"].tolist() == ["board"]
    assert remove(store, "board") == [("nasbench201", 1)]


def test_copies_there_and_back(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    with Store(tmp_path / "here.db") as here:
        filled(here)
        (tmp_path / "theirs.csv").write_text(f"arch,latency_ms\n{CELL},3.5\n")
        keep(here, read_sources([tmp_path / "theirs.csv"], space="nasbench201", device="board"))
        there = postgresql.new_database()
        assert copy_store(tmp_path / "here.db", there) > 0
        assert content(Store(there)) == content(here)
        with pytest.raises(LatlabError, match="already"):
            copy_store(tmp_path / "here.db", there)
        copy_store(there, tmp_path / "back.db")
        assert content(Store(tmp_path / "back.db")) == content(here)
        second = postgresql.new_database()
        copy_store(there, second)
        assert content(Store(second)) == content(here)
        filled(Store(second), "a", "c")  # ids go on behind those that were copied
        merged = merge_stores([there, second], tmp_path / "all.db")
        assert (merged.measurements, merged.known) == (1, 2)
        assert store_info(second).rows["passes"] == store_info(tmp_path / "all.db").rows["passes"] == 8


def test_a_copy_that_fails_leaves_everything(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    with Store(tmp_path / "here.db") as here:
        filled(here)
        with here.transaction() as connection:
            connection.exec_driver_sql("UPDATE measurements SET status = 'what' WHERE arch = 'a'")
    there = postgresql.new_database()
    with pytest.warns(StoreWarning, match="left out"):
        copy_store(tmp_path / "here.db", there)
    before = content(Store(there))
    assert [one["arch"] for one in before["table"]] == ["b"]
    with Store(there) as store, store.writing(), pytest.raises(LatlabError, match="being written"):
        copy_store(tmp_path / "here.db", there, force=True)
    assert content(Store(there)) == before


def test_what_cannot_be_reached_is_explained(
    postgresql: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    place = postgresql.new_database()
    name = place.rpartition("/")[2]
    nobody = f"postgresql+psycopg://guarded@127.0.0.1:1/{name}"
    for address, said in (
        (postgresql.address("nowhere"), "there is no such database"),
        (postgresql.address(name, "stranger"), "no such user"),
        (postgresql.address(name, "guarded"), "asks for a password"),
        (postgresql.address(name, "guarded:wrong-word"), "password .* is wrong"),
        (nobody, "cannot be reached"),
        ("postgresql+psycopg://127.0.0.1:x/y", "no address of a database"),
        (place, "there is no store in the database"),
    ):
        with pytest.raises(StoreError, match=said) as caught:
            Store(address, must_exist=True)
        assert caught.value.hint
        assert "wrong-word" not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"


def test_a_password_is_never_shown(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    place = postgresql.new_database()
    name = place.rpartition("/")[2]
    postgresql.execute(f"GRANT CREATE ON DATABASE {name} TO guarded")
    secret = quote(PASSWORD, safe="")
    address = postgresql.address(name, f"guarded:{secret}")
    with Store(address) as store:
        filled(store)
    shown = ""
    for words in (
        ["show", "--json"],
        ["store", "info", "--json"],
        ["quality"],
        ["sources"],
        ["predict", "--target", "x"],
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "latlab.harness", "--store", address, *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        shown += ran.stdout + ran.stderr
    assert f"guarded@127.0.0.1:{postgresql.port}/{name}" in shown
    assert "PGPASSFILE" in shown
    stored = "".join(str(postgresql.execute(f"SELECT * FROM latlab.{table}", name)) for table in Base.metadata.tables)
    for text in (shown, stored, repr(store.path), str(vars(store))):
        assert secret not in text
        assert PASSWORD not in text


def test_migrations_make_the_schema_of_today(postgresql: PostgreSQLServer) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    place = store_path(postgresql.new_database())
    assert isinstance(place, ServerPlace)
    engine, _ = engine_of_server(place, plain=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA latlab")
        upgrade(connection, 3)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert inspect(connection).get_pk_constraint("leases")["constrained_columns"] == ["device", "folder"]
    engine.dispose()
    with Store(place) as store:
        filled(store)
        assert store_info(place).schema == SCHEMA_VERSION


def test_controllers_share_networks(postgresql: PostgreSQLServer) -> None:
    place = postgresql.new_database()
    first, second = Store(place), Store(place)
    campaign = campaign_of(first)
    with first.writing(), second.writing():
        assert first.claim_network(campaign, 1, "a")
        assert not second.claim_network(campaign, 1, "a")
        row = first.begin(campaign, 1, "a", "listed")
        with pytest.raises(TakenError, match=f"process {os.getpid()}"):
            second.begin(campaign, 1, "a", "listed")
        with pytest.raises(TakenError):
            second.add_pass(row.id, RecordedPass([], [1], {}, 0))
        first.add_pass(row.id, RecordedPass([], [1], {}, 0))
        first.finish(row.id, "ok", latency_ms=1.0)
        assert not second.claim_network(campaign, 1, "a"), "it has its label"
        assert second.claim_network(campaign, 1, "b")
    with first.writing():
        assert first.claim_network(campaign, 1, "b"), "the controller that had it has ended"


def test_two_threads_make_the_same_campaign_at_once(postgresql: PostgreSQLServer) -> None:
    place = postgresql.new_database()
    stores = [Store(place) for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda one=one: found.append(campaign_of(one).id)) for one in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


CONTROLLER = """
import sys
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.lab import Lab
from latlab.harness.transports.simulated.config import SimulatedDevice
lab = Lab(sys.argv[1])
device = {"kind": "pi4", "pace": 0.3}
lab.inventory = Inventory({f"sim{i}": SimulatedDevice.model_validate(device) for i in range(2)})
print("begins", flush=True)
found = lab.measure(["sim0", "sim1"], space="nasbench201", count=12, policy="quick")
print("rows", len(found.rows), set(found.rows["status"]), found.errors, flush=True)
"""


@pytest.mark.slow
def test_two_controllers_share_a_campaign_over_a_restart_and_a_kill(postgresql: PostgreSQLServer) -> None:
    place = postgresql.new_database()
    name = place.rpartition("/")[2]

    def controller() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, place],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished() -> int:
        there = postgresql.execute("SELECT to_regclass('latlab.measurements') IS NOT NULL", name)[0][0]
        sql = "SELECT count(*) FROM latlab.measurements WHERE status = 'ok'"
        return int(postgresql.execute(sql, name)[0][0]) if there else 0

    def wait_for(rows: int) -> None:
        until = time.monotonic() + 90
        while finished() < rows:
            assert time.monotonic() < until
            time.sleep(0.1)

    both = [controller(), controller()]
    wait_for(4)
    postgresql.stop("immediate")
    postgresql.start()
    wait_for(8)
    both[0].send_signal(signal.SIGKILL)
    both[0].wait()
    # As if it had not been seen for long; the other one says that it is there.
    postgresql.execute("DELETE FROM latlab.controllers", name)
    said, errors = both[1].communicate(timeout=120)
    assert "rows 24 {'ok'} ()" in said, errors
    rows = postgresql.execute("SELECT campaign_id, arch, count(*) FROM latlab.measurements GROUP BY 1, 2", name)
    assert len(rows) == 24
    assert {count for *_, count in rows} == {1}
    assert postgresql.execute("SELECT count(*) FROM latlab.controllers", name)[0][0] <= 1
    assert "waiting for it" in errors
    assert "Traceback" not in errors


def test_who_only_asks_does_not_wait(postgresql: PostgreSQLServer) -> None:
    place = postgresql.new_database()
    with Store(place) as store:
        campaign = filled(store)
        postgresql.stop()
        try:
            began = time.monotonic()
            with pytest.raises(StoreError, match="cannot be reached"):
                store.rows(campaign, 1)
            assert time.monotonic() - began < 5
        finally:
            postgresql.start()
        assert list(store.rows(campaign, 1)) == ["a", "b"]


def test_a_controller_that_waits_in_vain_says_so(postgresql: PostgreSQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WAIT_S", 1.0)
    place = postgresql.new_database()
    with Store(place) as store:
        campaign = filled(store)
        with store.writing():
            postgresql.stop()
            try:
                with pytest.warns(StoreWarning, match="waiting for it"), pytest.raises(StoreError, match="reached"):
                    store.begin(campaign, 1, "z", "listed")
            finally:
                postgresql.start()
