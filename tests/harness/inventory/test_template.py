"""Tests of `latlab init`: it writes a valid inventory whatever it finds; its schema accepts what loading does."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from latlab.harness.errors import BadInputError
from latlab.harness.inventory import discovery
from latlab.harness.inventory import template as starter
from latlab.harness.inventory.discovery import Phone, SSHHost
from latlab.harness.inventory.inventory import load_inventory, schema
from latlab.harness.transports import names
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.ssh.config import SSHDevice

ROOT = Path(__file__).parents[3]


def uncommented(text: str) -> str:
    """Return a text with its commented devices and policies uncommented."""
    return re.sub(r"(?m)^(  )?# (?!yaml-language)(?=( *[a-z_0-9.-]+:| *- ))", r"\1", text)


def bring_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the files that the examples name."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("tools/android_aarch64_benchmark_model", ".ssh/id_lab"):
        (folder / name).parent.mkdir()
        (folder / name).touch()


def test_a_first_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    starter.write(path)
    inventory = load_inventory(path)
    assert list(inventory.devices) == ["local", "toy"]
    assert [str(t) for t in inventory.device("local").all_targets("local")] == ["local/onnxruntime/cpu/fp32/t1/b1"]
    first = path.read_text().splitlines()[0]
    named = tmp_path / first.partition("$schema=")[2]
    assert json.loads(named.read_text()) == schema()


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text("devices: {}\n")
    with pytest.raises(BadInputError, match="left as it is"):
        starter.write(path)
    assert path.read_text() == "devices: {}\n"
    starter.write(path, force=True)
    assert "local" in load_inventory(path).devices
    with pytest.raises(BadInputError, match="cannot write"):
        starter.write(tmp_path / "nowhere" / "inventory.yaml")


@pytest.mark.parametrize("found", [False, True])
def test_what_is_commented_out_is_right_too(tmp_path: Path, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    bring_files(tmp_path, monkeypatch)
    hosts = [SSHHost("pi", "192.168.1.9"), SSHHost("big.box", None)] if found else []
    phones = [Phone("0123456", "unauthorized", "Pixel 8"), Phone("10.0.0.3:5555", "device", "")] if found else []
    path = tmp_path / "inventory.yaml"
    path.write_text(uncommented(starter.inventory_text("s.json", hosts, phones)))
    devices = load_inventory(path).devices
    if found:
        assert list(devices) == ["local", "toy", "pi", "big.box", "pixel-8", "10.0.0.3-5555", "termux"]
        assert isinstance(devices["pixel-8"], ADBDevice)
        assert devices["pixel-8"].serial == "0123456"
        assert isinstance(devices["10.0.0.3-5555"], ADBDevice)
        assert devices["10.0.0.3-5555"].host == "10.0.0.3"
    else:
        assert list(devices) == ["local", "toy", "pi4", "phone", "termux"]
        assert isinstance(devices["pi4"], SSHDevice)


TEXTS = st.text(max_size=20)
ALIASES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*", fullmatch=True)
SERIALS = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)


@settings(deadline=None)
@given(
    st.lists(st.builds(SSHHost, ALIASES, st.none() | TEXTS.map(starter.printable)), max_size=4),
    st.lists(st.builds(Phone, SERIALS, TEXTS.map(starter.printable), TEXTS), max_size=4),
)
def test_whatever_is_found_the_file_is_valid(hosts: list[SSHHost], phones: list[Phone]) -> None:
    text = starter.inventory_text("s.json", hosts, phones)
    assert set(yaml.safe_load(text)["devices"]) == {"local", "toy"}


def test_hosts_of_an_ssh_config(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "# mine\nHost pi4 pi5\n  HostName=10.0.0.4\n  User pi\nHost *.lab !x web-?\n  HostName y\n"
        'host "server"\nMatch exec "touch /tmp/never"\n  HostName z\nHost pi4\n  HostName other\n'
    )
    assert discovery.ssh_hosts(config) == [
        SSHHost("pi4", "10.0.0.4"),
        SSHHost("pi5", "10.0.0.4"),
        SSHHost("server", None),
    ]
    assert discovery.ssh_hosts(tmp_path / "none") == []


def test_phones_that_adb_s_server_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = (
        b"0A1B\tdevice usb:1-1 product:husky model:Pixel_8_Pro transport_id:3\nXY;rm\tdevice\n9.9.9.9:5555 offline\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection = server.accept()[0]
            with connection:
                assert connection.recv(100) == b"000ehost:devices-l"
                connection.sendall(b"OKAY%04x%s" % (len(listing), listing))

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setattr(discovery, "ADB_SERVER", server.getsockname())
        found = discovery.phones()
        thread.join()
    assert found == [Phone("0A1B", "device", "Pixel_8_Pro"), Phone("9.9.9.9:5555", "offline", "")]


def test_phones_that_are_plugged_in(tmp_path: Path) -> None:
    for path, text in {
        "1-1/serial": "0A1B\n",
        "1-1/product": "Pixel 8\n",
        "1-1:1.0/bInterfaceClass": "ff\n",
        "1-1:1.0/bInterfaceSubClass": "42\n",
        "1-1:1.0/bInterfaceProtocol": "01\n",
        "1-2:1.0/bInterfaceClass": "09\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert list(discovery.plugged_in(tmp_path)) == [Phone("0A1B", "USB", "Pixel 8")]


# The schema


def fits(value: Any, rule: dict[str, Any], root: dict[str, Any]) -> bool:
    """Return whether a value fits a JSON schema; of the language, only what pydantic writes is known."""
    if "$ref" in rule:
        return fits(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root)
    if "anyOf" in rule:
        return any(fits(value, one, root) for one in rule["anyOf"])
    if "oneOf" in rule:
        return sum(fits(value, one, root) for one in rule["oneOf"]) == 1
    if ("const" in rule and value != rule["const"]) or ("enum" in rule and value not in rule["enum"]):
        return False
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    kind = rule.get("type")
    if kind == "boolean":
        return isinstance(value, bool)
    if kind and (isinstance(value, bool) or not isinstance(value, kinds[kind])):
        return False
    if isinstance(value, dict):
        known, others = rule.get("properties", {}), rule.get("additionalProperties", {})
        if set(rule.get("required", ())) - set(value):
            return False
        inner = [(one, known.get(key, others)) for key, one in value.items()]
    elif isinstance(value, list):
        inner = [(one, rule.get("items", {})) for one in value]
    else:
        low, high = rule.get("minimum", float("-inf")), rule.get("maximum", float("inf"))
        return not isinstance(value, int | float) or low <= value <= high
    return all(one_rule is not False and fits(one, one_rule, root) for one, one_rule in inner)


@pytest.mark.parametrize("everything", [False, True])
def test_the_repository_s_own_file(tmp_path: Path, everything: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with the devices that it has commented out: one at least of every transport."""
    text = (ROOT / "inventory.yaml").read_text()
    bring_files(tmp_path, monkeypatch)
    path = tmp_path / "inventory.yaml"
    path.write_text(uncommented(text) if everything else text)
    inventory = load_inventory(path)
    assert fits(yaml.safe_load(path.read_text()), schema(), schema())
    transports = {device.transport for device in inventory.devices.values()}
    assert transports == (set(names()) if everything else {"local", "simulated"})
    assert all(device.targets for device in inventory.devices.values())
    assert list(inventory.policies) == (["patient", "once"] if everything else [])


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("devices: {}", True),
        ("devices:", True),
        ("devices: {local: }", True),
        ("devices: {a: {affinity: [0]}}", True),
        ("devices: {a: {transport: simulated, kind: phone, noise: {sigma: 0.1}}}", True),
        ("devices: {a: {transport: ssh, host: b, jump: [c, d]}}", True),
        ("devices: {a: {transport: ssh}}", False),
        ("devices: {a: {transport: telepathy}}", False),
        ("devices: {a: {host: b}}", False),
        ("devices: {a: {targets: [{runtime: tvm}]}}", False),
        ("devices: {a: {targets: [{threads: [1, 2], runtime: [tflite, onnxruntime]}]}}", True),
        ("devices: {a: {targets: [{threads: 0}]}}", False),
        ("device: {}", False),
        ("devices: 3", False),
    ],
)
def test_schema_and_loading_agree(tmp_path: Path, text: str, accepted: bool) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(text)
    assert fits(yaml.safe_load(text), schema(), schema()) == accepted
    if accepted:
        load_inventory(path)
    else:
        with pytest.raises(BadInputError):
            load_inventory(path)
