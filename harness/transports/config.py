"""Entries of inventory.yaml that describe devices: one pydantic model per transport.

A new transport is a subclass of `DeviceConfig` under the entry-point group `latlab.transports`; it names the class of
its transport in `transport_factory`. `open_transport` imports that class, with its libraries, when a device is used, so
that an inventory is read quickly.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from latlab.harness.targets import ACCELERATORS, BENCHMARK_MODEL, DEFAULT_RUNTIME, PRECISIONS, RUNTIMES, Target
from latlab.harness.text import printable

__all__ = ["ClockDemand", "Cooldown", "DeviceConfig", "File", "Problem", "Strict", "TargetsConfig"]

if TYPE_CHECKING:
    Runtime: TypeAlias = str
    Accelerator: TypeAlias = str
    Precision: TypeAlias = str
else:  # pydantic checks, and the JSON schema lists, what the one table has
    Runtime, Accelerator, Precision = Literal[tuple(RUNTIMES)], Literal[ACCELERATORS], Literal[PRECISIONS]
_T = TypeVar("_T")
NonEmpty = Field(min_length=1)
Count = Annotated[int, Field(ge=1)]
CPU = Annotated[int, Field(ge=0)]
File = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]
"""A path on this machine; `~` stands for the user's home."""
Port = Annotated[int, Field(ge=1, le=65535)]
Problem = tuple[tuple[str | int, ...], str]
"""The location of a wrong field in a device's entry, and what is wrong with it."""


