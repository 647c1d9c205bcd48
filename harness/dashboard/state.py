"""What the page knows of a store's devices and sessions, kept up to date from the rows that have changed."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from latlab.harness.store.vocabulary import Status

__all__ = [
    "CURRENT_S",
    "OPEN",
    "RATE_S",
    "CampaignFacts",
    "DeviceState",
    "IncidentRow",
    "LabelRow",
    "Rate",
    "SessionState",
]

OPEN = (Status.RUNNING.value, Status.DEVICE_LOST.value)
"""Statuses of rows that are not finished: the same command continues them."""
RATE_S = 300.0
"""Seconds over which rates are taken."""
CURRENT_S = 60.0
"""A device that has not stored anything for so many seconds is not called measuring any more."""
LABELS_KEPT = 4
GONE = ("lost", "quarantined", "failed")
"""Kinds of incidents after which a device does nothing until it is back."""


class LabelRow(NamedTuple):
    """One row of the table of measurements, without its large columns."""

    id: int
    campaign: str
    session: int
    arch: str
    status: str
    latency_ms: float | None
    stderr_ms: float | None
    verdict: str
    error: str
    started: float
    finished: float
    """Seconds since 1970; 0 if it is not finished."""
    copied: bool
    """Whether the label is a copy of that of another network with the same file."""
    mark: str
    """Id of the device's facts."""


class IncidentRow(NamedTuple):
    """An event of a device; `at` in seconds since 1970."""

    at: float
    device: str
    kind: str
    message: str


@dataclass(frozen=True)
class CampaignFacts:
    """What does not change of a campaign."""

    id: str
    target: str
    space: str
    policy_name: str
    policy: dict[str, Any]
    selection: str
    seed: int

    @property
    def device(self) -> str:
        """The name of the device, which the target begins with."""
        return self.target.split("/")[0]


class Rate:
    """A count of events by their times, for a rate over the last `RATE_S` seconds."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, at: float, count: int = 1) -> None:
        """Count events at a time in seconds since 1970. They come nearly in order."""
        self._events.append((at, count))
        self._total += count

    def within(self, now: float, seconds: float = RATE_S) -> tuple[int, float]:
        """Return the number of events in the last seconds, and the time since the first of them."""
        while self._events and self._events[0][0] < now - RATE_S:
            self._total -= self._events.popleft()[1]
        if not self._events:
            return 0, 0.0
        if seconds >= RATE_S:
            return self._total, max(now - self._events[0][0], 1.0)
        recent = [(at, count) for at, count in self._events if at >= now - seconds]
        return sum(count for _, count in recent), max(now - recent[0][0], 1.0) if recent else 0.0

    def per_minute(self, now: float) -> float | None:
        """Return events per minute; None if there were none in the last `RATE_S` seconds."""
        count, seconds = self.within(now)
        return 60 * count / max(seconds, 10.0) if count else None


@dataclass
class SessionState:
    """One session of a campaign as far as it has come."""

    campaign: CampaignFacts
    number: int
    finished: Counter[str] = field(default_factory=Counter)
    """Numbers of finished rows by status."""
    copied: int = 0
    """Rows that copied a label, as far as they were seen to come in."""
    open: dict[int, LabelRow] = field(default_factory=dict)
    """Rows that are not finished, by id."""
    first: float = 0.0
    """When its first row began, in seconds since 1970."""
    last_sign: float = 0.0
    """When it last stored anything."""
    newest_id: int = 0
    passes: int | None = None
    """Passes so far; None if they were not counted."""
    pass_rate: Rate = field(default_factory=Rate)
    label_rate: Rate = field(default_factory=Rate)
    facts: dict[str, Any] = field(default_factory=dict)
    """Facts of the session as a whole, as the store has them."""
    facts_text: str = ""
    simulated: bool = False
    version: int = 0
    """Grows with every change of a row or of the facts."""

    @property
    def key(self) -> tuple[str, int]:
        """Identity among the sessions of a store."""
        return self.campaign.id, self.number

    @property
    def ok(self) -> int:
        """Finished labels."""
        return self.finished[Status.OK]

    @property
    def failed(self) -> int:
        """Rows that failed."""
        return sum(self.finished.values()) - self.ok

    @property
    def so_far(self) -> int:
        """Rows that still miss passes, but have a latency."""
        return sum(one.latency_ms is not None for one in self.open.values())

    def is_current(self, now: float) -> bool:
        """Return whether it is being measured, as far as the store tells."""
        return now - self.last_sign < CURRENT_S and bool(self.open)


@dataclass
class DeviceState:
    """A device as far as the store tells."""

    name: str
    targets: set[str] = field(default_factory=set)
    simulated: bool = False
    last_sign: float = 0.0
    """When it last stored a pass or a label, in seconds since 1970."""
    session: SessionState | None = None
    """The session in which that was."""
    last_pass: float = 0.0
    """When its last pass of a network came."""
    doing: str = ""
    """The network of that pass."""
    temperature_c: float | None = None
    incident: IncidentRow | None = None
    """Its last incident."""
    incidents: Counter[str] = field(default_factory=Counter)
    ok: int = 0
    failed: int = 0
    last_error: str = ""
    labels: deque[LabelRow] = field(default_factory=lambda: deque(maxlen=LABELS_KEPT))
    """The last rows that have got a latency, or have failed, the newest last."""
    rate: Rate = field(default_factory=Rate)

    def state(self, now: float) -> str:
        """Return its state in a word: lost, given up, measuring, silent, or idle.

        It is `silent` if rows are unfinished and nothing has come for `CURRENT_S`: its command has ended before the
        work was done, or waits for something.
        """
        last = self.incident
        if last is not None and last.kind in GONE and last.at >= self.last_sign:
            return "lost" if last.kind == "lost" else "given up"
        if self.session is None or not self.session.open:
            return "measuring" if now - self.last_sign < CURRENT_S / 4 else "idle"
        return "measuring" if now - self.last_sign < CURRENT_S else "silent"
