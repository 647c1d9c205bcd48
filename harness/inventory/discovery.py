"""The SSH hosts and phones that this machine knows of."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from latlab.harness.text import printable

__all__ = ["Phone", "SSHHost", "phones", "plugged_in", "ssh_hosts"]

ADB_SERVER = ("127.0.0.1", 5037)
ADB_S = 2.0
"""Seconds to wait for the server's answer."""
_ADB_INTERFACE = ("ff", "42", "01")
"""Class, subclass and protocol of the USB interface that adb uses."""


class SSHHost(NamedTuple):
    """A host of ~/.ssh/config, with its HostName if one is set."""

    alias: str
    address: str | None


class Phone(NamedTuple):
    """A phone that adb can see."""

    serial: str
    state: str
    """adb's word for it: `device` is ready, `unauthorized` must first confirm this machine's key on its screen.

    `USB` is a
    phone that is plugged in but unknown to adb's server.
    """
    model: str


def ssh_hosts(config: Path | None = None) -> list[SSHHost]:
    """Return the hosts that ~/.ssh/config names without patterns. Nothing in the file is run or included."""
    config = config or Path.home() / ".ssh" / "config"
    try:
        with config.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(1_000_000).splitlines()
    except OSError:
        return []
    found: dict[str, str | None] = {}
    current: list[str] = []
    for line in lines:
        match = re.fullmatch(r"\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*", line)
        keyword, value = (match[1].lower(), match[2]) if match else ("", "")
        if keyword in ("host", "match"):
            words = value.replace('"', "").split() if keyword == "host" else []
            current = [word for word in words if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", word)]
            for word in current:
                found.setdefault(word, None)
        elif keyword == "hostname":
            for word in current:
                found[word] = found[word] or printable(value)[:100]
    return [SSHHost(alias, address) for alias, address in found.items()]


def phones() -> list[Phone]:
    """Return the phones that adb's server knows, if it runs, and those plugged in by USB. This starts no server."""
    known = {phone.serial: phone for phone in plugged_in()}
    known |= {phone.serial: phone for phone in _adb_server()}
    return [phone for phone in known.values() if re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", phone.serial)]


def _adb_server() -> Iterator[Phone]:
    answer = b""
    with suppress(OSError), socket.create_connection(ADB_SERVER, timeout=ADB_S) as server:
        query = b"host:devices-l"
        server.sendall(b"%04x%s" % (len(query), query))
        while len(answer) < 100_000 and (data := server.recv(4096)):
            answer += data
    if answer[:4] != b"OKAY":
        return
    for line in answer[8:].decode("utf-8", "replace").splitlines():
        serial, *words = line.split()[:20] or [""]
        if words:
            model = next((word.removeprefix("model:") for word in words if word.startswith("model:")), "")
            yield Phone(serial, printable(words[0])[:20], model)


def plugged_in(devices: Path = Path("/sys/bus/usb/devices")) -> Iterator[Phone]:
    for interface in devices.glob("*:*"):
        kind = tuple(_read(interface / f"bInterface{part}") for part in ("Class", "SubClass", "Protocol"))
        device = interface.parent / interface.name.partition(":")[0]
        serial = _read(device / "serial")
        if kind == _ADB_INTERFACE and serial:
            yield Phone(serial, "USB", _read(device / "product"))


def _read(path: Path) -> str:
    try:
        return printable(path.read_text(encoding="utf-8", errors="replace")[:100]).strip()
    except OSError:
        return ""
