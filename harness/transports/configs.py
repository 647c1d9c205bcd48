"""What inventory.yaml says of a device: one pydantic model per transport.

A new transport is a subclass of `DeviceConfig` under the entry-point group `latlab.transports`; its `open` makes
the `Transport`. Transports' libraries are imported there and not before, so that reading an inventory is quick.
"""

from __future__ import annotations

import itertools
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from latlab.harness.paths import cache_folder
from latlab.harness.targets import RUNTIME_FORMATS, Target
from latlab.harness.transports.replies import printable

if TYPE_CHECKING:
    from latlab.harness.transports.base import Transport

__all__ = [
    "ADBDevice",
    "ClockDemand",
    "Cooldown",
    "DeviceConfig",
    "File",
    "LocalDevice",
    "Problem",
    "SSHDevice",
    "Strict",
    "TargetsConfig",
]

Runtime = Literal["onnxruntime", "tflite", "torchscript", "benchmark_model"]
Accelerator = Literal["cpu", "cuda", "gpu", "nnapi"]
Some = Field(min_length=1)
Count = Annotated[int, Field(ge=1)]
CPU = Annotated[int, Field(ge=0)]
File = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
"""On this machine; `~` is the user's home."""
Port = Annotated[int, Field(ge=1, le=65535)]
Problem = tuple[tuple[str | int, ...], str]
"""Of a device's fields, where one is wrong, and how."""


class Strict(BaseModel):
    """No field that is not there, and no change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetsConfig(Strict):
    """Ways to run networks on a device; where a field is a list, every combination is a target."""

    runtime: Runtime | Annotated[list[Runtime], Some] = "onnxruntime"
    accelerator: Accelerator | Annotated[list[Accelerator], Some] = "cpu"
    threads: Count | Annotated[list[Count], Some] = 1
    batch_size: Count | Annotated[list[Count], Some] = 1
    priority: int = Field(default=0, description="Of the targets of a device, the one with the highest goes first")

    def targets(self, device: str) -> list[Target]:
        """Raises `BadInputError` for a combination that makes no sense."""
        fields = (self.runtime, self.accelerator, self.threads, self.batch_size)
        choices = itertools.product(*(field if isinstance(field, list) else [field] for field in fields))
        return [Target(device, r, a, "fp32", t, b) for r, a, t, b in choices]  # type: ignore[arg-type]


class Cooldown(Strict):
    """Rest before each pass, so that networks are timed at the same temperature."""

    below_c: float | None = Field(
        default=None, ge=-40, le=130, description="Wait until the device is cooler than this (°C)"
    )
    zone: str | None = Field(
        default=None,
        min_length=1,
        description="Whose temperature that is, of those that the device tells (`gpu 0` is one); default: the hottest",
    )
    most_s: float = Field(
        default=120.0, ge=0, le=86400, description="Seconds to wait at most; then it is timed all the same, and noted"
    )
    pause_s: float = Field(default=0.0, ge=0, le=3600, description="Seconds of rest in any case")

    @model_validator(mode="after")
    def _says_something(self) -> Cooldown:
        if self.below_c is None and not self.pause_s:
            raise ValueError("say how cool (`below_c`), or how long to rest (`pause_s`)")
        return self


class ClockDemand(Strict):
    """How fast the CPUs have to be. latlab sets neither, which takes root: it looks."""

    governor: str | None = Field(default=None, min_length=1, description="Frequency governor, such as `performance`")
    min_percent: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Of the highest clock: what the CPUs may have before a pass, and had at the end of the last one",
    )
    otherwise: Literal["warn", "wait", "refuse"] = Field(
        default="warn",
        description="What is done where that is not so. warn: it is noted with the pass; wait: the device rests until "
        "its clock is back, for up to `most_s`; refuse: nothing is timed",
    )
    most_s: float = Field(default=60.0, ge=0, le=86400, description="Seconds to wait at most")

    @model_validator(mode="after")
    def _says_something(self) -> ClockDemand:
        if self.governor is None and self.min_percent is None:
            raise ValueError("say which `governor`, or how fast the clock has to be (`min_percent`)")
        return self


class DeviceConfig(Strict):
    """What all devices have."""

    transport: str
    description: str = ""
    targets: list[TargetsConfig] = Field(
        default_factory=list, description="What commands measure unless they are told: runtimes, threads, batch sizes"
    )
    affinity: Annotated[list[CPU], Some] | None = Field(
        default=None, description="CPUs that time networks; default: the last ones, as many as threads"
    )

    reconnect_s: float = Field(
        default=90.0, ge=0, le=86400, description="Seconds that the device, once lost, may take to come back (to boot)"
    )

    cooldown: Cooldown | None = Field(default=None, description="Rest before each pass; default: none")
    clock: ClockDemand | None = Field(default=None, description="What its CPUs have to be set to; default: anything")

    is_this_machine: ClassVar[bool] = False
    """Whether it shares its cores with latlab, which then keeps off those that time networks."""

    @abstractmethod
    def open(self, name: str, runtime: str) -> Transport:
        """The transport to the device called `name`, not started, for a runtime of `RUNTIME_FORMATS`."""

    @property
    def address(self) -> str:
        """Where the device is, for a person."""
        return ""

    @property
    def default_runtime(self) -> str:
        """The runtime that commands take where neither they nor `targets` name one."""
        return "onnxruntime"

    def problems(self) -> Iterator[Problem]:
        """What an inventory that says this had better say otherwise: where, and what is wrong there."""
        yield from ()

    def missing_files(self) -> Iterator[Problem]:
        """Files on this machine that are named and not there. Who does not use this device need not have them."""
        yield from ()

    def timing_cpus(self, usable: Sequence[int], threads: int) -> list[int] | None:
        """CPUs that time networks: those of the inventory, else the last ones, one per thread, where others remain.

        None for all: so few CPUs are usable that no choice is left.
        """
        if self.affinity is not None:
            return list(self.affinity)
        return sorted(usable)[-threads:] if len(usable) > threads else None

    def all_targets(self, name: str) -> list[Target]:
        """The device's targets, by priority; the usual one where the inventory names none."""
        if not self.targets:
            return [Target(name, self.default_runtime)]
        ordered = sorted(self.targets, key=lambda one: -one.priority)
        return list(dict.fromkeys(target for one in ordered for target in one.targets(name)))


