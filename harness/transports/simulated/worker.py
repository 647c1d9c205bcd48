"""The worker of a simulated device: it answers as a real one does, and computes how long that would have taken."""

from __future__ import annotations

import math
import time
from typing import Any

from latlab.agents.protocol.errors import DISK_FULL, AgentError
from latlab.agents.protocol.messages import (
    IDLE_S,
    MAX_IDLE_S,
    OWNER,
    PROTOCOL,
    SHA256,
    SUFFIX,
    VERB,
    WHO,
    Fields,
    LineBuffer,
    decode_request,
    encode,
    failed,
)
from latlab.harness.transports.base import (
    ChannelClosedError,
    ChannelLostError,
    ChannelTimeoutError,
    Deadline,
)
from latlab.harness.transports.simulated.config import ScheduledFault
from latlab.harness.transports.simulated.device import SIMULATED, Device
from latlab.harness.transports.simulated.loaded_models import SimulatedModels
from latlab.harness.transports.simulated.processes import Lease, Process, acquire, is_newest, revoke
from latlab.harness.transports.simulated.storage import CAPACITY_BYTES

__all__ = ["SimulatedWorker"]


class SimulatedWorker(Process):
    """A worker's process and its channel. A request is worked on when its reply is read.

    Args:
        device: the device that it runs on.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device
        self._pace = device.config.pace
        self._key = (device.name, device.config.seed, device.config.work)
        self._lease: Lease | None = None
        networks = SimulatedModels(device)
        self._lines = LineBuffer()
        self._reply: bytes | None = None
        self._due_s = 0.0
        """When the reply is due, on the monotonic clock."""
        self._last = False
        """True if the worker ends after this reply."""
        self._link_cut = False
        self._networks = networks
        self._verbs = {
            "put": self._put,
            "load": networks.load,
            "time": networks.time,
            "profile": networks.profile,
            "unload": networks.unload,
            "install": self._install,
            "telemetry": self._telemetry,
            "bye": self._bye,
        }

    # The channel

    def feed(self, data: bytes) -> None:
        """Write to its stdin.

        Raises:
            ChannelClosedError: it has ended.
        """
        if not self.is_running:
            raise ChannelClosedError(self.ended)
        self.busy = True
        self._lines.feed(data)

    def read(self, deadline: Deadline) -> bytes:
        """Return the next bytes of its stdout when they are due.

        At pace 0 this never waits: replies come at once, and a deadline that would pass counts as passed.

        Raises:
            ChannelClosedError: it has ended.
            ChannelLostError: the fault `disconnect` or `refuse` has cut the link.
            ChannelTimeoutError: the reply does not come before the deadline.
        """
        while True:
            self.woken.clear()
            if self._reply is None and not self.frozen and self.ended is None:
                self._work()
            if self._link_cut:
                raise ChannelLostError("the link was cut (simulated)")
            if self.ended is not None:
                raise ChannelClosedError(self.ended)
            left_s = deadline.left
            ready_s = self._ready_in_s(left_s)
            if ready_s <= 0:
                return self._take_reply()
            if left_s <= 0 or not self._pace:
                raise ChannelTimeoutError
            self.woken.wait(min(ready_s, left_s))

    def _ready_in_s(self, left_s: float) -> float:
        """Return the seconds until the reply is due; infinity if none comes, or at pace 0 none within `left_s`."""
        if self._reply is None or self.frozen:
            return math.inf
        if self._pace:
            return self._due_s - time.monotonic()
        return 0.0 if self._networks.took_s <= left_s else math.inf

    def _take_reply(self) -> bytes:
        assert self._reply is not None
        reply, self._reply = self._reply, None
        self.busy, self.idle_since_s = False, time.monotonic()
        if self._last:
            self.end("ended with exit code 0")
        return reply

    def _work(self) -> None:
        """Answer the next request, if there is one."""
        line = self._lines.pop()
        if line is None:
            return
        self._networks.took_s = 0.0
        reply = self._answer(line)
        if reply is not None:
            self._reply = reply
            self._due_s = time.monotonic() + self._networks.took_s * self._pace

    # The verbs

    def _answer(self, line: bytes) -> bytes | None:
        """Return the reply to a request, or None where a fault prevents it."""
        number = None
        try:
            fields = decode_request(line)
            number = fields.integer("id", 0, 1 << 53)
            verb = fields.text("verb", VERB)
            fault = self._device.faults.next(verb)
            if fault is not None and not self._apply_fault(fault):
                return b"no reply\n" if fault.kind == "garbage" else None
            result = self._do(verb, fields)
            return encode({"id": number, "ok": True, **result})
        except AgentError as error:
            failure = error
        except OSError as error:  # from the folder that serves as its disk
            kind = "no_space" if error.errno in DISK_FULL else "crash"
            failure = AgentError(kind, f"{error.filename or self._device.config.work}: {error.strerror or error}")
        self._last = self._last or failure.kind == "lease_lost"
        return encode(failed(number, failure))

    def _do(self, verb: str, fields: Fields) -> dict[str, Any]:
        if self._lease is not None and not is_newest(self._key, self._lease):
            raise AgentError("lease_lost", f"another worker has taken over the simulated device {self._device.name}")
        if verb == "hello":
            return self._hello(fields)
        if self._lease is None:
            raise AgentError("bad_request", f"{verb!r} came before a hello that succeeded")
        if verb not in self._verbs:
            raise AgentError("bad_request", f"unknown verb {verb!r}")
        return self._verbs[verb](fields)

    def _apply_fault(self, fault: ScheduledFault) -> bool:
        """Apply a fault and return whether the request is answered all the same."""
        if fault.kind == "hang":
            self.frozen = True
        elif fault.kind == "crash":
            self.end("was killed by SIGSEGV")
        elif fault.kind in ("disconnect", "refuse"):
            self._link_cut = True
            self._device.unreachable = fault.connects
            self._device.refuses = fault.kind == "refuse"
            self.end("ended with exit code 0: its controller was gone")
        elif fault.kind == "lease_lost":
            revoke(self._key)
            return True
        elif fault.kind == "corrupt":
            self._device.storage.damage()
            return True
        return False

    def _hello(self, fields: Fields) -> dict[str, Any]:
        fields.integer("protocol", PROTOCOL, PROTOCOL)
        owner = fields.optional_text("owner", OWNER)
        self.who = fields.optional_text("who", WHO)
        idle_s = fields.optional_number("idle_s", 1, MAX_IDLE_S) or IDLE_S
        if self._lease is None:
            self._lease = acquire(self._key, self, owner)
        self.idle_s = idle_s
        folder = str(self._device.config.work or SIMULATED)
        return {
            "protocol": PROTOCOL,
            "worker_version": SIMULATED,
            "pid": self.pid,
            "lease": self._lease._asdict(),
            "environment": None,
            "work": {"folder": folder, "free_bytes": CAPACITY_BYTES, "total_bytes": CAPACITY_BYTES},
            **self._device.facts(),
        }

    def _put(self, fields: Fields) -> dict[str, Any]:
        sha256, suffix = fields.text("sha256", SHA256), fields.text("suffix", SUFFIX)
        return {"have": self._device.storage.put(sha256, fields.integer("size", 0, 1 << 40), suffix)}

    def _install(self, _: Fields) -> dict[str, Any]:
        raise AgentError("bad_request", "a simulated device has all runtimes already: there is nothing to install")

    def _telemetry(self, _: Fields) -> dict[str, Any]:
        clocks = {"wall_s": time.time(), "steady_s": time.perf_counter()}
        return {**self._device.telemetry(), "clocks": clocks}

    def _bye(self, _: Fields) -> dict[str, Any]:
        self._last = True
        return {}
