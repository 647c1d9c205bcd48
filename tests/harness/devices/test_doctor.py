"""Tests of the doctor on healthy and on broken devices: each line says what was found and what to do."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers.fixtures import Peers
from peers.linux_host import LinuxHost
from peers.loopback_host import LoopbackHost
from peers.phone import Phone
from peers.ssh import Key

from latlab.agents import runtimes
from latlab.agents.protocol.errors import AgentError
from latlab.harness.devices.doctor import Examination, examine, examine_controller
from latlab.harness.devices.health_checks import Clocks, Finding, compare_clocks, conditions, facts, step_details
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.exporters.executorch import ExecuTorchExporter
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.targets import USUAL_RUNTIMES
from latlab.harness.transports import open_transport
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.config import DeviceConfig
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.ssh import connection as ssh_connection
from latlab.harness.transports.ssh import session as ssh_session
from latlab.harness.transports.ssh.config import SSHDevice

RUNTIMES = runtimes.NAMES
WANTS_TFLITE: Any = [{"runtime": "tflite", "threads": [1, 2]}]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without keys and settings, and no agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


def is_installed(runtime: str) -> bool:
    try:
        return bool(runtimes.find(runtime).version)
    except AgentError:
        return False


def look_at(config: DeviceConfig, name: str = "patient") -> Examination:
    [examination] = examine([name], Inventory({name: config}))
    for finding in examination.findings:
        assert finding.state == "ok" or finding.advice, finding
        assert name not in finding.found, "the device is named above its lines"
    return examination


def lines(examination: Examination) -> dict[str, Finding]:
    found = {finding.check: finding for finding in examination.findings}
    assert len(found) == len(examination.findings), "one line per check"
    return found


def failed(examination: Examination) -> list[str]:
    return [finding.check for finding in examination.findings if finding.state == "failed"]


def a_python(folder: Path, patch: str = "", **modules: str) -> Path:
    """Write a program that runs this Python with other modules before its own."""
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "sitecustomize.py").write_text(patch)
    for name, text in modules.items():
        (folder / "lib" / f"{name}.py").write_text(text)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={folder}/lib exec {sys.executable} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Devices that are well


def test_this_machine_is_looked_at_from_end_to_end(tmp_path: Path) -> None:
    examination = look_at(LocalDevice(work=tmp_path / "w", targets=WANTS_TFLITE))
    found = lines(examination)
    assert failed(examination) == [], lines(examination)
    assert [f.check for f in examination.findings[:2]] == ["work folder", "Python"]
    assert found["work folder"].found == str(tmp_path / "w")
    assert f"Python {sys.version.split()[0]}" in found["Python"].found
    assert {"processor", "memory", "clock", "disk", "steady clock"} <= set(found)
    for runtime in RUNTIMES:
        expected = "a small network in" if is_installed(runtime) else "not installed, and no target wants it"
        assert expected in found[f"runtime {runtime}"].found
    if len(os.sched_getaffinity(0)) > 1:
        assert "a small network in" in found["tflite, 2 threads"].found
    assert "wall clock" not in found


def test_a_device_that_nobody_has_written_targets_for_needs_the_usual_runtimes_only(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    found = lines(look_at(LocalDevice(python=bare / "bin" / "python", work=tmp_path / "w")))
    states = {runtime: found[f"runtime {runtime}"].state for runtime in RUNTIMES}
    assert {runtime for runtime, state in states.items() if state != "ok"} == set(USUAL_RUNTIMES)


def test_files_that_nothing_here_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device has ExecuTorch; this machine, which would have to write the files, does not."""
    if not is_installed("executorch"):
        pytest.skip("executorch is not installed: pip install 'latlab[executorch]'")

    def missing(*_: object) -> str:
        raise BadInputError("this machine has no executorch", "Install it.")

    monkeypatch.setattr(ExecuTorchExporter, "version", property(missing))
    monkeypatch.setattr("latlab.harness.exporters.cache._version", lambda _, kind, __: get_exporter(kind).version)
    found = lines(look_at(LocalDevice(work=tmp_path / "w", targets=WANTS_TFLITE)))
    line = found["runtime executorch"]
    assert (line.state, line.found, line.advice) == ("warning", "this machine has no executorch", "Install it.")
    assert "a small network in" in found["runtime tflite"].found


