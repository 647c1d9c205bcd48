"""One stay at a device for one target: what a job does there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future

from latlab.harness.devices.loaded_models import LoadedNetworks
from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.measurement import anchors
from latlab.harness.measurement.anchors import Anchors
from latlab.harness.measurement.contention import Company
from latlab.harness.measurement.drift_correction import correct
from latlab.harness.measurement.scheduler import Engine
from latlab.harness.statistics.pooled_variance import Learning
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.targets import Target
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["Sitting"]


class Sitting:
    """A greeted device, the store and the exports that all devices share. The fleet makes it, and ends it.

    Args:
        check: called between passes; raises where the run is to end.
    """

    def __init__(self, store: Store, device: DeviceSession, exports: Exports, check: Callable[[], None]) -> None:
        self._store, self.device, self._exports, self.check = store, device, exports, check
        self.touched: set[tuple[str, int]] = set()
        """Ids of campaigns, and their sessions, in which this stay has measured."""
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples."""
        self._networks = LoadedNetworks(device)
        self._anchors: dict[tuple[str, int], Anchors] = {}
        self._learning: dict[tuple[str, int], Learning] = {}
        self._company = Company(exports) if device.is_this_machine else None

    @property
    def target(self) -> Target:
        return self.device.target

    def run(
        self,
        campaign: Campaign,
        session: int,
        wanted: Iterable[tuple[str, str]],
        submit: Callable[[str], Future[Artifact]] | None = None,
        passes: int | Mapping[str, int] | None = None,
    ) -> Iterator[Measurement]:
        """Measure (architecture, role) pairs in a session of a campaign, yielding rows as they are finished.

        Args:
            submit: gives an architecture's artifact; default: export it as the campaign says.
            passes: put networks aside after so many (`Engine.run`); default: all that the policy asks for.
        """
        self.touched.add((campaign.id, session))
        policy = TimingPolicy(**campaign.policy)
        engine = Engine(
            self._store,
            campaign,
            session,
            policy,
            self.device,
            submit or (lambda arch: self._export(campaign, arch)),
            exports=self._exports.workers,
            overlap=self.device.spare_cpus is not None,
            check=self.check,
            networks=self._networks,
            learning=self._learning.setdefault((campaign.id, session), Learning(policy.trim)),
            anchors=self._anchors_of(campaign, session, policy),
            company=self._company,
        )
        try:
            yield from engine.run(wanted, passes)
        finally:
            self.timed_s += engine.timed_s
            correct(self._store, campaign, session)

    def _anchors_of(self, campaign: Campaign, session: int, policy: TimingPolicy) -> Anchors | None:
        if not policy.anchors:
            return None
        key = (campaign.id, session)
        if key not in self._anchors:
            self._anchors[key] = Anchors(
                self._store,
                campaign,
                session,
                policy,
                self.device,
                self._networks,
                self._export_anchor,
                self.check,
                self._company,
            )
        return self._anchors[key]

    def _export(self, campaign: Campaign, arch: str) -> Future[Artifact]:
        target = self.target
        as_written = bool(campaign.options.get("as_written"))
        return self._exports.submit(
            ExportRequest(
                campaign.space, arch, target.format, target.batch_size, target.precision, campaign.seed, as_written
            )
        )

    def _export_anchor(self, arch: str) -> Future[Artifact]:
        target = self.target
        return self._exports.submit(
            ExportRequest(anchors.SPACE, arch, target.format, target.batch_size, target.precision)
        )