def _missing(field: str, path: Path | None) -> Iterator[Problem]:
    if path is not None and not os.path.exists(path):  # which no name makes raise
        where = "" if path.is_absolute() else f" in {Path.cwd()}, where latlab runs"
        yield (field,), f"there is no file {printable(str(path))[:300]}{where}"


def _of_benchmark_model(device: DeviceConfig, problem: str) -> Iterator[Problem]:
    for number, one in enumerate(device.targets):
        if "benchmark_model" in (one.runtime if isinstance(one.runtime, list) else [one.runtime]):
            yield ("targets", number, "runtime"), problem


_PHONES_ONLY = "benchmark_model is for Android devices (transport: adb); here, take tflite"
_HOST_AND_PORT = re.compile(r"([^:@]*|\[[^@\]]*\]):(\d*)")


def _bare_host(host: str | None) -> str | None:
    """Raises `ValueError` for a host that says user or port, too: an address of IPv6 has colons, and may."""
    if host is None:
        return None
    user, at, rest = host.rpartition("@")
    port = _HOST_AND_PORT.fullmatch(rest)
    parts = [f"user: {user}"] * bool(at) + ([f"port: {port[2]}"] if port else [])
    if parts:
        bare = port[1].strip("[]") if port else rest
        fields = " and ".join(part.partition(" ")[0] for part in parts)
        own = "as fields of their own" if len(parts) > 1 else "as a field of its own"
        raise ValueError(printable(f"write {fields} {own} ({', '.join(parts)}) beside host: {bare}"))
    return host


class LocalDevice(DeviceConfig):
    """The machine that latlab runs on, driven through the same worker and protocol as any other."""

    is_this_machine: ClassVar[bool] = True
    transport: Literal["local"] = "local"
    python: File | None = Field(default=None, description="Interpreter that runs the worker; default: latlab's own")
    work: File | None = Field(default=None, description="The worker's folder; default: in the user's cache folder")

    @property
    def address(self) -> str:
        return "this machine" if self.python is None else f"this machine, {self.python}"

    def problems(self) -> Iterator[Problem]:
        yield from _of_benchmark_model(self, _PHONES_ONLY)

    def open(self, name: str, runtime: str) -> Transport:
        from latlab.harness.transports.local import LocalTransport

        return LocalTransport(name, self.python, self.work or cache_folder() / "worker")


