"""Tests of `latlab setup` with real pip, workers and networks; wheels are from the registry, or made here to fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers.fixtures import Peers
from peers.linux_host import LinuxHost
from peers.pi import Pi
from wheelhouse import Wheelhouse

from latlab.harness.cli.main import main
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.provisioning.runtime_packages import OLD_TFLITE, Choice
from latlab.harness.provisioning.setup import set_up
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.local.config import LocalDevice
from latlab.harness.transports.local.transport import LocalTransport
from latlab.harness.transports.ssh.config import SSHDevice


@pytest.fixture(scope="session")
def real_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the tests that fetch from the registry."""
    return tmp_path_factory.mktemp("real-wheels")


@pytest.fixture(autouse=True)
def own_wheels(
    request: pytest.FixtureRequest, real_wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give each test a cache folder of its own: wheels that one test makes must not be found by the next."""
    by_hand = "house" in request.fixturenames
    monkeypatch.setattr(
        "latlab.harness.provisioning.setup.cache_folder", lambda: tmp_path / "cache" if by_hand else real_wheels
    )


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheelhouse:
    return Wheelhouse(tmp_path / "house", monkeypatch)


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without pip and without a single package."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def device(tmp_path: Path, bare_python: Path) -> LocalDevice:
    return LocalDevice(python=bare_python, work=tmp_path / "work")


@pytest.fixture
def inventory(device: LocalDevice) -> Inventory:
    return Inventory({"bare": device})


def hello(device: LocalDevice) -> dict[str, Any]:
    with LocalTransport(python=device.python, work=device.work) as transport:
        return transport.request("hello", 20, protocol=1)


# With real runtimes


@pytest.mark.slow
def test_a_bare_device_is_set_up(inventory: Inventory, device: LocalDevice) -> None:
    assert hello(device)["runtimes"]["onnxruntime"]["version"] is None
    said: list[str] = []
    done = set_up("bare", inventory, ["onnxruntime"], say=said.append)
    assert done.ok, done.findings
    assert [finding.check for finding in done.findings] == ["runtime onnxruntime"]
    assert "a small network in" in done.findings[0].found
    assert {"onnxruntime", "numpy"} <= {wheel.name for wheel in done.wheels}
    assert done.brought_bytes > 10_000_000
    assert said[0] == "greeting the device"
    assert hello(device)["environment"] == {"id": done.environment, "runtimes": ["onnxruntime"]}

    again = set_up("bare", inventory, ["onnxruntime"])
    assert again.ok
    assert (again.brought_bytes, again.environment) == (0, done.environment)

    # Another runtime joins what is there.
    more = set_up("bare", inventory, ["tflite"])
    assert more.ok
    assert {finding.check for finding in more.findings} == {"runtime onnxruntime", "runtime tflite"}
    assert hello(device)["environment"]["runtimes"] == ["onnxruntime", "tflite"]
    assert device.work is not None
    assert len([path for path in (device.work / "env").iterdir() if path.is_dir()]) == 1

    # What was damaged since is made whole.
    native = device.work / "env" / more.environment / "onnxruntime" / "capi"
    (library,) = native.glob("onnxruntime_pybind11_state*.so")
    library.write_bytes(b"")
    healed = set_up("bare", inventory)
    assert healed.ok
    assert healed.brought_bytes > 0


@pytest.mark.slow
def test_old_tflite_beside_a_newer_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime and numpy 1 work where the system has numpy 2 and another TFLite: its own come first."""
    monkeypatch.setattr("latlab.harness.provisioning.setup.choices", lambda *_: [Choice(OLD_TFLITE)])
    device = LocalDevice(work=tmp_path / "work")
    assert hello(device)["runtimes"]["tflite"]["package"] == "ai-edge-litert"
    done = set_up("here", Inventory({"here": device}), ["tflite"])
    assert done.ok, done.findings
    versions = {wheel.name: wheel.version.major for wheel in done.wheels}
    assert versions == {"tflite-runtime": 2, "numpy": 1}
    assert hello(device)["runtimes"]["tflite"]["package"] == "tflite-runtime"
    assert done.findings[0].found.startswith(hello(device)["runtimes"]["tflite"]["version"])


def over_ssh(host: LinuxHost | Pi, python: str, tmp_path: Path) -> Inventory:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(host.access.known_hosts)
    config = SSHDevice(
        host=host.address,
        port=host.port,
        user=host.user,
        key=host.access.client_key,
        known_hosts=known_hosts,
        python=python,
    )
    return Inventory({host.name: config})


@pytest.mark.slow
@pytest.mark.peers
def test_a_host_without_internet_is_set_up_over_ssh(peers: Peers, tmp_path: Path) -> None:
    host = peers.linux_host("bare-host", disk_mb=1024)
    try:
        if host.run("/usr/bin/python3", "-c", "import numpy").returncode == 0:
            pytest.skip("this system's own Python has packages")
        inventory = over_ssh(host, "/usr/bin/python3", tmp_path)
        done = set_up("bare-host", inventory, ["onnxruntime", "tflite"])
        assert done.ok, done.findings
        assert [finding.check for finding in done.findings] == ["runtime onnxruntime", "runtime tflite"]
    finally:
        peers.close(host)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.timeout(1200)
def test_a_bare_raspberry_pi_is_set_up(peers: Peers, tmp_path: Path) -> None:
    """The wheels are of another architecture than this machine's."""
    pi = peers.pi("bare-pi", with_runtimes=False, disk_mb=1024)
    try:
        done = set_up("bare-pi", over_ssh(pi, pi.python, tmp_path), ["onnxruntime", "tflite"])
        assert done.platform.machine == "aarch64"
        assert done.ok, done.findings
        assert [finding.check for finding in done.findings] == ["runtime onnxruntime", "runtime tflite"]
        assert all("aarch64" in path.path.name for path in done.wheels if path.name in ("onnxruntime", "numpy"))
    finally:
        peers.close(pi)


@pytest.mark.slow
@pytest.mark.peers
def test_a_phone_with_python_is_set_up_over_adb(peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    phone = peers.phone("bare-phone", with_runtimes=False, disk_mb=1024)
    config = ADBDevice(host=phone.address, port=phone.port, python=phone.python, work=f"{phone.home}/latlab")
    try:
        done = set_up("bare-phone", Inventory({"bare-phone": config}), ["tflite"])
        assert done.ok, done.findings
        assert done.findings[0].check == "runtime tflite"
    finally:
        peers.close(phone)


# With runtimes that are none


def test_an_import_is_no_health_check(house: Wheelhouse, inventory: Inventory, device: LocalDevice) -> None:
    """A package of the right name and version that runs nothing: it was installed, and is not usable."""
    house.add("onnxruntime", "1.0", files={"onnxruntime/__init__.py": "__version__ = '1.0'"})
    done = set_up("bare", inventory, ["onnxruntime"])
    assert not done.ok
    assert done.brought_bytes > 0
    (finding,) = done.findings
    assert (finding.check, finding.state) == ("runtime onnxruntime", "failed")
    assert hello(device)["runtimes"]["onnxruntime"]["version"] == "1.0"


def test_what_cannot_be_had_is_told(house: Wheelhouse, inventory: Inventory) -> None:
    with pytest.raises(LatlabError, match=r"no wheels of tflite for .*ai-edge-litert==.*tflite-runtime.*no ") as no:
        set_up("bare", inventory, ["tflite"])
    assert "--runtime" in (no.value.hint or "")
    house.add("onnxruntime", "1.0")
    done = set_up("bare", inventory)  # nobody asked for tflite by name
    assert set(done.unavailable) == {"tflite"}
    assert [finding.check for finding in done.findings] == ["runtime onnxruntime"]


def test_runtimes_of_the_inventory(house: Wheelhouse, device: LocalDevice) -> None:
    house.add("ai-edge-litert", "9", files={"ai_edge_litert/__init__.py": ""})
    targets = LocalDevice.model_validate({"targets": [{"runtime": "tflite"}]}).targets
    done = set_up("bare", Inventory({"bare": device.model_copy(update={"targets": targets})}))
    assert [wheel.name for wheel in done.wheels] == ["ai-edge-litert"]


def test_a_malicious_wheel(house: Wheelhouse, inventory: Inventory, tmp_path: Path) -> None:
    """The device refuses it; nothing lands outside, here or there."""
    house.add("onnxruntime", "1.0", files={"onnxruntime/__init__.py": "", "../../../../evil.py": "raise SystemExit"})
    with pytest.raises(LatlabError, match=r"device bare: the wheel onnxruntime-1\.0.* is refused"):
        set_up("bare", inventory, ["onnxruntime"])
    assert not list(tmp_path.rglob("evil.py"))


def test_a_device_in_use(house: Wheelhouse, inventory: Inventory, device: LocalDevice) -> None:
    with LocalTransport(python=device.python, work=device.work) as transport:
        pid = transport.request("hello", 20, protocol=1)["pid"]
        with pytest.raises(LatlabError, match=f"worker process {pid}") as caught:
            set_up("bare", inventory, ["onnxruntime"])
    assert "free again" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("device", "runtimes", "options", "words"),
    [
        ("nowhere", None, {}, "not in the inventory"),
        ("bare", ["abacus"], {}, "abacus is nothing to set up"),
        ("bare", ["benchmark_model"], {}, "benchmark_model is nothing to set up"),
        ("bare", ["tflite"], {"accelerator": "cuda"}, "tflite does not run on CUDA"),
    ],
)
def test_requests_that_make_no_sense(
    bare_python: Path, tmp_path: Path, device: str, runtimes: list[str] | None, options: dict[str, Any], words: str
) -> None:
    inventory = Inventory({"bare": LocalDevice(python=bare_python, work=tmp_path / "work")})
    with pytest.raises(BadInputError, match=words):
        set_up(device, inventory, runtimes, **options)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    inventory = Inventory({"gone": LocalDevice(python=tmp_path / "python", work=tmp_path / "work")})
    with pytest.raises(LatlabError, match=r"device gone: cannot start .*python"):
        set_up("gone", inventory)


def test_a_simulated_device(tmp_path: Path) -> None:
    from latlab.harness.inventory.inventory import load_inventory

    (tmp_path / "inventory.yaml").write_text("devices: {toy: {transport: simulated}}")
    with pytest.raises(LatlabError, match="toy is simulated"):
        set_up("toy", load_inventory(tmp_path / "inventory.yaml"))


# As a person uses it


def test_the_command(
    house: Wheelhouse,
    bare_python: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    devices = {"bare": {"transport": "local", "python": str(bare_python), "work": str(tmp_path / "work")}}
    (tmp_path / "inventory.yaml").write_text(json.dumps({"devices": devices}))
    house.add("onnxruntime", "1.0", files={"onnxruntime/__init__.py": ""})

    def latlab(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latlab", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    code, out, _ = latlab("setup", "bare", "--runtime", "onnxruntime", "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["packages"]) == (1, False, {"onnxruntime": "1.0"})
    assert told["runtimes"][0]["check"] == "runtime onnxruntime"
    code, out, _ = latlab("setup", "bare")
    assert code == 1
    assert "onnxruntime 1.0" in out
    assert "not usable yet" in out
    assert "no wheels of tflite" in out
    code, _, err = latlab("setup", "bare", "--runtime", "torchscript")
    assert (code, "no wheels of torchscript" in err) == (1, True)
    assert latlab("setup", "nowhere")[0] == 2
    assert latlab("setup", "bare", "--runtime", "abacus")[0] == 2