def test_openvino_with_one_and_with_two_threads(tmp_path: Path) -> None:
    """It never uses more CPUs than it had at its first network, which must not be the one with one thread."""
    if not is_installed("openvino") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs openvino (pip install 'latlab[openvino]') and two CPUs")
    wants: Any = [{"runtime": "openvino", "threads": [1, 2]}]
    examination = look_at(LocalDevice(work=tmp_path / "w", targets=wants))
    found = lines(examination)
    assert "a small network in" in found["runtime openvino"].found
    assert "a small network in" in found["openvino, 2 threads"].found
    checks = [finding.check for finding in examination.findings]
    assert checks.index("runtime onnxruntime") < checks.index("runtime openvino") < checks.index("openvino, 2 threads")


def test_a_simulated_device_is_well() -> None:
    examination = look_at(SimulatedDevice(kind="ideal"))
    assert examination.state == "ok"
    assert {f"runtime {runtime}" for runtime in RUNTIMES} <= set(lines(examination))


def test_devices_are_looked_at_side_by_side_and_told_in_order(tmp_path: Path) -> None:
    devices: dict[str, DeviceConfig] = {
        "gone": SSHDevice(host="127.0.0.1", port=closed_port(), user="x"),
        "here": LocalDevice(work=tmp_path / "w"),
        "toy": SimulatedDevice(),
    }
    examinations = list(examine(["toy", "gone", "here"], Inventory(devices)))
    assert [one.device for one in examinations] == ["toy", "gone", "here"]
    assert [one.state == "failed" for one in examinations] == [False, True, False]


def test_json(tmp_path: Path) -> None:
    told = look_at(SimulatedDevice()).to_json()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {"device", "transport", "state", "checks"}
    assert set(told["checks"][0]) == {"check", "state", "found", "advice"}


# Devices that are not


def test_a_runtime_that_is_missing_fails_only_where_it_is_wanted(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    examination = look_at(LocalDevice(python=bare / "bin" / "python", work=tmp_path / "w", targets=WANTS_TFLITE))
    found = lines(examination)
    assert failed(examination) == ["runtime tflite"]
    assert found["runtime tflite"].advice == "Install it: `latlab setup patient --runtime tflite`."
    for runtime in sorted(set(RUNTIMES) - {"tflite"}):
        line = found[f"runtime {runtime}"]
        assert (line.state, line.found, line.advice) == ("ok", "not installed, and no target wants it", "")
    found = lines(look_at(LocalDevice(python=bare / "bin" / "python", work=tmp_path / "w")))
    assert found["runtime onnxruntime"].state == "failed"
    assert found["runtime tflite"].state == "warning"
    assert found["runtime tflite"].advice == "Install it: `latlab setup patient --runtime tflite`."


def test_a_runtime_that_imports_but_does_not_run(tmp_path: Path) -> None:
    """Like tflite-runtime 2.14 with NumPy 2: an import is not a health check."""
    python = a_python(tmp_path / "p", onnxruntime="def __getattr__(name): raise AttributeError(f'no {name} here')")
    examination = look_at(LocalDevice(python=python, work=tmp_path / "w"))
    assert failed(examination) == ["runtime onnxruntime"]
    assert "here" in lines(examination)["runtime onnxruntime"].found
    assert lines(examination)["runtime tflite"].state != "failed"


def test_a_runtime_that_takes_the_worker_with_it(tmp_path: Path) -> None:
    """The others are tried all the same, with a new worker."""
    python = a_python(tmp_path / "p", onnxruntime="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    examination = look_at(LocalDevice(python=python, work=tmp_path / "w"))
    assert failed(examination) == ["runtime onnxruntime"]
    found = lines(examination)["runtime onnxruntime"]
    assert "SIGSEGV" in found.found
    assert "latlab setup patient --runtime onnxruntime" in found.advice
    assert "a small network in" in lines(examination)["runtime torchscript"].found


def test_a_clock_that_does_not_run_as_it_should(tmp_path: Path) -> None:
    patch = "import time\nreal = time.perf_counter\ntime.perf_counter = lambda: real() * 0.5\n"
    patch += "wall = time.time\ntime.time = lambda: wall() - 86400 * 3\n"
    examination = look_at(LocalDevice(python=a_python(tmp_path / "p", patch), work=tmp_path / "w"))
    found = lines(examination)
    assert failed(examination) == ["steady clock"]
    assert found["wall clock"].state == "warning"
    assert "3 days behind" in found["wall clock"].found


def test_a_device_in_use(tmp_path: Path) -> None:
    config = LocalDevice(work=tmp_path / "w")
    with open_transport(config, "patient", "onnxruntime") as other:
        other.request("hello", 30, protocol=1)
        examination = look_at(config)
    assert failed(examination) == ["in use"]
    assert "in use" in lines(examination)["in use"].found


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    wanted: Any = [
        {"runtime": "onnxruntime", "threads": 1000},
        {"runtime": "torchscript", "accelerator": "cuda"},
    ]
    examination = look_at(LocalDevice(work=tmp_path / "w", targets=wanted))
    assert failed(examination) == ["onnxruntime, 1000 threads", "torchscript on cuda"]
    assert "take turns" in lines(examination)["onnxruntime, 1000 threads"].found
    examination = look_at(LocalDevice(work=tmp_path / "w", affinity=[3000]))
    assert failed(examination) == ["affinity"]


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    assert failed(look_at(LocalDevice(python=Path("/no/such/python"), work=tmp_path / "w"))) == ["Python"]
    chatty = tmp_path / "chatty"
    chatty.write_text("#!/bin/sh\necho Welcome\n")
    chatty.chmod(0o755)
    examination = look_at(LocalDevice(python=chatty, work=tmp_path / "w"))
    assert failed(examination) == ["worker"]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert failed(look_at(LocalDevice(work=tmp_path / "file" / "w"))) == ["work folder"]


def test_nothing_is_exported_for_a_device_that_is_not_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "cache"))
    look_at(SSHDevice(host="127.0.0.1", port=closed_port(), user="x"))
    assert not list(tmp_path.glob("cache/artifacts/files/*"))


