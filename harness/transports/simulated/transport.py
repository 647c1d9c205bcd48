"""The transport to a simulated device in this process: no thread, no socket, no file unless it has a folder."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Self

from latlab.harness.transports.base import (
    ChannelClosedError,
    ConnectError,
    Deadline,
    Transport,
)
from latlab.harness.transports.simulated.config import FaultKind, SimulatedDevice, Verb
from latlab.harness.transports.simulated.device import Device, simulated_device
from latlab.harness.transports.simulated.worker import SimulatedWorker

__all__ = ["SimulatedTransport"]


class SimulatedTransport(Transport):
    """A channel to a worker on a simulated device; both are objects of this process.

    Args:
        device: the device.
    """

    STEPS = ("network", "host key", "work folder")

    def __init__(self, device: Device) -> None:
        super().__init__(device.name)
        self.device = device
        self._worker: SimulatedWorker | None = None

    @classmethod
    def from_config(cls, name: str, config: SimulatedDevice) -> Self:
        """Return a transport to the one device of this name and configuration.

        Raises:
            BadInputError: its table of latencies cannot be read.
        """
        return cls(simulated_device(name, config))

    def inject(self, kind: FaultKind, *, after_requests: int = 0, verb: Verb | None = None, connects: int = 0) -> None:
        """Schedule a fault, counted from now; the arguments are the fields of `ScheduledFault`."""
        self.device.inject(kind, after_requests=after_requests, verb=verb, connects=connects)

    def rest(self, seconds: float) -> None:
        """Wait for so many seconds of the device's own clock, at its own pace."""
        self.device.process.rest(seconds)
        time.sleep(seconds * self.device.config.pace)

    def _connect(self) -> None:
        if self.device.refuses:
            raise ConnectError(
                f"device {self.name}: its host key is not the one that is known (simulated)",
                step="host key",
                advice="The fault `refuse` has happened; `device.heal()`, or a new run, ends it.",
                lasting=True,
            )
        if self.device.unreachable > 0:
            self.device.unreachable -= 1
            raise ConnectError(
                f"device {self.name}: no route to it (simulated)",
                step="network",
                advice="The fault `disconnect` has happened; it ends after its `connects`.",
            )
        try:
            _ = self.device.storage
        except OSError as error:
            raise ConnectError(
                f"device {self.name}: cannot use the work folder {self.device.config.work}: {error.strerror}",
                step="work folder",
                advice="Name another with `work` in the inventory, or none.",
                lasting=True,
            ) from error
        self._worker = self._start_worker()

    def _start_worker(self) -> SimulatedWorker:
        return SimulatedWorker(self.device)

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._running().feed(data)

    def _receive(self, deadline: Deadline) -> bytes:
        return self._running().read(deadline)

    def _transfer(self, path: Path, sha256: str) -> None:
        if self.device.faults.next("transfer"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.device.storage.receive(path, sha256)

    def _disconnect(self, *, gently: bool) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end("was ended by its controller")

    def _running(self) -> SimulatedWorker:
        worker = self._worker
        if worker is None:  # closed by another thread
            raise ChannelClosedError("was ended by its controller")
        return worker
