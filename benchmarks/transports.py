"""The cost of a transport: connecting, a request and its reply, and pushing networks.

    python benchmarks/transports.py [--only ssh]

All transports lead to this machine: `ssh` through an sshd that the script starts on the loopback interface, `adb`
through Debian's build of adbd in namespaces. It uses the helpers of the tests, so that it needs a clone of the
repository, and root for `adb`. Pushing includes the device's own check of the hash.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, save, show
from loopback import loopback_ssh

from latlab.harness.transports import Transport, open_transport
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.local.transport import LocalTransport

CONNECTS = 5
REQUESTS = 1000
LARGE, LARGE_FILES = 50_000_000, 5
SMALL, SMALL_FILES = 300_000, 100
DEADLINE_S = 60.0


@contextmanager
def local(folder: Path) -> Iterator[Transport]:
    yield LocalTransport(work=folder / "work")


@contextmanager
def ssh(folder: Path) -> Iterator[Transport]:
    with loopback_ssh(folder) as device:
        yield open_transport(device, "loopback", "onnxruntime")


@contextmanager
def adb(folder: Path) -> Iterator[Transport]:
    from peers.network import Network
    from peers.phone import Phone

    (folder / "phone").mkdir()
    network = Network()
    try:
        phone = Phone(network, "phone", folder / "phone", disk_mb=1024)
        try:
            yield open_transport(ADBDevice(host=phone.address, python=phone.python), "phone", "onnxruntime")
        finally:
            phone.close()
    finally:
        network.close()


OPENERS: dict[str, Callable[[Path], AbstractContextManager[Transport]]] = {"local": local, "ssh": ssh, "adb": adb}
"""Context managers by name that give a transport that is not started; its folder is empty and removed afterwards."""


def measure(transport: Transport, folder: Path) -> dict[str, float]:
    connects = []
    for _ in range(CONNECTS):
        start = time.perf_counter()
        transport.start()
        connects.append(time.perf_counter() - start)
        transport.request("hello", DEADLINE_S, protocol=1)
        transport.close()
    with transport:
        transport.request("hello", DEADLINE_S, protocol=1)
        requests = []
        for _ in range(REQUESTS):
            start = time.perf_counter()
            transport.request("unload", DEADLINE_S, handles=[])
            requests.append(time.perf_counter() - start)
        large = [LARGE / push(transport, folder, LARGE) / 1e6 for _ in range(LARGE_FILES)]
        small = sum(push(transport, folder, SMALL) for _ in range(SMALL_FILES))
    return {
        "connect_s": statistics.median(connects),
        "request_ms": 1e3 * statistics.median(requests),
        "request_p99_ms": 1e3 * statistics.quantiles(requests, n=100)[98],
        "push_50_mb_mb_per_s": statistics.median(large),
        "push_50_mb_slowest_mb_per_s": min(large),
        "push_100_x_300_kb_mb_per_s": SMALL * SMALL_FILES / small / 1e6,
    }


def push(transport: Transport, folder: Path, size: int) -> float:
    """Return the seconds that it takes to push a random file of `size` bytes."""
    content = os.urandom(size)
    path = folder / "file.onnx"
    path.unlink(missing_ok=True)  # the local transport's device has it as a hard link
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    start = time.perf_counter()
    transport.push(path, sha256, ".onnx")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", choices=sorted(OPENERS), action="append", help="one transport; more than once is fine"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "transports.json")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.only or OPENERS:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            with OPENERS[name](folder) as transport:
                rows.append({"transport": name, **measure(transport, folder)})
    show("Transports to this machine", rows)
    save(arguments.out, {"transports": rows})


if __name__ == "__main__":
    main()