class SSHDevice(DeviceConfig):
    """A Linux machine that an SSH server runs on: a Raspberry Pi, a Jetson, a workstation, a server."""

    transport: Literal["ssh"] = "ssh"
    host: str = Field(min_length=1, description="Host name, address, or an alias of ~/.ssh/config")
    port: Port | None = Field(default=None, description="Default: ~/.ssh/config's, else 22")
    user: str | None = Field(default=None, description="Default: ~/.ssh/config's, else yours")
    key: File | None = Field(default=None, description="Private key; default: your agent's and your usual ones")
    known_hosts: File | None = Field(default=None, description="Host keys; default: ~/.ssh/known_hosts")
    jump: str | list[str] | None = Field(
        default=None, description="Hosts to go through, nearest first: [USER@]HOST[:PORT]"
    )
    python: str | None = Field(default=None, description="Interpreter on the device; default: python3")
    work: str = Field(
        default=".cache/latlab", min_length=1, description="Folder on the device, from the user's home where relative"
    )
    patience_s: float = Field(
        default=4.0, gt=0, le=3600, description="Seconds without a sign of life after which the device counts as lost"
    )

    @field_validator("host")
    @classmethod
    def _only_a_host(cls, host: str) -> str:
        _bare_host(host)
        return host

    def problems(self) -> Iterator[Problem]:
        yield from _of_benchmark_model(self, _PHONES_ONLY)

    def missing_files(self) -> Iterator[Problem]:
        yield from _missing("key", self.key)

    @property
    def address(self) -> str:
        return f"{f'{self.user}@' if self.user else ''}{self.host}{f':{self.port}' if self.port else ''}"

    def open(self, name: str, runtime: str) -> Transport:
        from latlab.harness.transports.ssh import SSHTransport

        return SSHTransport(name, self)


class ADBDevice(DeviceConfig):
    """An Android device, over TCP (`host`) or USB (`serial`)."""

    transport: Literal["adb"] = "adb"
    host: str | None = Field(default=None, min_length=1, description="Address, for adb over Wi-Fi or Ethernet")
    port: Port = 5555
    serial: str | None = Field(default=None, min_length=1, description="Serial number, for USB")
    key: File | None = Field(default=None, description="Your adb key; default: ~/.android/adbkey")
    work: str | None = Field(
        default=None, description="Folder on the device; default: the first of several that can be written"
    )
    python: str | None = Field(default=None, description="Interpreter on the device; default: looked for")
    benchmark_model: File | None = Field(
        default=None, description="TFLite's benchmark_model for the device, a file on this machine"
    )
    patience_s: float = Field(
        default=4.0, gt=0, le=3600, description="Seconds without a sign of life after which the device counts as lost"
    )

    @field_validator("host")
    @classmethod
    def _only_a_host(cls, host: str | None) -> str | None:
        return _bare_host(host)

    def missing_files(self) -> Iterator[Problem]:
        yield from _missing("key", self.key)
        yield from _missing("benchmark_model", self.benchmark_model)

    def problems(self) -> Iterator[Problem]:
        if self.benchmark_model is None:
            yield from _of_benchmark_model(self, "it takes TFLite's program: name the file with `benchmark_model:`")

    @model_validator(mode="after")
    def _addressed(self) -> ADBDevice:
        if (self.host is None) == (self.serial is None):
            raise ValueError("give either host (TCP) or serial (USB)")
        return self

    @property
    def address(self) -> str:
        return f"USB {self.serial}" if self.serial else f"{self.host}:{self.port}"

    @property
    def default_runtime(self) -> str:
        return "benchmark_model" if self.benchmark_model else "tflite"

    def open(self, name: str, runtime: str) -> Transport:
        if runtime == "benchmark_model":
            from latlab.harness.transports.benchmark_model import BenchmarkModelTransport

            return BenchmarkModelTransport(name, self)
        from latlab.harness.transports.adb import ADBTransport

        return ADBTransport(name, self)


assert set(Runtime.__args__) == set(RUNTIME_FORMATS)  # type: ignore[attr-defined]
