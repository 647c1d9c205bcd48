"""Networks that stay loaded on a device from one pass to the next, as long as its memory allows."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from latlab.harness.devices.session import DeviceSession
from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.exporters import Artifact
from latlab.harness.transports import WorkerError

__all__ = ["LoadedModels"]

MEMORY_SHARE = 0.25
"""Of the device's memory that loaded networks may take, by estimate."""
MOST_BYTES = 4 << 30
UNKNOWN_BYTES = 256 << 20
PER_NETWORK_BYTES = 8 << 20
PER_FILE_BYTE = 4
"""A runtime keeps its own copy of the weights, often packed, and activations."""
MOST_NETWORKS = 512


@dataclass
class _Entry:
    loaded: LoadedModel
    bytes: int
    spared: bool = False


class LoadedModels:
    """What is loaded on one device, by the hash of its file; the longest unused goes first.

    Args:
        device: greeted. After a restart of its worker nothing is loaded, which is noticed by itself.
    """

    def __init__(self, device: DeviceSession) -> None:
        self._device = device
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._generation = device.generation
        memory = device.hello.memory_bytes
        self._room = UNKNOWN_BYTES if memory is None else min(MOST_BYTES, MEMORY_SHARE * memory)

    def get(self, artifact: Artifact, network: str) -> tuple[LoadedModel, bool]:
        """The network on the device, and whether it had to be loaded now. Raises what `DeviceSession.load` raises."""
        self._forget_after_restart()
        entry = self._entries.get(artifact.sha256)
        if entry is not None:
            self._entries.move_to_end(artifact.sha256)
            entry.spared = False
            return entry.loaded, False
        size = _bytes(artifact)
        while self._entries and not self._fits(self._entries.values(), size):
            self.unload(next(iter(self._entries)))
        loaded = self._device.load(artifact, network)
        self._forget_after_restart()
        self._entries[artifact.sha256] = _Entry(loaded, size)
        return loaded, True

    def has_room(self, artifact: Artifact) -> bool:
        """Whether it is loaded, or nothing would have to go for it but what can be spared."""
        self._forget_after_restart()
        kept = [entry for entry in self._entries.values() if not entry.spared]
        return artifact.sha256 in self._entries or self._fits(kept, _bytes(artifact))

    def spare(self, sha256: str) -> None:
        """It is hardly wanted again: the first to go where room is needed."""
        if sha256 in self._entries:
            self._entries.move_to_end(sha256, last=False)
            self._entries[sha256].spared = True

    def forget(self, sha256: str) -> None:
        """The worker has freed it already, or never had it whole."""
        self._entries.pop(sha256, None)

    def unload(self, sha256: str) -> None:
        """Free it on the device. Raises `DeviceLostError`."""
        self._forget_after_restart()
        entry = self._entries.pop(sha256, None)
        if entry is not None:
            with contextlib.suppress(WorkerError):  # it was freed already
                self._device.unload(entry.loaded)

    def _fits(self, entries: Collection[_Entry], size: int) -> bool:
        return sum(entry.bytes for entry in entries) + size <= self._room and len(entries) < MOST_NETWORKS

    def _forget_after_restart(self) -> None:
        if self._generation != self._device.generation:
            self._entries.clear()
            self._generation = self._device.generation


def _bytes(artifact: Artifact) -> int:
    """What a network takes when it is loaded, by estimate."""
    return PER_NETWORK_BYTES + PER_FILE_BYTE * artifact.path.stat().st_size
