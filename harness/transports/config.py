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
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from latlab.harness.targets import ACCELERATORS, BENCHMARK_MODEL, DEFAULT_RUNTIME, RUNTIMES, Target
from latlab.harness.text import printable

if TYPE_CHECKING:
    from latlab.harness.transports.base import Transport

__all__ = ["ClockDemand", "Cooldown", "DeviceConfig", "File", "Problem", "Strict", "TargetsConfig"]

if TYPE_CHECKING:
    Runtime: TypeAlias = str
    Accelerator: TypeAlias = str
else:  # pydantic checks, and the JSON schema lists, what the one table has
    Runtime, Accelerator = Literal[tuple(RUNTIMES)], Literal[ACCELERATORS]
_T = TypeVar("_T")
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

    runtime: Runtime | Annotated[list[Runtime], Some] = DEFAULT_RUNTIME
    accelerator: Accelerator | Annotated[list[Accelerator], Some] = "cpu"
    threads: Count | Annotated[list[Count], Some] = 1
    batch_size: Count | Annotated[list[Count], Some] = 1
    priority: int = Field(default=0, description="Of the targets of a device, the one with the highest goes first")

    def targets(self, device: str) -> list[Target]:
        """Raises `BadInputError` for a combination that makes no sense."""
        runtimes, accelerators = _listed(self.runtime), _listed(self.accelerator)
        choices = itertools.product(runtimes, accelerators, _listed(self.threads), _listed(self.batch_size))
        return [
            Target(device, runtime, accelerator, threads=threads, batch_size=batch_size)
            for runtime, accelerator, threads, batch_size in choices
        ]


def _listed(value: _T | list[_T]) -> list[_T]:
    return value if isinstance(value, list) else [value]


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
        """The transport to the device called `name`, not started, for a runtime of `RUNTIMES`."""

    @property
    def address(self) -> str:
        """Where the device is, for a person."""
        return ""

    @property
    def default_runtime(self) -> str:
        """The runtime that commands take where neither they nor `targets` name one."""
        return DEFAULT_RUNTIME

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
        if BENCHMARK_MODEL in (one.runtime if isinstance(one.runtime, list) else [one.runtime]):
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
