"""The client of a worker, one method per verb: typed requests and replies over a transport."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from latlab.agents.protocol.load_request import InputRequest, LoadRequest
from latlab.agents.protocol.messages import PROTOCOL
from latlab.agents.protocol.pass_request import PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest
from latlab.harness.devices.owner import owner_description
from latlab.harness.exporters import Artifact
from latlab.harness.store.store import LeaseToken
from latlab.harness.targets import Target
from latlab.harness.telemetry.operator_profile import OperatorProfile
from latlab.harness.telemetry.readings import number, text
from latlab.harness.telemetry.recorded_pass import RecordedPass
from latlab.harness.transports import Transport

__all__ = ["Hello", "LoadedModel", "RuntimeInfo", "WorkerClient", "load_request"]

REPLY_S = 10.0
"""Seconds after the deadline of a pass that the device has to report that the deadline has passed."""
PROFILE_REPLY_S = 300.0
"""The same for a profile: after its inferences the device has to read what the profiler has recorded, which takes some
seconds here, and a minute on a small device."""
_PASS_FACTS = ("at_s", "calls", "settled", "launch_ns", "discarded", "throttled", "sm_mhz", "warnings", "aggregate")
"""Fields of a reply to `time` that are kept next to the telemetry of the pass."""
_MODEL_FACTS = ("runtime_version", "provider", "delegated", "inputs", "load_ns", "first_ns", "memory", "gpu")
"""Fields of a reply to `load` that are kept with the row of the network."""
_VOLATILE = ("pid", "id", "ok", "lease", "work")
"""Fields of a `hello` that say nothing about latency and change from one worker to the next."""


class RuntimeInfo(NamedTuple):
    """An inference runtime on a device."""

    version: str | None
    """None where the runtime is not installed."""
    package: str | None
    """The distribution that it comes from, e.g. `onnxruntime-gpu`."""
    why: str
    """Why there is no version; empty where the device gives no reason."""


@dataclass(frozen=True)
class Hello:
    """The reply of a worker to `hello`: what it reports of its device."""

    fields: Mapping[str, Any]
    """The whole reply. Known fields are checked (`transports.reply_validation`); there may be others."""

    @cached_property
    def runtimes(self) -> dict[str, RuntimeInfo]:
        """The runtimes that the worker knows, by name."""
        found = self.fields.get("runtimes")
        return {
            str(name): RuntimeInfo(text(runtime, "version"), text(runtime, "package"), text(runtime, "why") or "")
            for name, runtime in (found.items() if isinstance(found, Mapping) else ())
        }

    def runtime(self, name: str) -> RuntimeInfo:
        """Return what the worker reports of a runtime; one that it does not know is not installed."""
        return self.runtimes.get(name, RuntimeInfo(None, None, ""))

    @property
    def usable_cpus(self) -> list[int]:
        """The CPUs that the worker may use, sorted; empty if the device does not report them."""
        cpus = self.fields.get("cpus")
        return sorted(cpus.get("affinity") or ()) if isinstance(cpus, Mapping) else []

    @property
    def cpu_count(self) -> int:
        """Number of CPUs that the worker may use; at least 1."""
        return len(self.usable_cpus) or int(number(self.fields, "cpus", "count") or 1)

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory of the device; None if it does not report them."""
        found = number(self.fields, "memory_bytes")
        return None if found is None else int(found)

    @property
    def has_no_gpu(self) -> bool:
        """True if the device reports that it has no GPU. False if it reports nothing about GPUs."""
        return self.fields.get("gpus") == []

    @property
    def is_simulated(self) -> bool:
        """True if the device is a simulated one."""
        return bool(self.fields.get("simulated"))

    @property
    def environment_id(self) -> str | None:
        """Identity of the private environment that `latlab setup` installed; None where there is none."""
        return text(self.fields, "environment", "id")

    @property
    def environment_runtimes(self) -> list[str]:
        """Runtimes in that environment."""
        environment = self.fields.get("environment")
        return list(environment.get("runtimes") or ()) if isinstance(environment, Mapping) else []

    def lease(self, device: str) -> LeaseToken:
        """Return the lease under which the device is used now; its token is 0 if the worker reports no lease."""
        lease = self.fields.get("lease") or {"folder": "", "token": 0}
        return LeaseToken(device, lease["folder"], lease["token"])

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that influence latency (software versions, CPU, governor); they make the device's fingerprint."""
        return {key: value for key, value in self.fields.items() if key not in _VOLATILE}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is loaded on the device."""

    handle: int
    """The worker's number for the model."""
    first_s: float
    """Seconds of the first inference."""
    facts: dict[str, Any]
    """What the worker reports of the model: runtime version, provider, delegated operators, inputs, memory."""
    push_s: float = 0.0
    """Seconds that pushing the file to the device took."""
    load_s: float = 0.0
    """Seconds that loading took, the first inference included."""


