"""Networks that stay loaded on a device from one pass to the next, as long as its memory allows."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import NamedTuple

from latlab.harness.device import DeviceSession, Loaded
from latlab.harness.exporters import Artifact
from latlab.harness.transports import WorkerError

__all__ = ["LoadedNetworks"]

MEMORY_SHARE = 0.25
"""Of the device's memory that loaded networks may take, by estimate."""
MOST_BYTES = 4 << 30
UNKNOWN_BYTES = 256 << 20
PER_NETWORK_BYTES = 8 << 20
PER_FILE_BYTE = 4
"""A runtime keeps its own copy of the weights, often packed, and activations."""
MOST_NETWORKS = 512


class _Entry(NamedTuple):
    loaded: Loaded
    bytes: int


class LoadedNetworks:
    """What is loaded on one device, by the hash of its file; the longest unused goes first.

    Args:
        device: greeted. After a restart of its worker nothing is loaded, which is noticed by itself.
    """

    def __init__(self, device: DeviceSession) -> None:
        self._device = device
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._generation = device.generation
        told = device.hello.get("memory_bytes")
        self._room = min(MOST_BYTES, MEMORY_SHARE * told) if isinstance(told, int) else UNKNOWN_BYTES

    def get(self, artifact: Artifact, network: str) -> tuple[Loaded, bool]:
        """The network on the device, and whether it had to be loaded now. Raises what `DeviceSession.load` raises."""
        self._look()
        entry = self._entries.get(artifact.sha256)
        if entry is not None:
            self._entries.move_to_end(artifact.sha256)
            return entry.loaded, False
        size = PER_NETWORK_BYTES + PER_FILE_BYTE * artifact.path.stat().st_size
        while self._entries and (self._used() + size > self._room or len(self._entries) >= MOST_NETWORKS):
            self.unload(next(iter(self._entries)))
        loaded = self._device.load(artifact, network)
        self._look()
        self._entries[artifact.sha256] = _Entry(loaded, size)
        return loaded, True

    def forget(self, sha256: str) -> None:
        """The worker has freed it already, or never had it whole."""
        self._entries.pop(sha256, None)

    def unload(self, sha256: str) -> None:
        """Free it on the device. Raises `DeviceLostError`."""
        self._look()
        entry = self._entries.pop(sha256, None)
        if entry is not None:
            with contextlib.suppress(WorkerError):  # it was freed already
                self._device.unload(entry.loaded)

    def _used(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def _look(self) -> None:
        if self._generation != self._device.generation:
            self._entries.clear()
            self._generation = self._device.generation
