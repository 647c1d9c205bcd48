"""The measurer: it measures sessions on one connected device for one target, on behalf of a job of the fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial

from latlab.harness.architectures import space_named
from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ExportError, ExportRequest
from latlab.harness.exporters.service import Exports
from latlab.harness.measurement import anchors
from latlab.harness.measurement.anchors import Anchors
from latlab.harness.measurement.contention import ExportContention
from latlab.harness.measurement.drift_correction import correct_labels
from latlab.harness.measurement.scheduler import PassScheduler
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.pooled_variance import NoiseEstimator
from latlab.harness.store.store import Campaign, Measurement
from latlab.harness.store.vocabulary import USER_MODEL_SPACE
from latlab.harness.targets import Target

__all__ = ["Measurer"]


class Measurer:
    """The measurer of a connected device. It keeps loaded networks, anchors and noise from one run to the next.

    Args:
        device: the connected device.
        exports: the exports that all devices share.
        check: called between passes and during waits; it raises if the run is to end.
    """

    def __init__(self, device: DeviceSession, exports: Exports, check: Callable[[], None]) -> None:
        self.device, self._exports, self.check = device, exports, check
        self.touched: set[tuple[str, int]] = set()
        """The (campaign id, session number) pairs in which it has measured."""
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples."""
        self._models = LoadedModels(device)
        self._anchors: dict[tuple[str, int], Anchors] = {}
        self._noise: dict[tuple[str, int], NoiseEstimator] = {}
        self._contention = ExportContention(exports) if device.is_this_machine else None

    @property
    def target(self) -> Target:
        """The target that is measured."""
        return self.device.target

    @property
    def exports_change_latency(self) -> bool | None:
        """True if exports change latencies here; None if that is not known, or networks run on another machine."""
        return self._contention.changes_latency if self._contention else None

    def run(
        self,
        session: MeasurementSession,
        wanted: Iterable[tuple[str, str]],
        submit: Callable[[str], Future[Artifact]] | None = None,
        passes: int | Mapping[str, int] | None = None,
    ) -> Iterator[Measurement]:
        """Measure (architecture, role) pairs in a session of a campaign, and yield rows as they are finished.

        At the end, the session's labels are corrected for drift.

        Args:
            session: where rows and passes go.
            wanted: the pairs; the next one is asked for only when an export can start.
            submit: starts the export of an architecture; default: export it as the campaign says.
            passes: number of passes after which networks are put aside (`PassScheduler.run`); default: all that the
                policy asks for.

        Raises:
            DeviceLostError, DeviceFaultError, BadInputError: as `PassScheduler.run`.
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

    def wait(self, seconds: float) -> None:
        """Wait, without the device's worker ending meanwhile. Raises as `run`, and what `check` raises."""
        self.check()
        self.device.begin("waiting for another controller")
        self.device.ping()
        time.sleep(seconds)
        self.check()

    def _anchors_of(self, session: MeasurementSession) -> Anchors | None:
        if not session.policy.anchors:
            return None
        if session.key not in self._anchors:
            self._anchors[session.key] = Anchors(
                session,
                self.device,
                self._models,
                # Not every format can be written in the precision of a user's own model.
                partial(self._export_anchor, "fp32" if session.campaign.space == USER_MODEL_SPACE else None),
                self.check,
                self._contention,
            )
        return self._anchors[session.key]

    def _export(self, campaign: Campaign, arch: str) -> Future[Artifact]:
        target = self.target
        as_written = bool(campaign.options.get("as_written"))
        if campaign.space != USER_MODEL_SPACE:
            try:
                target.check_exported(space_named(campaign.space))
            except BadInputError as error:
                refused: Future[Artifact] = Future()
                refused.set_exception(ExportError("unsupported_op", error.message))
                return refused
        return self._exports.submit(
            ExportRequest(
                campaign.space, arch, target.format, target.batch_size, target.precision, campaign.seed, as_written
            )
        )

    def _export_anchor(self, precision: str | None, arch: str) -> Future[Artifact]:
        target = self.target
        return self._exports.submit(
            ExportRequest(anchors.SPACE, arch, target.format, target.batch_size, precision or target.precision)
        )