def test_an_export_cache_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATLAB_CACHE", str(tmp_path / "file" / "cache"))
    [finding] = examine_controller()
    assert finding.state == "failed"
    assert "LATLAB_CACHE" in finding.advice
    assert failed(look_at(LocalDevice(work=tmp_path / "w")))


# SSH


def over_ssh(host: LoopbackHost | LinuxHost, folder: Path, **changes: Any) -> SSHDevice:
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(host.access.known_hosts)
    settings_ = {
        "host": host.address,
        "port": host.port,
        "user": host.user,
        "key": host.access.client_key,
        "known_hosts": known_hosts,
        "python": host.python,
        "work": f"{host.home}/latlab",
    }
    return SSHDevice(**{**settings_, **changes})


def steps_until(examination: Examination, step: str) -> None:
    """Assert that the steps before the failing one are fine and that nothing comes after it."""
    steps = list(open_transport(examination.config, "patient", "tflite").STEPS)
    assert [finding.check for finding in examination.findings] == steps[: steps.index(step) + 1]
    assert failed(examination) == [step]


def test_a_host_over_ssh(loopback_host: LoopbackHost, tmp_path: Path) -> None:
    examination = look_at(over_ssh(loopback_host, tmp_path))
    assert failed(examination) == [], lines(examination)
    steps = list(open_transport(examination.config, "patient", "tflite").STEPS)
    assert [finding.check for finding in examination.findings][: len(steps)] == steps
    assert "a small network in" in lines(examination)["runtime tflite"].found


def test_a_refused_login(loopback_host: LoopbackHost, tmp_path: Path) -> None:
    stranger = Key.generate(tmp_path / "id_stranger")
    steps_until(look_at(over_ssh(loopback_host, tmp_path, key=stranger.private)), "login")


def test_a_host_key_that_changed(loopback_host: LoopbackHost, tmp_path: Path) -> None:
    config = over_ssh(loopback_host, tmp_path)
    other = Key.generate(tmp_path / "other_key").public
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(known_hosts.read_text().replace(loopback_host.access.host_key, other))
    steps_until(look_at(config), "host key")


