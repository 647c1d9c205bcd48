"""Measures on one connected device for one target: what a job of the fleet does there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future

from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.measurement import anchors
from latlab.harness.measurement.anchors import Anchors
from latlab.harness.measurement.contention import ExportContention
from latlab.harness.measurement.drift_correction import correct_labels
from latlab.harness.measurement.scheduler import PassScheduler
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.pooled_variance import NoiseEstimator
from latlab.harness.store.store import Campaign, Measurement
from latlab.harness.targets import Target

__all__ = ["Measurer"]


class Measurer:
    """A greeted device, the store and the exports that all devices share. The fleet makes it, and ends it.

    Args:
        check: called between passes; raises where the run is to end.
    """

    def __init__(self, device: DeviceSession, exports: Exports, check: Callable[[], None]) -> None:
        self.device, self._exports, self.check = device, exports, check
        self.touched: set[tuple[str, int]] = set()
        """Ids of campaigns, and their sessions, in which this stay has measured."""
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples."""
        self._models = LoadedModels(device)
        self._anchors: dict[tuple[str, int], Anchors] = {}
        self._noise: dict[tuple[str, int], NoiseEstimator] = {}
        self._contention = ExportContention(exports) if device.is_this_machine else None

    @property
    def target(self) -> Target:
        return self.device.target

    @property
    def exports_change_latency(self) -> bool | None:
        """Whether exporting changes latencies here; None where that is not known, or another machine times networks."""
        return self._contention.changes_latency if self._contention else None

    def run(
        self,
        session: MeasurementSession,
        wanted: Iterable[tuple[str, str]],
        submit: Callable[[str], Future[Artifact]] | None = None,
        passes: int | Mapping[str, int] | None = None,
    ) -> Iterator[Measurement]:
        """Measure (architecture, role) pairs in a session of a campaign, yielding rows as they are finished.

        Args:
            submit: gives an architecture's artifact; default: export it as the campaign says.
            passes: put networks aside after so many (`PassScheduler.run`); default: all that the policy asks for.
        """
        self.touched.add(session.key)
        scheduler = PassScheduler(
            session,
            self.device,
            submit or (lambda arch: self._export(session.campaign, arch)),
            exports=self._exports.workers,
            overlap=self.device.spare_cpus is not None,
            check=self.check,
            models=self._models,
            noise=self._noise.setdefault(session.key, NoiseEstimator(session.policy.trim)),
            anchors=self._anchors_of(session),
            contention=self._contention,
        )
        try:
            yield from scheduler.run(wanted, passes)
        finally:
            self.timed_s += scheduler.timed_s
            correct_labels(session)

    def _anchors_of(self, session: MeasurementSession) -> Anchors | None:
        if not session.policy.anchors:
            return None
        if session.key not in self._anchors:
            self._anchors[session.key] = Anchors(
                session, self.device, self._models, self._export_anchor, self.check, self._contention
            )
        return self._anchors[session.key]

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
