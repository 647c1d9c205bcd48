"""The process that runs on a device. It answers requests on stdin until its controller is gone.

    python latlab-worker-<hash>.pyz --work DIR

The verbs are `hello` (first), `put`, `load`, `time`, `profile`, `unload`, `install`, `telemetry` and `bye`;
`protocol.messages` defines how they travel. The worker opens no port, starts no program and evaluates no text as code.
Beside it runs a second process of the same program, its guard (`system.guard`).

The worker ends at the end of its stdin, after a long time without a request, when a newer worker has the device, and
when the runtime hangs past a request's deadline. When its controller is gone while a runtime computes, the guard ends
it within half a second, or a second more if somebody else holds its stdin open. So no orphan keeps a device busy.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, Callable, NoReturn

from latlab.agents.execution.loaded_models import LoadedModels
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
    LineTooLongError,
    decode_request,
    encode,
    failed,
)
from latlab.agents.system.guard import Guard
from latlab.agents.system.process import leave, program_hash, take_over_stdio
from latlab.agents.system.telemetry import Telemetry
from latlab.agents.workspace.environments import ENVIRONMENT_ID, Environments
from latlab.agents.workspace.lease import Lease, acquire_lease
from latlab.agents.workspace.model_store import WHEEL, ModelFolder

__all__ = ["Worker", "main"]

MAX_WHEELS = 200
"""The most wheels in one `install` request."""


class Worker:
    """The server behind the pipe: it answers one request at a time. From `hello` on it holds the device's lease.

    Args:
        work: the work folder, for networks, private environments and the lock.
        source: file descriptor that requests are read from.
        sink: file descriptor that replies are written to.
        max_bytes: room for networks in the work folder.
    """

    def __init__(self, work: str, source: int, sink: int, max_bytes: int) -> None:
        self._work = work
        self._source, self._sink = source, sink
        self._max_bytes = max_bytes
        self._lines = LineBuffer()
        self._idle_s = IDLE_S
        self._lease: Lease | None = None
        self._models: ModelFolder | None = None
        self._telemetry = Telemetry()
        self._environments = Environments(work)
        self._verbs: dict[str, Callable[[Fields], dict[str, Any]]] = {}

    def serve(self) -> None:
        """Answer requests until the input ends, or a `bye` comes.

        Raises:
            LineTooLongError: if a request is longer than `MAX_LINE`.
        """
        while True:
            line = self._next_line()
            if line is None:
                return
            reply, last = self._answer(line)
            try:
                _write(self._sink, encode(reply))
            except BrokenPipeError:
                return
            if last:
                return

    def _next_line(self) -> bytes | None:
        until = time.monotonic() + self._idle_s
        arriving: list[tuple[str, int]] = []
        while True:
            line = self._lines.pop()
            if line is not None:
                return line
            ready, _, _ = select.select([self._source], [], [], max(0.0, until - time.monotonic()))
            if ready:
                data = os.read(self._source, 1 << 16)
                if not data:
                    return None
                self._lines.feed(data)
            elif time.monotonic() >= until:
                now = self._models.arriving() if self._models else []
                if now == arriving:
                    sys.stderr.write(f"latlab-worker: asked nothing for {self._idle_s:g} s: leaving\n")
                    return None
                until, arriving = time.monotonic() + self._idle_s, now  # a large file is on its way

    def _answer(self, line: bytes) -> tuple[dict[str, Any], bool]:
        """Return the reply, and whether it is the last one."""
        number = None
        try:
            fields = decode_request(line)
            number = fields.integer("id", 0, 1 << 53)
            verb = fields.text("verb", VERB)
            result = self._dispatch(verb, fields)
            return {"id": number, "ok": True, **result}, verb == "bye"
        except AgentError as error:
            failure = error
        except MemoryError:
            failure = AgentError("out_of_memory", "the device ran out of memory")
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                failure = AgentError("no_space", f"the device's disk is full ({error.strerror}; {self._work})")
            else:
                traceback.print_exc()  # for the controller's stderr tail
                failure = AgentError("crash", f"{type(error).__name__}: {error}"[:500])
        return failed(number, failure), failure.kind == "lease_lost"

    def _dispatch(self, verb: str, fields: Fields) -> dict[str, Any]:
        if self._lease is not None:
            self._lease.check()
        if verb == "hello":
            return self._hello(fields)
        if self._lease is None:
            raise AgentError("bad_request", f"{verb!r} came before a hello that succeeded")
        if verb not in self._verbs:
            raise AgentError("bad_request", f"unknown verb {verb!r}")
        result = self._verbs[verb](fields)
        self._lease.check()  # samples that were taken while another worker used the device are worthless
        return result

    def _hello(self, fields: Fields) -> dict[str, Any]:
        # Imported late: it reads package metadata, which takes as long to import as everything else here.
        from latlab.agents import host_info as host

        fields.integer("protocol", PROTOCOL, PROTOCOL)
        owner = fields.optional_text("owner", OWNER)
        who = fields.optional_text("who", WHO)
        idle_s = fields.optional_number("idle_s", 1, MAX_IDLE_S)
        if self._lease is None:
            self._take_device(owner, who)
        assert self._lease is not None
        self._idle_s = idle_s or IDLE_S
        return {
            "protocol": PROTOCOL,
            "worker_version": program_hash(),
            "pid": os.getpid(),
            "lease": {"folder": self._lease.folder, "token": self._lease.token},
            "work": host.disk(self._work),
            "environment": host.private_environment(self._environments),
            **host.describe(),
        }

    def _take_device(self, owner: str | None, who: str | None) -> None:
        """Take the lease of the device, and open its folder of networks."""
        lease = acquire_lease(self._work, owner, who)
        try:
            models = ModelFolder(self._work, self._max_bytes)
        except BaseException:
            lease.release()
            raise
        self._lease, self._models = lease, models
        networks = LoadedModels(models, self._telemetry)
        self._verbs = {
            "put": self._put,
            "load": networks.load,
            "time": networks.time,
            "profile": networks.profile,
            "unload": networks.unload,
            "install": self._install,
            "telemetry": self._read_telemetry,
            "bye": self._bye,
        }

    def _put(self, fields: Fields) -> dict[str, Any]:
        sha256, suffix = fields.text("sha256", SHA256), fields.text("suffix", SUFFIX)
        assert self._models is not None
        return {"have": self._models.put(sha256, fields.integer("size", 0, 1 << 40), suffix)}

    def _install(self, fields: Fields) -> dict[str, Any]:
        """Unpack wheels that were put before. The next worker on this device is the first that uses them."""
        from latlab.agents.workspace.wheel_unpack import Wheel

        name = fields.text("environment", ENVIRONMENT_ID)
        assert self._models is not None
        wanted = [Fields(wheel) for wheel in fields.tables("wheels", MAX_WHEELS)]
        hashes = [wheel.text("sha256", SHA256) for wheel in wanted]
        wheels = [
            Wheel(wheel.string("name", 300), self._models.path(sha256, WHEEL)) for wheel, sha256 in zip(wanted, hashes)
        ]
        self._environments.install(name, wheels)
        for sha256 in hashes:
            self._models.remove(sha256, WHEEL)
        return {"environment": name}

    def _read_telemetry(self, _: Fields) -> dict[str, Any]:
        # The controller compares these with its own clocks: do they run at the same rate, and is the date right?
        clocks = {"wall_s": time.time(), "steady_s": time.perf_counter()}
        return {**self._telemetry.read(), "clocks": clocks}

    def _bye(self, _: Fields) -> dict[str, Any]:
        return {}


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the worker as a program: read the options, serve, and exit with 0 (the end of the input) or 1."""
    parser = argparse.ArgumentParser("latlab-worker", description="Loads networks and times them.")
    parser.add_argument("--work", required=True, help="folder for networks and the lock")
    parser.add_argument("--max-bytes", type=int, default=2 << 30, help="room for networks there (2 GiB)")
    options = parser.parse_args(arguments)
    source, sink = take_over_stdio()
    guard = Guard(source)
    Environments(options.work).activate()  # before anything looks for a runtime
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller; when that ends, so does the input
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # if memory runs out, Linux should kill the worker and not the controller
    code = 1
    try:
        Worker(options.work, source, sink, options.max_bytes).serve()
        code = 0
    except LineTooLongError as error:
        sys.stderr.write(f"latlab-worker: {error}\n")
    except BaseException:
        traceback.print_exc()
    guard.end()
    leave(code)


if __name__ == "__main__":
    main()
