"""A test of three Linux hosts, an emulated Raspberry Pi and a phone, driven at once from one inventory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml
from adb_shell.auth.keygen import keygen
from fleet_run import SPACE, adb_device, ssh_device
from peers.fixtures import Peers

from latlab.harness.fleet.fleet import Fleet
from latlab.harness.fleet.jobs import Incident, Job
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.lab import Lab
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Measurement
from latlab.harness.targets import Target
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.search_spaces import get

pytestmark = [pytest.mark.peers, pytest.mark.slow]

# The emulator is some hundred times slower than a Pi: three small networks, three runs of each.
BRIEF = TimingPolicy("brief", warmup=1, runs=3, trim=0.0, passes=1, spread=0)
SMALL = [f"|none~0|+|none~0|none~1|+|{op}~0|none~1|none~2|" for op in ("skip_connect", "avg_pool_3x3", "nor_conv_1x1")]


def test_sixty_networks_on_five_peers_at_once(peers: Peers, tmp_path: Path) -> None:
    hosts = [peers.linux_host(name) for name in ("alpha", "beta", "gamma")]
    pi, phone = peers.pi("pi"), peers.phone("phone")
    keygen(str(tmp_path / "adbkey"))
    devices = {machine.name: ssh_device(machine, tmp_path) for machine in hosts}
    devices["pi"] = ssh_device(pi, tmp_path, patience_s=15)  # it answers late, with all the others at work
    # Two formats, so that files are shared between some of the devices and not all.
    phone_device = adb_device(phone, tmp_path / "adbkey", targets=[{"runtime": "tflite"}])
    described = {name: device.model_dump(mode="json", exclude_none=True) for name, device in devices.items()}
    described["phone"] = phone_device.model_dump(mode="json", exclude_none=True)
    (tmp_path / "inventory.yaml").write_text(yaml.safe_dump({"devices": described}))

    lab = Lab(tmp_path / "latlab.db", inventory=tmp_path / "inventory.yaml")
    archs = [arch.text for arch in get(SPACE).sample(15, 3)]
    wanted = {"alpha": archs, "beta": archs[:14], "gamma": archs[:14], "phone": archs[:14], "pi": SMALL}
    jobs, campaigns = [], {}
    for name, own in wanted.items():
        (target,) = load_inventory(tmp_path / "inventory.yaml").device(name).all_targets(name)
        policy = BRIEF if name == "pi" else PRESETS["default"]
        campaigns[name] = campaign = lab.store.campaign(target, SPACE, policy, 0, "listed")

        session = MeasurementSession(lab.store, campaign, 1)

        def work(measurer, tell, session=session, own=own):  # type: ignore[no-untyped-def]
            for row in measurer.run(session, [(arch, "listed") for arch in own]):
                tell(row)

        jobs.append(Job(target, work, total=len(own)))
    told: Counter[str] = Counter()
    with Fleet(lab.store, lab.inventory, lab.cache, jobs) as fleet:
        for event in fleet.run():
            assert not isinstance(event, Incident), event
            assert isinstance(event, Measurement)
            told[next(name for name, one in campaigns.items() if one.id == event.campaign_id)] += 1
    assert [job.error for job in jobs] == [None] * 5

    rows = lab.store.table(raw=True)
    rows["device"] = [Target.parse(target).device for target in rows["target"]]
    assert len(rows) == 60
    assert not rows.duplicated(["target", "arch"]).any()
    assert set(rows["status"]) == {"ok"}
    assert told == {name: len(own) for name, own in wanted.items()}
    assert {name: set(own["arch"]) for name, own in rows.groupby("device")} == {n: set(a) for n, a in wanted.items()}
    # Side by side: nobody was done before the others had begun. (By the store: rows are told of some at a time.)
    times = rows.groupby("device").agg({"started_at": "min", "finished_at": "max"})
    assert times["started_at"].drop("pi").max() < times["finished_at"].min()

    # The right file everywhere: the same for all that run the same format, and on the device what the row says.
    onnx = rows[rows["device"] != "phone"]
    assert (onnx.groupby("arch")["artifact_sha256"].nunique() == 1).all()
    assert set(rows[rows["device"] == "phone"]["artifact_sha256"]).isdisjoint(onnx["artifact_sha256"])
    folders = {machine.name: machine.path("/root/.cache/latlab/models") for machine in [*hosts, pi]}
    folders["phone"] = phone.path("/data/local/tmp/latlab/models")
    for name, own in rows.groupby("device"):
        there = {file.stem for file in folders[str(name)].iterdir()}
        assert set(own["artifact_sha256"]) <= there

    # The right fingerprint: each device its own facts.
    assert (rows.groupby("device")["fingerprint_id"].nunique() == 1).all()
    facts = {name: lab.store.facts(own["fingerprint_id"].iloc[0]) for name, own in rows.groupby("device")}
    assert facts["pi"]["machine"] == "aarch64"
    assert facts["alpha"]["machine"] != "aarch64" or facts["phone"]["machine"] == facts["alpha"]["machine"]
    assert facts["phone"]["python"].startswith("3.13")
    assert {name: one["runtimes"]["onnxruntime"]["version"] for name, one in facts.items()} == dict.fromkeys(
        facts, "1.31.1"
    )
    runs = Counter({name: sum(len(p) for p in own["passes"].iloc[0]) for name, own in rows.groupby("device")})
    assert runs["pi"] == 3
    assert {runs["alpha"], runs["phone"]} <= {27, 36, 45}
    assert (rows["latency_ms"] > 0).all()
