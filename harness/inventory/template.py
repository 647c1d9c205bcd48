"""The file that `latlab init` writes: an inventory with this machine and the devices found near it, and its schema."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from latlab.agents import host_info as host
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.discovery import Phone, SSHHost, phones, ssh_hosts
from latlab.harness.inventory.inventory import schema
from latlab.harness.paths import whole_file
from latlab.harness.text import printable

__all__ = ["inventory_text", "schema_path", "write", "write_schema"]

MOST = 20
"""The most hosts or phones that are written. The owner of a larger ~/.ssh/config needs no examples."""


def write(path: Path, *, force: bool = False) -> None:
    """Write an inventory, and its schema next to it.

    Raises:
        BadInputError: the file exists and `force` is not given; or it cannot be written.
    """
    if path.exists() and not force:
        raise BadInputError(
            f"{path} is there already; it was left as it is",
            "Name another with --out, or overwrite it with --force. `latlab init --schema` renews its schema alone.",
        )
    text = inventory_text(schema_path(path).name, ssh_hosts(), phones())
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
        write_schema(path)  # before the inventory takes its place, because that names it


def schema_path(inventory: Path) -> Path:
    """Return the schema's path next to the inventory: inventory.schema.json for inventory.yaml."""
    return inventory.with_name(f"{inventory.stem}.schema.json")


def write_schema(inventory: Path) -> Path:
    """Write the JSON Schema for an inventory, and return its path.

    Raises:
        BadInputError: it cannot be written.
    """
    path = schema_path(inventory)
    with whole_file(path) as part:
        part.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    return path


def inventory_text(schema_name: str, hosts: list[SSHHost], found: list[Phone]) -> str:
    """Return an inventory with this machine and a simulated device ready for use, and everything else commented out."""
    return "\n".join(
        [
            f"# yaml-language-server: $schema={schema_name}",
            "#",
            "# Your devices. Commands take their names, several of them, or `all`:",
            "#   latlab doctor local            is it fit to measure on?",
            "#   latlab devices                 which are there, and how are they?",
            "#   latlab measure all --space nasbench201 --count 20",
            "",
            "devices:",
            "  local:                       # this machine",
            *(f"    # {line}" for line in _own_facts()),
            "    transport: local",
            "    targets:                   # what commands measure by default",
            "      - runtime: onnxruntime   # or tflite, torchscript, openvino, executorch; [tflite, openvino]: both",
            "        threads: 1",
            "        batch_size: 1",
            "",
            "  toy:                         # a simulated device, to try commands with",
            "    transport: simulated",
            "    kind: pi4                  # or ideal, phone, gpu, server",
            "    seed: 0",
            "",
            *_ssh_lines(hosts[:MOST]),
            *_phone_lines(found[:MOST]),
        ]
    )


@cache
def _own_facts() -> list[str]:
    facts = host.describe()
    cpus = facts["cpus"]
    runtimes = [f"{name} {found['version']}" for name, found in facts["runtimes"].items() if found["version"]]
    return [
        printable(f"{platform.node()}: {cpus['model'] or facts['machine']}, {cpus['count']} CPUs, "
                  f"{facts['memory_bytes'] / 2**30:.0f} GiB"),
        printable(f"Python {facts['python']}; {', '.join(runtimes) or 'no runtimes: latlab setup local'}"),
    ]  # fmt: skip


def _ssh_lines(hosts: list[SSHHost]) -> Iterator[str]:
    yield "  # Linux machines with an SSH server: remove the # of those you want. `latlab doctor NAME` checks one,"
    yield "  # `latlab setup NAME` installs the runtimes there."
    for one in hosts or [SSHHost("pi4", None)]:
        comment = "   # of ~/.ssh/config" if hosts else "   # a name, an address or a host of ~/.ssh/config"
        comment += f": {one.address}" if one.address else ""
        yield f"  # {_name(one.alias)}:"
        yield "  #   transport: ssh"
        yield f"  #   host: {one.alias}{comment}"
        if not hosts:
            yield "  #   user: pi"
        yield "  #   targets: [{runtime: tflite, threads: [1, 4]}]"
        yield "  #"
    yield ""


_BENCHMARK_MODEL = (
    "  #   benchmark_model: tools/android_aarch64_benchmark_model",
    "  #   targets: [{runtime: benchmark_model, accelerator: [cpu, gpu]}]",
)


def _phone_lines(found: list[Phone]) -> Iterator[str]:
    yield "  # Android phones, by cable (serial) or over Wi-Fi (host), with USB debugging allowed in developer options."
    yield "  # They need no Python, but TensorFlow Lite's program benchmark_model, which you must download."
    for one in found:
        note = {"device": "", "USB": ""}.get(one.state, f"   # now {one.state}: look at its screen")
        yield f"  # {_name(one.model or one.serial)}:"
        yield "  #   transport: adb"
        address, colon, port = one.serial.rpartition(":")
        if colon and port.isdigit():
            yield f"  #   host: {address}{note}"
            yield f"  #   port: {port}"
        else:
            yield f"  #   serial: '{one.serial}'{note}"
        yield from _BENCHMARK_MODEL
        yield "  #"
    if not found:
        yield "  # phone:"
        yield "  #   transport: adb"
        yield "  #   host: 192.168.1.23       # or serial: '0A1B2C3D'"
        yield from _BENCHMARK_MODEL
        yield "  #"
    yield "  # A phone with Python is reached by SSH: in Termux, `pkg install python openssh && sshd`. adb cannot enter"
    yield "  # Termux's folders."
    yield "  # termux:"
    yield "  #   transport: ssh"
    yield "  #   host: 192.168.1.23"
    yield "  #   port: 8022"
    yield "  #   targets: [{runtime: onnxruntime}]"
    yield ""


def _name(text: str) -> str:
    """Return `text` as a valid device name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.").lower()[:64] or "device"
