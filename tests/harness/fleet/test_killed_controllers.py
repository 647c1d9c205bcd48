"""Tests of what a controller that ends leaves on a device whose worker is in native code: nothing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_shell.auth.keygen import keygen
from killed_controllers import BUSY_CPU_S, SLOW_MODELS, Controller, stuck_package
from peers.loopback_host import LoopbackHost
from peers.phone import Phone

from latlab.harness.devices.session import DeviceSession
from latlab.harness.targets import Target
from latlab.harness.transports.local.config import LocalDevice

Start = Callable[..., Controller]
EXIT_CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
SIGNALS = list(EXIT_CODES)
PATIENCE_S = 20
"""Seconds for what takes two on a machine that does nothing else. The native calls last for hours."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts a command, which is ended after the test whatever happens."""
    started: list[Controller] = []

    def start(words: list[str], entry: dict[str, Any], lock: Path) -> Controller:
        started.append(Controller(words, tmp_path, entry, lock))
        return started[-1]

    yield start
    for one in started:
        one.close()


def check_killed(controller: Controller, number: signal.Signals, keeps: bool = True) -> None:
    killed = controller.kill(number, PATIENCE_S)
    assert killed.exit_code == EXIT_CODES[number]
    assert "Traceback" not in killed.said
    if number != signal.SIGKILL:
        assert ("the same command continues" in killed.said) == keeps


def local(folder: Path, python: str | None = None) -> tuple[dict[str, Any], Path]:
    """Return the inventory entry of this machine, and its lock."""
    entry = {"transport": "local", "work": folder / "work"}
    return entry | ({"python": python} if python else {}), folder / "work" / "lock"


@pytest.fixture
def stuck(tmp_path: Path) -> tuple[str, Path]:
    """An interpreter whose import of onnxruntime holds Python's lock for ever, and the file that says that it began."""
    (tmp_path / "stuck").mkdir()
    return stuck_package(tmp_path / "stuck", sys.executable)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("runtime", list(SLOW_MODELS))
def test_during_a_first_inference(start: Start, tmp_path: Path, runtime: str) -> None:
    if runtime in ("openvino", "executorch"):
        pytest.importorskip(runtime)
    model = SLOW_MODELS[runtime](tmp_path)
    words = ["measure", "device", "--model", str(model), "--runtime", runtime, "--policy", "help"]
    shape = ["--input", "256x256"] if runtime == "torchscript" else []
    controller = start([*words, *shape], *local(tmp_path))
    controller.wait_for_work(BUSY_CPU_S[runtime])
    check_killed(controller, signal.SIGKILL)


@pytest.mark.parametrize("number", SIGNALS)
def test_during_an_import(start: Start, tmp_path: Path, stuck: tuple[str, Path], number: signal.Signals) -> None:
    model = SLOW_MODELS["onnxruntime"](tmp_path)
    words = ["measure", "device", "--model", str(model), "--policy", "help"]
    controller = start(words, *local(tmp_path, stuck[0]))
    controller.wait_for_file(stuck[1])
    check_killed(controller, number)
    with DeviceSession("device", LocalDevice(work=tmp_path / "work"), Target("device", "tflite")) as session:
        assert session.lease is not None, "the next one has the device"


COMMANDS = {
    "sustain": ["sustain", "device", "--model", "slow.onnx", "--minutes", "1"],
    "onboard": ["onboard", "device", "--space", "nasbench201", "--budget", "3", "--runtime", "onnxruntime"],
    "embed": ["embed", "device", "--space", "nasbench201", "--runtime", "onnxruntime"],
    "profile": ["profile", "slow.onnx", "device", "--runtime", "onnxruntime"],
    "compare": ["compare", "slow.onnx", "slow.onnx", "device", "--runtime", "onnxruntime"],
    "doctor": ["doctor", "device"],
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command(
    start: Start, tmp_path: Path, stuck: tuple[str, Path], command: str, number: signal.Signals
) -> None:
    SLOW_MODELS["onnxruntime"](tmp_path)
    controller = start(COMMANDS[command], *local(tmp_path, stuck[0]))
    controller.wait_for_file(stuck[1])
    check_killed(controller, number, keeps=command not in ("profile", "doctor"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_over_ssh(start: Start, loopback_host: LoopbackHost, tmp_path: Path, number: signal.Signals) -> None:
    """The server closes the worker's input when the connection ends; with it ends the worker."""
    host, known_hosts = loopback_host, tmp_path / "known_hosts"
    known_hosts.write_text(host.access.known_hosts)
    python, importing = stuck_package(Path(host.home), host.python)
    entry = {"transport": "ssh", "host": host.address, "port": host.port, "user": host.user, "python": python}
    entry |= {"key": host.access.client_key, "known_hosts": known_hosts, "work": f"{host.home}/work"}
    model = SLOW_MODELS["onnxruntime"](tmp_path)
    words = ["measure", "device", "--model", str(model), "--policy", "help"]
    controller = start(words, entry, Path(host.home, "work", "lock"))
    controller.wait_for_file(importing)
    check_killed(controller, number)


@pytest.mark.peers
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_over_adb(start: Start, phone: Phone, tmp_path: Path, number: signal.Signals) -> None:
    keygen(str(tmp_path / "adbkey"))
    home = phone.path(phone.home)
    (home / "stuck").mkdir()
    (home / "stuck").chmod(0o777)
    python, importing = stuck_package(home / "stuck", phone.python, f"{phone.home}/stuck")
    entry = {"transport": "adb", "host": phone.address, "port": phone.port, "key": tmp_path / "adbkey"}
    entry |= {"python": python, "work": f"{phone.home}/work"}
    model = SLOW_MODELS["onnxruntime"](tmp_path)
    words = ["measure", "device", "--model", str(model), "--runtime", "onnxruntime", "--policy", "help"]
    controller = start(words, entry, home / "work" / "lock")
    controller.wait_for_file(importing)
    check_killed(controller, number)
