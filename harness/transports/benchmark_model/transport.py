"""The transport to phones without Python: TFLite's `benchmark_model` over adb, with a worker's requests and replies."""

from __future__ import annotations

from contextlib import suppress

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.messages import Fields, decode, encode, failed
from latlab.harness.transports.adb.config import ADBDevice
from latlab.harness.transports.adb.connection import ServiceRefusedError
from latlab.harness.transports.adb.phone_transport import PhoneTransport
from latlab.harness.transports.base import (
    ChannelClosedError,
    ChannelLostError,
    ChannelTimeoutError,
    ConnectError,
    Deadline,
)
from latlab.harness.transports.benchmark_model.worker import BenchmarkWorker

__all__ = ["BenchmarkModelTransport"]

END_S = 1.0


class BenchmarkModelTransport(PhoneTransport):
    """A worker in this process that runs `benchmark_model` through the phone's shell.

    Its requests and replies are the same lines as those of a worker on the device, and checked in the same way:
    `_send` stores the request, and `_receive` carries it out and returns the reply.

    Args:
        name: the device, for messages.
        config: its entry in the inventory.
    """

    STEPS = ("connection", "login", "work folder")

    def __init__(self, name: str, config: ADBDevice) -> None:
        super().__init__(name, config)
        self._binary = config.benchmark_model
        self._worker: BenchmarkWorker | None = None
        self._request: bytes = b""
        self._said_bye = False

    def _connect(self) -> None:
        with self._phone.in_use:
            self._said_bye = False
            self._phone.connect()
            try:
                self._folder = self._phone.find_work_folder(running=True)
            except (ChannelLostError, ChannelTimeoutError, ServiceRefusedError) as error:
                words = str(error) or "it does not answer"
                raise ConnectError(f"device {self.name}: {words}", step="work folder") from None
            self._worker = BenchmarkWorker(self._phone, self._folder, self._binary)

    def _send(self, data: bytes, deadline: Deadline) -> None:
        self._request = data

    def _receive(self, deadline: Deadline) -> bytes:
        with self._phone.in_use:
            worker, request = self._worker, decode(self._request)
            if worker is None or self._said_bye:
                raise ChannelClosedError("was ended")
            number, verb = request["id"], request["verb"]
            self._said_bye = verb == "bye"
            try:
                return encode({"id": number, "ok": True, **worker.answer(verb, Fields(request), deadline)})
            except AgentError as error:
                return encode(failed(number, error))
            except ServiceRefusedError as error:
                raise ChannelLostError(f"adbd does not offer its service {error} any more") from None

    def _disconnect(self, *, gently: bool) -> None:
        with self._phone.ending() as alone:
            if not alone:
                return
            worker, self._worker = self._worker, None
            connection = self._phone.connection
            if worker is not None and connection is not None and not connection.lost:
                with suppress(ChannelLostError, ChannelTimeoutError):
                    worker.end(Deadline(END_S))
            self._phone.disconnect(self._folder.path if self._folder else None)