def load_request(target: Target, artifact: Artifact, affinity: list[int] | None, network: str) -> LoadRequest:
    """Return the request to load an artifact as a target prescribes.

    Args:
        affinity: CPUs that run the network; None for all.
        network: name of the network in the worker's messages.
    """
    return LoadRequest(
        sha256=artifact.sha256,
        suffix=artifact.suffix,
        runtime=target.runtime,
        accelerator=target.accelerator,
        threads=target.threads,
        affinity=affinity,
        inputs=artifact.inputs or ([InputRequest(shape=artifact.input_shape)] if artifact.input_shape else []),
        seed=0,
        network=network,
        data=artifact.data.sha256 if artifact.data else None,
    )


class WorkerClient:
    """A worker at the other end of a transport.

    Every method but `close` may raise `WorkerError` (the worker reports a failure, and lives on), `DeviceLostError`
    (no reply in time, or the worker is gone) and `ProtocolError` (the reply breaks the protocol).
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def start(self) -> None:
        """Bring the worker to the device and start it. Raises `ConnectError`."""
        self.transport.start()

    def hello(self, timeout_s: float, owner: str | None = None, idle_s: float | None = None) -> Hello:
        """Greet the worker, which takes the lease of the device.

        Args:
            owner: identity of the lease's holder, 32 hex digits: a worker that an earlier connection of the same owner
                left behind gives way. None: no other worker gives way.
            idle_s: seconds without a request after which the worker ends; None for its default.
        """
        given = {"owner": owner, "idle_s": idle_s}
        optional = {name: value for name, value in given.items() if value is not None}
        reply = self.transport.request("hello", timeout_s, protocol=PROTOCOL, who=owner_description(), **optional)
        return Hello(reply)

    def push(self, path: Path, sha256: str, suffix: str) -> None:
        """Bring a file to the device, unless it has it."""
        self.transport.push(path, sha256, suffix)

    def load(self, request: LoadRequest, timeout_s: float) -> LoadedModel:
        """Load a pushed model, and run it once."""
        start = time.perf_counter()
        reply = self.transport.request("load", timeout_s, **request.to_fields())
        facts: dict[str, Any] = {key: reply[key] for key in _MODEL_FACTS if reply.get(key) is not None}
        load_s = time.perf_counter() - start
        return LoadedModel(reply["handle"], reply.get("first_ns", 0) / 1e9, facts, load_s=load_s)

    def time(self, handle: int, request: PassRequest, deadline_s: float) -> RecordedPass:
        """Time one pass of a loaded model.

        Args:
            deadline_s: seconds after which the worker gives up and reports a timeout.
        """
        reply = self.transport.request(
            "time", deadline_s + REPLY_S, handle=handle, deadline_s=deadline_s, **request.to_fields()
        )
        facts = {key: reply[key] for key in _PASS_FACTS if reply.get(key) is not None and reply[key] != []}
        return RecordedPass(reply["warmup_ns"], reply["samples_ns"], {**reply["telemetry"], **facts})

    def profile(self, handle: int, request: ProfileRequest, deadline_s: float) -> OperatorProfile:
        """Profile a loaded model.

        Args:
            deadline_s: seconds after which the worker gives up and reports a timeout.
        """
        reply = self.transport.request(
            "profile", deadline_s + PROFILE_REPLY_S, handle=handle, deadline_s=deadline_s, **request.to_fields()
        )
        return OperatorProfile.from_reply(reply)

    def telemetry(self, timeout_s: float) -> dict[str, Any]:
        """Return a reading of the device's sensors (`telemetry.readings`)."""
        return self.transport.request("telemetry", timeout_s)

    def unload(self, handles: Sequence[int], timeout_s: float) -> None:
        """Free loaded models."""
        self.transport.request("unload", timeout_s, handles=list(handles))

    def install(self, environment: str, wheels: Sequence[Mapping[str, str]], timeout_s: float) -> None:
        """Install pushed wheels into a private environment.

        Args:
            environment: the environment's identity, 16 to 64 hex digits.
            wheels: `sha256` and `name` of each.
        """
        self.transport.request("install", timeout_s, environment=environment, wheels=list(wheels))

    def rest(self, seconds: float) -> None:
        """Let nothing run on the device for so many seconds of its own clock."""
        self.transport.rest(seconds)

    def close(self, *, gently: bool = True) -> None:
        """End the worker, which frees the device. It may be called more than once.

        Args:
            gently: whether to ask the worker to end; False to cut the connection, even during a request.
        """
        self.transport.close(gently=gently)
