"""The controller's side of loading: which networks stay loaded on a device from one pass to the next.

`latlab.agents.execution.loaded_models` is the device's side: it holds the networks in the worker's memory.
"""

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
"""Share of the device's memory that loaded networks may take, by estimate."""
MOST_BYTES = 4 << 30
"""Most bytes that loaded networks may take, however much memory there is."""
UNKNOWN_BYTES = 256 << 20
"""Bytes that loaded networks may take on a device that does not report its memory."""
PER_NETWORK_BYTES = 8 << 20
"""Bytes that a loaded network is estimated to take whatever the size of its file."""
PER_FILE_BYTE = 4
"""Bytes of memory per byte of the file: a runtime keeps its own copy of the weights, often packed, and activations."""
MOST_NETWORKS = 512
"""Most networks that stay loaded at once."""


@dataclass
class _Entry:
    loaded: LoadedModel
    bytes: int
    spared: bool = False
    """Whether it may be unloaded at once when another network needs the room."""


class LoadedModels:
    """The networks that are loaded on one device, by the hash of their files. The least recently used goes first.

    After a restart of the device's worker nothing is loaded any more; every method notices that.

    Args:
        device: a connected device.
    """

    def __init__(self, device: DeviceSession) -> None:
        self._device = device
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._generation = device.generation
        memory = device.hello.memory_bytes
        self._room = UNKNOWN_BYTES if memory is None else min(MOST_BYTES, MEMORY_SHARE * memory)

    def get(self, artifact: Artifact, network: str) -> tuple[LoadedModel, bool]:
        """Return the loaded network, and whether it had to be loaded now.

        Args:
            network: its name in the worker's messages.

        Raises:
            WorkerError, DeviceFaultError, DeviceLostError, BadInputError: as `DeviceSession.load`.
        """
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
        """Return whether the network is loaded already, or fits if only networks that can be spared are unloaded."""
        self._forget_after_restart()
        kept = [entry for entry in self._entries.values() if not entry.spared]
        return artifact.sha256 in self._entries or self._fits(kept, _bytes(artifact))

    def spare(self, sha256: str) -> None:
        """Mark a network as hardly needed any more: it is the first to be unloaded when another needs the room."""
        if sha256 in self._entries:
            self._entries.move_to_end(sha256, last=False)
            self._entries[sha256].spared = True

    def forget(self, sha256: str) -> None:
        """Drop a network that the worker has freed already, or could not load."""
        self._entries.pop(sha256, None)

    def unload(self, sha256: str) -> None:
        """Unload a network from the device. Raises `DeviceLostError`."""
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
    """Return the bytes of memory that a loaded network takes, by estimate."""
    return PER_NETWORK_BYTES + PER_FILE_BYTE * artifact.path.stat().st_size
