"""Tests that `devices` and `doctor` judge alike, and that no other command refuses a remedy that they offer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from latlab.harness.cli.devices import Package
from latlab.harness.devices.doctor import examine
from latlab.harness.devices.readiness import connections, install_advice, obstacle
from latlab.harness.devices.status import judged, overview
from latlab.harness.devices.worker_client import Hello
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.provisioning import setup
from latlab.harness.targets import BENCHMARK_MODEL, RUNTIMES, Target
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.config import DeviceConfig, TargetsConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.ssh.config import SSHDevice

KINDS: dict[str, DeviceConfig] = {
    "local": LocalDevice(),
    "ssh": SSHDevice(host="pi", user="pi"),
    "adb": ADBDevice(serial="x"),
    "simulated": SimulatedDevice(),
}
HELLO = {"cpus": {"count": 4, "affinity": [0, 1, 2, 3]}, "gpus": []}
BARE = Hello({**HELLO, "runtimes": {}})
FULL = Hello({**HELLO, "runtimes": {name: {"version": "1.0"} for name in RUNTIMES}})


def commands(text: str) -> list[list[str]]:
    """Return the latlab commands in an advice."""
    return [found.split() for found in re.findall(r"`latlab ([^`]+)`", text)]


def check_setup(words: list[str], name: str, config: DeviceConfig) -> None:
    """Run a `setup` up to the end of its validation: what typer takes, and what `set_up` takes."""
    assert words[:2] == ["setup", name]
    runtimes = [words[place + 1] for place, word in enumerate(words) if word == "--runtime"]
    assert runtimes
    assert [Package(runtime) for runtime in runtimes] == runtimes
    assert setup._named(config, name, runtimes) == runtimes


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_remedy_is_one_that_is_taken(kind: str, runtime: str, again: bool) -> None:
    config = KINDS[kind]
    found = obstacle(config, Target("it", runtime, RUNTIMES[runtime].accelerators[0]), BARE)
    assert found is not None
    advice = install_advice("it", runtime, again=again) if again else found.advice
    for words in commands(advice):
        check_setup(words, "it", config)
    assert bool(commands(advice)) == (runtime != BENCHMARK_MODEL)
    answer = judged("it", [found.target], [found], 0.1)
    assert answer.state == "not set up"
    for words in commands(answer.detail):
        check_setup(words, "it", config)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (Target("it", "onnxruntime", "cuda"), "no GPU"),
        (Target("it", "onnxruntime", threads=8), "8 threads would take turns"),
        (Target("it", "onnxruntime"), None),
    ],
)
def test_what_else_is_in_the_way(target: Target, why: str | None) -> None:
    found = obstacle(LocalDevice(), target, FULL)
    assert (found is None) if why is None else (found is not None and why in found.why)


def test_some_targets_are_in_the_way() -> None:
    targets = [Target("it", "onnxruntime"), Target("it", "onnxruntime", threads=8)]
    found = [one for target in targets if (one := obstacle(LocalDevice(), target, FULL))]
    answer = judged("it", targets, found, 0.1)
    assert answer.state == "partly ready"
    assert answer.detail.startswith("1 of 2 targets cannot be measured, onnxruntime/cpu/fp32/t8/b1: 4 CPUs for timing")


def test_targets_of_another_program_take_another_connection() -> None:
    targets = [Target("it", BENCHMARK_MODEL), Target("it", "tflite"), Target("it", BENCHMARK_MODEL, "gpu")]
    assert connections(targets) == [[targets[1]], [targets[0], targets[2]]]


@pytest.mark.parametrize("wanted", [["onnxruntime"], ["tflite", "onnxruntime"]])
def test_devices_and_doctor_agree_about_a_real_worker(tmp_path: Path, wanted: list[str]) -> None:
    """It has neither; and one that has all is ready for both."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    targets = [TargetsConfig(runtime=name) for name in wanted]
    for python, ready in ((bare / "bin" / "python", False), (None, True)):
        config = LocalDevice(python=python, work=tmp_path / "w", targets=targets)
        [examination] = examine(["it"], Inventory({"it": config}))
        [one] = overview(Inventory({"it": config}), tmp_path / "none.db")
        assert (one.state == "ready", examination.state != "failed") == (ready, ready), one.detail
        if not ready:
            advice = next(line.advice for line in examination.findings if line.check == f"runtime {wanted[0]}")
            assert advice in one.detail, "the same words"
