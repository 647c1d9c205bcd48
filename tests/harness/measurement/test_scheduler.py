"""Tests of the way from an architecture to its row, with the real exporters, worker and runtimes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from latlab.harness import Lab
from latlab.harness.devices.session import DeviceFaultError, DeviceSession
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.errors import LatlabError
from latlab.harness.exporters import Artifact, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.measurement.scheduler import PassScheduler
from latlab.harness.store.store import Measurement, Store
from latlab.harness.timing_policy import PRESETS
from latlab.harness.transports import open_transport
from latlab.harness.transports.local.transport import LocalTransport
from latlab.search_spaces import get

SPACE = get("nasbench201")
SMALL = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "latlab.db")


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite", "torchscript"])
def test_each_runtime(lab: Lab, runtime: str) -> None:
    rows = lab.measure(space="nasbench201", archs=[CONV, SMALL], options=TargetOptions(runtime=runtime)).rows
    assert rows["status"].tolist() == ["ok", "ok"]
    assert rows["arch"].tolist() == [CONV, SMALL]
    assert rows["latency_ms"][0] > rows["latency_ms"][1] > 0
    assert rows["target"][0] == f"local/{runtime}/cpu/fp32/t1/b1"
    policy = PRESETS["default"]
    for passes in rows["passes"]:
        assert policy.passes <= len(passes) <= policy.max_passes
        assert {len(one) for one in passes} == {policy.runs}
    assert (rows[["warm_s", "measure_s"]] > 0).all().all()
    assert rows["load_s"][0] > 0  # the other is an anchor, and loaded already
    artifact = rows["artifact"][0]
    assert '"passed": true' in (artifact if isinstance(artifact, str) else str(artifact))


def test_batch_size_is_another_target(lab: Lab) -> None:
    one, eight = (
        lab.measure(space="nasbench201", archs=[CONV], options=TargetOptions(batch_size=b)).rows for b in (1, 8)
    )
    assert eight["target"][0].endswith("/b8")
    assert eight["latency_ms"][0] > 2 * one["latency_ms"][0]


def test_policy_help_is_ten_and_fifty_in_one_sitting(lab: Lab) -> None:
    from scipy import stats

    rows = lab.measure(space="nasbench201", archs=[CONV], policy="help").rows
    (samples,) = rows["passes"][0]
    assert len(samples) == 50
    with lab.store.session() as session:
        measurement = session.get_one(Measurement, int(rows["id"][0]))
        assert len(measurement.passes[0].warmup_ns) == 10
    assert rows["latency_ms"][0] == pytest.approx(stats.trim_mean(samples, 0.1) / 1e6)


def test_the_same_call_continues_and_a_larger_one_extends(lab: Lab) -> None:
    seen: list[str] = []
    lab.measure(space="nasbench201", count=3, listener=RunListener(observe=lambda row: seen.append(row.arch)))
    lab.measure(space="nasbench201", count=3, listener=RunListener(observe=lambda row: seen.append(row.arch)))
    assert len(seen) == 3
    rows = lab.measure(
        space="nasbench201", count=5, listener=RunListener(observe=lambda row: seen.append(row.arch))
    ).rows
    assert len(seen) == len(set(seen)) == len(rows) == 5
    again = lab.measure(space="nasbench201", count=5, new_session=True).rows
    assert again["session"].tolist() == [2] * 5
    assert len(lab.store.table()) == 10


def test_exports_are_counted_where_they_were_made(lab: Lab, tmp_path: Path) -> None:
    made = lab.measure(space="nasbench201", archs=[CONV], seed=11).rows
    kept = Lab(tmp_path / "other.db").measure(space="nasbench201", archs=[CONV], seed=11).rows
    spent = ["build_s", "export_s", "parity_s"]
    assert (made[spent] > 0).all().all()
    assert (kept[spent] == 0).all().all()
    assert made["artifact_sha256"].tolist() == kept["artifact_sha256"].tolist()


def test_networks_with_the_same_graph_are_timed_once(lab: Lab) -> None:
    dead = "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"  # its first edge leads nowhere
    rows = lab.measure(space="nasbench201", archs=[CONV, dead]).rows.set_index("arch")
    assert rows.loc[CONV, "latency_ms"] == rows.loc[dead, "latency_ms"]
    assert rows["same_graph_as"].notna().sum() == 1
    assert rows.loc[CONV, "passes"] == rows.loc[dead, "passes"]
    written = lab.measure(space="nasbench201", archs=[CONV, dead], as_written=True).rows
    assert written["artifact_sha256"].nunique() == 2


def test_a_failing_network_is_a_row_and_the_others_go_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file damaged between export and load: the device refuses it, and says so."""
    from latlab.harness.measurement import scheduler as measure

    original = measure.PassScheduler._admit

    def damage(self: measure.PassScheduler, round_: int) -> object:
        artifact, arch = self._ready[0].artifact, self._ready[0].arch
        if arch == SMALL:
            data = artifact.path.read_bytes()
            artifact.path.unlink()  # a link on the device must not share the damage by chance
            artifact.path.write_bytes(data[: len(data) // 2])
        return original(self, round_)

    monkeypatch.setattr(measure.PassScheduler, "_admit", damage)
    # A seed of its own: weights that no other test has left on the device.
    rows = lab.measure(space="nasbench201", archs=[SMALL, CONV], seed=7).rows.set_index("arch")
    assert rows.loc[CONV, "status"] == "ok"
    assert rows.loc[SMALL, "status"] == "corrupt_artifact"
    assert rows.loc[SMALL, "error"]


def test_no_more_networks_take_turns_than_stay_loaded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from latlab.harness.devices import loaded_models as loaded

    load, take = DeviceSession.load, PassScheduler._take_pass
    loads, passes = Counter[str](), Counter[str]()

    def count_load(self: DeviceSession, artifact: Artifact, network: str = "") -> LoadedModel:
        loads[network] += 1
        return load(self, artifact, network)

    def count_pass(self: PassScheduler, net: Any, round_: int) -> object:
        passes[f"nasbench201/{net.row.arch}"] += 1
        return take(self, net, round_)

    monkeypatch.setattr(DeviceSession, "load", count_load)
    monkeypatch.setattr(PassScheduler, "_take_pass", count_pass)
    monkeypatch.setattr(loaded, "MOST_BYTES", 14 * loaded.PER_NETWORK_BYTES)  # four of them are anchors
    archs = list(dict.fromkeys(SPACE.canonical(arch).text for arch in SPACE.sample(24, 5)))
    with Exports(lab.cache) as exports:  # before, or else they would come one by one
        for future in [exports.submit(ExportRequest("nasbench201", arch, "onnx")) for arch in archs]:
            future.result()
    rows = lab.measure(space="nasbench201", archs=archs).rows
    assert (rows["status"] == "ok").all()
    # A network is loaded once and takes its passes then. But one that waits for the slice to close may have to go, and
    # is wanted again if the slice was disturbed: how often that is, the machine decides. Were there no limit, the least
    # recently used network would go at each pass, and nearly every pass would load its network.
    again = sum(loads[network] - 1 for network in passes)
    further = sum(taken - 1 for taken in passes.values())
    assert further >= 3 * len(archs)
    assert again < further / 3


def test_a_network_that_somebody_removes_before_it_is_loaded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's owner clears the app's storage, say: the network is brought there again."""
    original, pushes = LocalTransport.push, []

    def removed(self: LocalTransport, path: Path, sha256: str, suffix: str) -> None:
        original(self, path, sha256, suffix)
        pushes.append(sha256)
        if len(pushes) < 2 or lasting:
            (self._work / "models" / (sha256 + suffix)).unlink()

    lasting = False
    monkeypatch.setattr(LocalTransport, "push", removed)
    assert lab.measure(space="nasbench201", archs=[SMALL], seed=7).rows["status"].tolist() == ["ok"]
    lasting = True
    with pytest.raises(DeviceFaultError, match="is not on the device"):
        lab.measure(space="nasbench201", archs=[CONV], seed=7)
    monkeypatch.setattr(LocalTransport, "push", original)
    assert lab.measure(space="nasbench201", archs=[CONV], seed=7).rows["status"].tolist() == ["ok"]


def workers() -> list[int]:
    """Return the ids of device workers that are children of this process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == os.getpid() and "latlab-worker" in command:
            found.append(int(stat.parent.name))
    return found


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(lab: Lab) -> None:
    killed: list[int] = []

    def kill_one(row: Measurement) -> None:
        if not killed:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    # The default may have had enough with fewer; of a fixed number of passes it shows that each is there, once.
    lab.inventory.policies["five"] = replace(PRESETS["default"], name="five", passes=5)
    rows = lab.measure(space="nasbench201", count=6, policy="five", listener=RunListener(observe=kill_one)).rows
    assert killed
    assert rows["status"].tolist() == ["ok"] * 6
    assert [len(passes) for passes in rows["passes"]] == [5] * 6


def test_a_network_that_kills_every_worker_is_a_failure_not_the_end(lab: Lab) -> None:
    stop = threading.Event()

    def killer() -> None:
        while not stop.wait(0.05):
            for pid in workers():
                stop.wait(0.3)  # at any time of its work
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        # Either every network fails as `crash`, or the device is given up; never a hang, never a traceback.
        with suppress(LatlabError):
            rows = lab.measure(space="nasbench201", archs=[CONV, SMALL]).rows
            assert set(rows["status"]) <= {"crash", "device_lost", "ok"}
    finally:
        stop.set()
        thread.join()


def killed_run(store: Path, count: int, rows_before: int) -> int:
    """Start the command, kill it with SIGKILL once it has a new row, and return the number of rows."""
    command = [sys.executable, "-m", "latlab.harness", "measure", "local", "--space", "nasbench201"]
    process = subprocess.Popen(
        [*command, "--count", str(count), "--store", str(store), "--json"], stdout=subprocess.PIPE
    )
    try:
        wait_until(
            lambda: process.poll() is not None or (store.exists() and len(Store(store).table()) > rows_before),
            "nothing is measured",
            120,
        )
    finally:
        process.kill()
        process.wait()
    return len(Store(store).table())


def test_killed_and_run_again_it_ends_with_every_row_once(tmp_path: Path) -> None:
    store, rows = tmp_path / "latlab.db", 0
    for _ in range(3):
        more = killed_run(store, 12, rows)
        assert more > rows or more == 12
        rows = more
    before = Store(store).table(raw=True).set_index("arch")
    final = Lab(store).measure(space="nasbench201", count=12).rows
    assert len(final) == final["arch"].nunique() == 12
    assert set(final["arch"]) == {arch.text for arch in SPACE.sample(12, 0)}
    for arch, passes in before["passes"].items():
        assert final.set_index("arch").loc[arch, "passes"] == passes


def test_two_controllers_do_not_share_a_store(lab: Lab) -> None:
    with lab.store.writing(), pytest.raises(LatlabError, match="being written"):
        Lab(lab.store.path).measure(space="nasbench201", archs=[SMALL])


def test_two_controllers_do_not_share_a_device(lab: Lab) -> None:
    with open_transport(lab.inventory.device("local"), "local", "onnxruntime") as other:
        pid = other.request("hello", 20, protocol=1)["pid"]
        with pytest.raises(LatlabError, match=f"in use.*{pid}"):
            lab.measure(space="nasbench201", archs=[SMALL])
    assert lab.measure(space="nasbench201", archs=[SMALL]).rows["status"].tolist() == ["ok"]


def test_embed_gives_help_s_vector(lab: Lab) -> None:
    rows = lab.embed(space="nasbench201").rows
    assert rows["arch"].tolist() == [arch.text for arch in SPACE.references()]
    assert rows["embedding"].min() == 0
    assert rows["embedding"].max() == 1
    assert np.argsort(rows["embedding"]).tolist() == np.argsort(rows["latency_ms"]).tolist()
