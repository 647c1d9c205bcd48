"""A measurement session as the store keeps it: one series of measurements of a campaign's networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["MeasurementSession"]


@dataclass(frozen=True)
class MeasurementSession:
    """One session of a campaign: its rows, passes, anchors and facts in the store.

    A campaign defines what is measured and how. Each of its sessions measures that again, at another time.
    """

    store: Store
    campaign: Campaign
    number: int
    """Number among the campaign's sessions, from 1."""

    @property
    def key(self) -> tuple[str, int]:
        """Identity among all sessions of the store: the campaign's id, and the number."""
        return self.campaign.id, self.number

    @cached_property
    def target(self) -> Target:
        """The target that is measured."""
        return Target.parse(self.campaign.target)

    @cached_property
    def policy(self) -> TimingPolicy:
        """The timing policy of the campaign."""
        return TimingPolicy(**self.campaign.policy)

    def begin(self, arch: str, role: str, **fields: Any) -> Measurement:
        """Return the running row of an architecture: a new one, or the one that an earlier run left."""
        return self.store.begin(self.campaign, self.number, arch, role, **fields)

    def claim(self, arch: str) -> bool:
        """Return whether this controller is to measure an architecture now (`Store.claim_network`)."""
        return self.store.claim_network(self.campaign, self.number, arch)

    def rows(self) -> dict[str, Measurement]:
        """Return the rows by architecture."""
        return self.store.rows(self.campaign, self.number)

    def resume(self) -> dict[str, Measurement]:
        """Return the rows by architecture, after rows that were lost with their device are set to `running` again."""
        return self.store.resume(self.campaign, self.number)

    def passes(self) -> list[RecordedPass]:
        """Return all passes of networks, of every kind, in the order in which they were taken."""
        return self.store.session_passes(*self.key)

    def anchors(self) -> list[RecordedAnchor]:
        """Return the passes of anchors, in the order in which they were taken."""
        return self.store.anchors(*self.key)

    def add_anchor(self, anchor: RecordedAnchor) -> None:
        """Record one pass of an anchor."""
        self.store.add_anchor(self.campaign, self.number, anchor)

    def add_facts(self, **facts: Any) -> None:
        """Record facts about the session as a whole, such as the seed of its order, and which latlab measures it."""
        self.store.note_session(*self.key, latlab=version("latlab"), **facts)
