"""Jobs for devices, and what is reported while they run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import LatlabError
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.store.store import Measurement
from latlab.harness.targets import Target
from latlab.harness.telemetry.readings import hottest_c

__all__ = [
    "DeviceState",
    "Incident",
    "Job",
    "Kind",
    "Observer",
    "RunJobs",
    "RunListener",
    "State",
    "StoppedError",
    "Watcher",
]


Kind = Literal["lost", "back", "quarantined", "failed"]


State = Literal["waiting", "running", "lost", "quarantined", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to a device, and is no measurement."""

    device: str
    kind: Kind
    message: str
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


@dataclass
class Job:
    """Work on one target. `work` may be called several times: it goes on with what the store lacks.

    Args:
        total: rows that it is expected to finish, for whoever looks on.
        priority: a device does its jobs with the highest one first, else in the order given.
    """

    target: Target
    work: Callable[[Measurer, Callable[[Measurement], None]], object]
    total: int = 0
    priority: int = 0
    error: Exception | None = None
    timed_s: float = 0.0

    finished: bool = False


@dataclass
class DeviceState:
    """What a device is doing, for whoever looks on. Written by the device's thread alone."""

    name: str
    state: State = "waiting"
    target: Target | None = None
    session: DeviceSession | None = None
    total: int = 0
    done: int = 0
    failed: int = 0
    reached: bool = False
    began: float = 0.0
    ended: float = 0.0
    last: Measurement | None = None
    trouble: str = ""

    @property
    def doing(self) -> str:
        if self.state == "running" and self.session is not None:
            return self.session.doing
        return self.state

    @property
    def per_minute(self) -> float | None:
        """Rows a minute until now or its end; None before the first."""
        elapsed = (self.ended or time.monotonic()) - self.began
        return 60 * self.done / elapsed if self.done and self.began else None

    @property
    def temperature_c(self) -> float | None:
        """Degrees Celsius of the hottest sensor when it was last read; None where the device reports none."""
        return hottest_c(self.session.telemetry) if self.session else None


Observer = Callable[[Measurement | Incident], None]
"""Called with every finished row and every incident, as they come."""


Watcher = Callable[[Mapping[str, DeviceState]], None]
"""Called once, with the state of every device, which changes while they work."""


@dataclass(frozen=True)
class RunListener:
    """What the caller of a run wants to be told while it lasts."""

    observe: Observer | None = None
    watch: Watcher | None = None
    announce: Callable[[str], None] | None = None
    """Called with a sentence about what is done next, now and then."""


RunJobs = Callable[[Sequence[Job], RunListener], list[LatlabError]]
"""Does jobs on their devices and returns the errors of those that failed (`fleet.run_jobs`)."""


class StoppedError(Exception):
    """The run ends before its jobs do."""