def test_a_closed_port_and_a_name_that_is_none() -> None:
    steps_until(look_at(SSHDevice(host="127.0.0.1", port=closed_port(), user="x")), "network")
    steps_until(look_at(SSHDevice(host="nowhere.invalid", user="x")), "address")


def test_a_port_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_session, "GREET_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        examination = look_at(SSHDevice(host="127.0.0.1", port=silent.getsockname()[1], user="x", patience_s=2))
        assert time.monotonic() - started < 15
    assert failed(examination) == ["network"]


@pytest.mark.peers
def test_a_cable_that_is_cut_before(linux_host: LinuxHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connection, "REACH_S", 2.0)
    linux_host.link_down()
    started = time.monotonic()
    examination = look_at(over_ssh(linux_host, tmp_path, patience_s=2))
    assert time.monotonic() - started < 15
    steps_until(examination, "network")


@pytest.mark.peers
def test_a_disk_that_is_full(linux_host: LinuxHost, tmp_path: Path) -> None:
    linux_host.fill_disk()
    examination = look_at(over_ssh(linux_host, tmp_path))
    assert examination.state == "failed"
    assert any(word in " ".join(f"{f.found} {f.advice}" for f in examination.findings) for word in ("space", "full"))


# Phones


@pytest.fixture(scope="module")
def a_phone(peers: Peers) -> Iterator[Phone]:
    phone = peers.phone()
    yield phone
    peers.close(phone)


@pytest.mark.peers
def test_a_phone(a_phone: Phone) -> None:
    examination = look_at(ADBDevice(host=a_phone.address, python=a_phone.python, targets=[{"runtime": "tflite"}]))
    assert failed(examination) == [], lines(examination)
    found = lines(examination)
    assert "a small network in" in found["runtime tflite"].found
    assert "°C" in found["temperature"].found
    assert "schedutil" in found["governor"].found


def test_a_phone_that_is_not_there() -> None:
    examination = look_at(ADBDevice(host="127.0.0.1", port=closed_port()))
    steps_until(examination, "connection")


# What devices say of themselves

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["powersave", "soc"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def saying(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), ANYTHING, max_size=len(names))


HELLOS = st.fixed_dictionaries(
    {
        "cpus": saying("count", "model", "governor", "affinity") | ANYTHING,
        "work": saying("folder", "free_bytes", "total_bytes") | ANYTHING,
        "gpus": st.lists(saying("name", "driver") | ANYTHING, max_size=3) | ANYTHING,
        "memory_bytes": ANYTHING,
        "clock_resolution_ns": ANYTHING,
        "machine": ANYTHING | st.just("aarch64"),
        "fingerprint": ANYTHING,
        "python": ANYTHING,
    }
)
TELEMETRY = st.fixed_dictionaries(
    {
        "temperature_c": st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3) | ANYTHING,
        "throttled": ANYTHING | st.integers(0, 1 << 20),
        "load": st.lists(ANYTHING, max_size=3) | ANYTHING,
        "memory_mb": saying("available") | ANYTHING,
        "gpu": st.lists(saying("processes") | ANYTHING, max_size=3) | ANYTHING,
        "clocks": saying("wall_s", "steady_s") | ANYTHING,
    }
)


@settings(max_examples=200, deadline=None)
@given(HELLOS, TELEMETRY)
def test_nonsense_gives_no_line_or_a_fit_one(hello: dict[str, Any], telemetry: dict[str, Any]) -> None:
    findings = [*facts(hello, on_this_machine=False), *conditions(telemetry, hello)]
    step_details(hello)
    clocks = Clocks.read(telemetry, 0.0, 1.0, 0.0)
    if clocks is not None:
        findings += compare_clocks(clocks, clocks)
    for finding in findings:
        assert finding.found.isprintable()
        assert finding.state == "ok" or finding.advice


def test_what_a_raspberry_pi_says_of_its_power_supply() -> None:
    pi = {"machine": "aarch64", "cpus": {"count": 4, "affinity": [0, 1, 2, 3]}}
    [now] = conditions({"throttled": 0x50005}, pi)
    assert (now.state, now.found) == ("warning", "now: too little voltage, throttled")
    [before] = conditions({"throttled": 0x50000}, pi)
    assert before.found == "since boot: too little voltage, throttled"
    [never] = conditions({"throttled": 0}, pi)
    assert never.state == "ok"
