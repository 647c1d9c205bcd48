"""Jobs for devices, and what is reported during a run: rows, incidents, and the states of devices."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.eta import Remaining, remaining
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
"""Kind of an incident."""


State = Literal["waiting", "running", "lost", "quarantined", "done", "failed"]
"""State of a device during a run."""


@dataclass(frozen=True, slots=True)
class Incident:
    """An event of a device that is no measurement, e.g. a lost link; `at` is its time (ISO 8601, UTC)."""

    device: str
    kind: Kind
    message: str
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    target: str = ""
    """The target that was being measured; empty if there was none."""


@dataclass
class Job:
    """A piece of work on one target, and what became of it."""

    target: Target
    work: Callable[[Measurer, Callable[[Measurement], None]], object]
    """Measures, and publishes each finished row. It may be called several times, and each time measures what the store
    lacks.
    """
    total: int = 0
    """Number of rows that the work is expected to finish, for a display of progress."""
    passes: tuple[int, int] = (0, 0)
    """Fewest and most passes of each of these rows; zeros if they are not known."""
    priority: int = 0
    """A device runs its jobs with the highest priority first, and jobs of one priority in the order given."""
    error: Exception | None = None
    """Why the job failed; None as long as it has not."""
    timed_s: float = 0.0
    """Seconds that the device has spent in warm-up and samples for this job."""
    finished: bool = False
    """Whether the work has come to its end."""


@dataclass
class DeviceState:
    """The progress of a device during a run, for display. Only the device's thread writes it.

    Times are seconds on the monotonic clock, 0 if they are yet to come.
    """

    name: str
    state: State = "waiting"
    target: Target | None = None
    session: DeviceSession | None = None
    total: int = 0
    """Number of rows that the device's jobs are expected to finish."""
    jobs: int = 1
    """Number of the device's jobs, one for each of its targets."""
    done: int = 0
    """Number of rows with a latency so far."""
    failed: int = 0
    """Number of failed rows so far."""
    reached: bool = False
    """Whether the device was connected at least once in this run."""
    passes: tuple[int, int] = (0, 0)
    """Fewest and most passes of each row."""
    copied: int = 0
    """Number of rows so far that copied the label of another network, and took no passes."""
    earlier_passes: int = 0
    """Passes of networks over earlier connections of this run."""
    first_pass: float = 0.0
    """Time when the device began with its first network."""
    began: float = 0.0
    ended: float = 0.0
    last: Measurement | None = None
    """The last row."""
    trouble: str = ""
    """Message of the last incident; empty once the device is back."""

    @property
    def doing(self) -> str:
        """The device's activity now, in a word or two."""
        if self.state == "running" and self.session is not None:
            return self.session.doing
        return self.state

    @property
    def waiting(self) -> str:
        """What the device has been waiting for, and how long, if that is worth a sentence; else empty."""
        return self.session.waiting if self.state == "running" and self.session is not None else ""

    @property
    def remaining(self) -> Remaining | None:
        """How long the device will still take, from its passes so far; None as long as there is no ground for it."""
        session = self.session
        if self.state != "running" or session is None or not session.first_label_pass:
            return None
        networks = self.total - self.failed - self.copied
        taken = self.earlier_passes + session.label_passes
        since = self.first_pass or session.first_label_pass
        return remaining(taken, time.monotonic() - since, networks, *self.passes)

    @property
    def per_minute(self) -> float | None:
        """Rows with a latency per minute, until now or the end of the device's work; None before the first."""
        elapsed = (self.ended or time.monotonic()) - self.began
        return 60 * self.done / elapsed if self.done and self.began else None

    @property
    def temperature_c(self) -> float | None:
        """Degrees Celsius of the hottest sensor when it was last read; None where the device reports none."""
        return hottest_c(self.session.telemetry) if self.session else None


Observer = Callable[[Measurement | Incident], None]
"""A function that is called with every finished row and every incident, as they come."""


Watcher = Callable[[Mapping[str, DeviceState]], None]
"""A function that is called once, with the states of all devices by name, which change during the run."""


@dataclass(frozen=True)
class RunListener:
    """The functions that a run calls while it lasts; None for those that are not wanted."""

    observe: Observer | None = None
    watch: Watcher | None = None
    announce: Callable[[str], None] | None = None
    """Called now and then with a sentence about the next step."""


RunJobs = Callable[[Sequence[Job], RunListener], list[LatlabError]]
"""A function that runs jobs on their devices, and returns the errors of those that failed (`fleet.run_jobs`)."""


class StoppedError(Exception):
    """Raised inside a job when the run ends before the job does."""
