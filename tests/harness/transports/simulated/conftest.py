"""Devices and networks to try them with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated_devices import NETWORK, S

from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.harness.transports.simulated.transport import SimulatedTransport


@pytest.fixture
def connect() -> Any:
    """A greeted worker on a device of these fields; closed at the end."""
    opened: list[SimulatedTransport] = []

    def connect(name: str = "sim", **fields: Any) -> SimulatedTransport:
        transport = SimulatedTransport.from_config(name, SimulatedDevice(**{"kind": "ideal", **fields}))
        opened.append(transport)
        transport.start()
        transport.request("hello", S, protocol=1)
        return transport

    yield connect
    for transport in opened:
        transport.close()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., int]:
    """Pushes a file and loads it as a network; the handle."""
    path = tmp_path / "network.onnx"
    path.write_bytes(b"\x08" * 1000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def load(transport: SimulatedTransport, network: str = NETWORK, **changes: Any) -> int:
        transport.push(path, sha256, ".onnx")
        fields: dict[str, Any] = {
            "runtime": "onnxruntime",
            "accelerator": "cpu",
            "threads": 1,
            "affinity": None,
            "inputs": [],
            "seed": 0,
            "network": network,
            **changes,
        }
        handle: int = transport.request("load", S, sha256=sha256, suffix=".onnx", **fields)["handle"]
        return handle

    return load


@pytest.fixture
def time() -> Callable[..., list[int]]:
    """Samples of a pass, in ns."""

    def time(transport: SimulatedTransport, handle: int, runs: int = 10) -> list[int]:
        fields = {"handle": handle, "warmup": 0, "runs": runs, "deadline_s": 60}
        samples: list[int] = transport.request("time", 70, **fields)["samples_ns"]
        return samples

    return time
