"""A configuration names its transport; neither is part of latlab."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from latlab.harness import transports
from latlab.harness.errors import BadInputError
from latlab.harness.inventory import inventory as inventory_module
from latlab.harness.inventory.inventory import load_inventory
from latlab.harness.transports import DeviceConfig, Transport, open_transport
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.transport import ADBTransport
from latlab.harness.transports.base import ChannelTimeoutError, Deadline
from latlab.harness.transports.benchmark_model.transport import BenchmarkModelTransport


class PigeonTransport(Transport):
    STEPS = ("loft",)

    def __init__(self, name: str, config: PigeonDevice) -> None:
        super().__init__(name)
        self.config = config

    def _connect(self) -> None:
        pass

    def _send(self, data: bytes, deadline: Deadline) -> None:
        pass

    def _receive(self, deadline: Deadline) -> bytes:
        raise ChannelTimeoutError

    def _transfer(self, path: Path, sha256: str) -> None:
        pass

    def _disconnect(self, *, gently: bool) -> None:
        pass


class PigeonDevice(DeviceConfig):
    transport_factory: ClassVar[str] = f"{__name__}:PigeonTransport"
    transport: Literal["pigeon"] = "pigeon"
    loft: str


def test_a_transport_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("pigeon", f"{__name__}:PigeonDevice", "latlab.transports")
    found = transports.entry_points(group="latlab.transports")

    def entry_points(**wanted: str) -> EntryPoints:
        return EntryPoints([*found, point]).select(**wanted)

    monkeypatch.setattr(transports, "entry_points", entry_points)
    monkeypatch.setattr(inventory_module, "_file_model", inventory_module._file_model.__wrapped__)
    path = tmp_path / "inventory.yaml"
    path.write_text("devices: {grey: {transport: pigeon, loft: roof}}\n")
    config = load_inventory(path).device("grey")
    assert "pigeon" in transports.names()
    assert isinstance(config, PigeonDevice)
    transport = open_transport(config, "grey", "onnxruntime")
    assert isinstance(transport, PigeonTransport)
    assert (transport.name, transport.config.loft) == ("grey", "roof")


def test_the_runtime_may_choose_the_transport() -> None:
    config = ADBDevice(host="192.0.2.1")
    assert isinstance(open_transport(config, "phone", "tflite"), ADBTransport)
    assert isinstance(open_transport(config, "phone", "benchmark_model"), BenchmarkModelTransport)


def test_an_inventory_is_read_without_the_libraries_of_transports(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(
        "devices: {a: {transport: ssh, host: a}, b: {transport: adb, host: b}, c: {transport: simulated}, d: {}}\n"
    )
    program = (
        "import sys; from pathlib import Path; from latlab.harness.inventory.inventory import load_inventory\n"
        f"load_inventory(Path({str(path)!r}))\n"
        "print(*sorted({'paramiko', 'adb_shell', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "factory", [None, "nosuchmodule.x:Y", f"{__name__}:Nope", "nocolon", 7, "builtins:len", "builtins:print"]
)
def test_a_broken_transport_of_another_package_is_named(factory: object) -> None:
    names = {} if factory is None else {"transport_factory": factory}
    kind = type("BrokenDevice", (DeviceConfig,), {"__module__": __name__, "__annotations__": {}, **names})
    config = kind.model_construct(transport="broken")
    with pytest.raises(BadInputError, match="device mine: ") as caught:
        open_transport(config, "mine", "onnxruntime")
    assert "transport" in str(caught.value)