class Strict(BaseModel):
    """A model that refuses unknown fields and cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetsConfig(Strict):
    """Targets of a device: runtime, accelerator, precision, threads, batch size; lists give every combination."""

    runtime: Runtime | Annotated[list[Runtime], NonEmpty] = DEFAULT_RUNTIME
    accelerator: Accelerator | Annotated[list[Accelerator], NonEmpty] = "cpu"
    precision: Precision | Annotated[list[Precision], NonEmpty] = "fp32"
    threads: Count | Annotated[list[Count], NonEmpty] = 1
    batch_size: Count | Annotated[list[Count], NonEmpty] = 1
    priority: int = Field(default=0, description="Targets of a device are measured from the highest priority down")

    def targets(self, device: str) -> list[Target]:
        """Return every combination of the fields as a target of `device`.

        Raises:
            BadInputError: a combination is impossible.
        """
        places = itertools.product(_listed(self.runtime), _listed(self.accelerator), _listed(self.precision))
        sizes = itertools.product(_listed(self.threads), _listed(self.batch_size))
        targets = [Target(device, *place, *size) for place, size in itertools.product(places, sizes)]
        for target in targets:
            target.check_exported()
        return targets


def _listed(value: _T | list[_T]) -> list[_T]:
    return value if isinstance(value, list) else [value]


class Cooldown(Strict):
    """A rest before each pass, so that networks are timed at the same temperature."""

    below_c: float | None = Field(
        default=None, ge=-40, le=130, description="Wait until the device is cooler than this (°C)"
    )
    zone: str | None = Field(
        default=None,
        min_length=1,
        description="Sensor to look at, of those that the device reports (such as `gpu 0`); default: the hottest",
    )
    most_s: float = Field(
        default=120.0, ge=0, le=86400, description="Longest wait in seconds; then the pass is timed, with a note"
    )
    pause_s: float = Field(default=0.0, ge=0, le=3600, description="Shortest rest in seconds, at any temperature")

    @model_validator(mode="after")
    def _requires_a_demand(self) -> Cooldown:
        if self.below_c is None and not self.pause_s:
            raise ValueError("say how cool (`below_c`), or how long to rest (`pause_s`)")
        return self


class ClockDemand(Strict):
    """The frequency governor or clock that the CPUs must have. latlab checks them; to set them takes root."""

    governor: str | None = Field(default=None, min_length=1, description="Frequency governor, such as `performance`")
    min_percent: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Least clock in percent of the highest: what the CPUs may reach before a pass, and what they had "
        "at the end of the pass before",
    )
    otherwise: Literal["warn", "wait", "refuse"] = Field(
        default="warn",
        description="What happens where the demand is not met. warn: it is noted with the pass; wait: the device rests "
        "until its clock is back, for up to `most_s`; refuse: nothing is timed",
    )
    most_s: float = Field(default=60.0, ge=0, le=86400, description="Longest wait in seconds")

    @model_validator(mode="after")
    def _requires_a_demand(self) -> ClockDemand:
        if self.governor is None and self.min_percent is None:
            raise ValueError("say which `governor`, or how fast the clock has to be (`min_percent`)")
        return self


class DeviceConfig(Strict):
    """A device of the inventory; each transport has a subclass with the fields that it needs."""

    transport: str
    description: str = ""
    targets: list[TargetsConfig] = Field(
        default_factory=list, description="Default targets of commands: runtimes, threads, batch sizes"
    )
    affinity: Annotated[list[CPU], NonEmpty] | None = Field(
        default=None, description="CPUs that networks run on; default: the last ones, as many as threads"
    )

    reconnect_s: float = Field(
        default=90.0, ge=0, le=86400, description="Seconds that a lost device may take to come back (to boot)"
    )

    cooldown: Cooldown | None = Field(default=None, description="Rest before each pass; default: none")
    clock: ClockDemand | None = Field(default=None, description="Demand on the clock of its CPUs; default: none")

    transport_factory: ClassVar[str]
    """Import path, "MODULE:NAME", of the callable that makes the transport from the device's name and this object.

    Text, not an import: a configuration is read without the libraries of its transport.
    """

    runtime_transports: ClassVar[Mapping[str, str]] = {}
    """Import paths, by runtime, that replace `transport_factory` for the runtimes that need another transport."""

    is_this_machine: ClassVar[bool] = False
    """True if latlab runs on the same cores, and must then keep off those that networks run on."""

    @property
    def address(self) -> str:
        """The device's address, as a person reads it."""
        return ""

    def shell_command(self, command: str) -> str:
        """Return what a person types on this machine to run a command on the device."""
        return command if self.is_this_machine else f"{command} (on {self.address or 'the device'})"

    @property
    def default_runtime(self) -> str:
        """The runtime that commands use where neither they nor `targets` name one."""
        return DEFAULT_RUNTIME

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with this entry although each field is valid: the location and the reason."""
        yield from ()

    def missing_files(self) -> Iterator[Problem]:
        """Yield the named files that this machine lacks; they matter only to commands that use this device."""
        yield from ()

    def timing_cpus(self, usable: Sequence[int], threads: int) -> list[int] | None:
        """Return the numbers of the CPUs that networks run on: the inventory's, else the last ones, one per thread.

        Args:
            usable: numbers of the CPUs that the worker may use.
            threads: threads that the runtime uses.

        Returns:
            None for all CPUs: there are no more of them than threads.
        """
        if self.affinity is not None:
            return list(self.affinity)
        return sorted(usable)[-threads:] if len(usable) > threads else None

    def all_targets(self, name: str) -> list[Target]:
        """Return the targets of the device called `name` by falling priority; a default one where none are given."""
        if not self.targets:
            return [Target(name, self.default_runtime)]
        ordered = sorted(self.targets, key=lambda one: -one.priority)
        return list(dict.fromkeys(target for one in ordered for target in one.targets(name)))


def missing_file(field: str, path: Path | None) -> Iterator[Problem]:
    """Yield a problem if the file that `field` names is not on this machine."""
    if path is not None and not os.path.exists(path):  # `Path.exists` raises for some names
        where = "" if path.is_absolute() else f" in {Path.cwd()}, where latlab runs"
        yield (field,), f"there is no file {printable(str(path))[:300]}{where}"


def benchmark_model_targets(device: DeviceConfig, problem: str) -> Iterator[Problem]:
    """Yield `problem` for each entry of `targets` that names the runtime benchmark_model."""
    for number, one in enumerate(device.targets):
        if BENCHMARK_MODEL in (one.runtime if isinstance(one.runtime, list) else [one.runtime]):
            yield ("targets", number, "runtime"), problem


PHONES_ONLY = "benchmark_model is for Android devices (transport: adb); here, take tflite"
_HOST_AND_PORT = re.compile(r"([^:@]*|\[[^@\]]*\]):(\d*)")


def bare_host(host: str | None) -> str | None:
    """Return `host` unchanged; an IPv6 address may have colons.

    Raises:
        ValueError: it holds a user or a port as well.
    """
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
