"""Anchors: small fixed networks that every session times now and then, whatever its own networks are.

They show how fast the device itself is: whether it was disturbed during a slice of passes, how it drifts over a session
(`drift_correction`), and how sessions differ.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import nullcontext
from statistics import median

from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ExportError
from latlab.harness.measurement.contention import ExportContention
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.estimators import trimmed_mean
from latlab.harness.telemetry.recorded_pass import RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports import WorkerError
from latlab.search_spaces import get

__all__ = ["ANCHORS", "SPACE", "Anchors"]

SPACE = "nasbench201"
"""The search space of the anchors."""
ANCHORS = tuple(get(SPACE).references()[index].text for index in (4, 0, 3, 9))
"""Architectures of the anchors. The first is timed at every reading, the others at the first reading and every `ALL_S`.
Several are needed to tell noise between sessions from a common shift: noise moves each anchor by itself. The last is
one of the largest networks of the space.
"""
ALL_S = 300.0
"""Seconds between two readings of all anchors."""
FRESH_S = 5.0
"""Seconds for which the last reading of a run also serves as the first of the next run."""
SHARE = 0.04
"""Share of the time spent timing that anchors may take."""
SLICE_PASSES = 40
SLICE_S = 30.0
"""A slice ends after so many passes, or so many seconds of timing."""
EXPORT_S = 120.0
"""Seconds after which a session does without the anchors that are not exported yet."""
TOLERANCE = 0.1
SIGMAS = 4.0
RECENT = 8
"""An anchor is in line if it differs from the median of the last `RECENT` readings by at most the share `TOLERANCE`, or
by at most `SIGMAS` of their standard deviations (1.4826 median absolute deviations: Hampel 1974, JASA 69, 383-393).
"""
FEWEST = 3
"""Fewest readings that a new one is compared with; before that, every reading is in line."""
PAUSES_S = (0.25, 0.5, 1.0)
"""Seconds of rest before each repetition of a reading that was out of line: bursts of disturbance last that long."""


class Anchors:
    """The anchors of one measurement session, and their readings so far.

    Args:
        session: the session, whose policy the readings follow, and which records them.
        device: the connected device.
        models: the networks that are loaded on the device.
        submit: starts the export of an architecture of NAS-Bench-201 in the device's format.
        check: called during waits; it may raise to end the run.
        contention: pauses exports during a reading; None if exports run on another machine than the networks.
    """

    def __init__(
        self,
        session: MeasurementSession,
        device: DeviceSession,
        models: LoadedModels,
        submit: Callable[[str], Future[Artifact]],
        check: Callable[[], None],
        contention: ExportContention | None = None,
    ) -> None:
        self._session, self._policy = session, session.policy
        self._device, self._models, self._submit = device, models, submit
        self._check, self._contention = check, contention
        self._artifacts: list[Artifact | None] | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._reading_s = 0.0
        self._deaths = 0
        self._read_at = self._all_at = -math.inf
        self._passes, self._timed_s = 0, 0.0

    def begin(self) -> None:
        """Take the first reading of a run, unless the last one is fresh (`FRESH_S`).

        If the first anchor cannot be exported or run, the session does without anchors.

        Raises:
            DeviceLostError: if the worker does not answer any more.
        """
        if self._artifacts is None:
            futures = [self._submit(arch) for arch in ANCHORS]
            until = time.monotonic() + EXPORT_S
            while wait(futures, timeout=0.2).not_done and time.monotonic() < until:
                self._check()
            self._artifacts = [_artifact_of(future) for future in futures]
        if time.monotonic() - self._read_at > FRESH_S:
            self._read()

    def add_pass(self, timed_s: float) -> None:
        """Count a pass of a network, which took so many seconds, towards the slice."""
        self._passes += 1
        self._timed_s += timed_s

    @property
    def due(self) -> bool:
        """True if the slice of passes since the last reading should be closed."""
        if not self._artifacts or self._artifacts[0] is None or SHARE * self._timed_s < self._reading_s:
            return False
        return self._passes >= SLICE_PASSES or self._timed_s >= SLICE_S

    def read(self) -> bool:
        """Close the slice of passes since the last reading, and return whether they can be trusted.

        An anchor that is out of line is read again after pauses. If it comes back into line, something has disturbed
        the device for a while, and the passes before are doubtful. If it stays out of line, the device has changed its
        speed, which is drift. Then the passes are good (True is returned), and later readings are compared with new
        ones only.
        """
        if self._read():
            return True
        for pause_s in PAUSES_S:
            self._device.rest(pause_s)
            if self._add_reading(0):
                return False
        self._recent.clear()
        return True

    def worker_died(self) -> None:
        """Count a worker that died while it ran an anchor. After the second, the session goes on without anchors."""
        self._deaths += 1
        if self._deaths > 1:
            self._artifacts = [None] * len(ANCHORS)

    def end(self) -> None:
        """Take the last reading of a run, if there were passes since the last one."""
        if self._passes:
            self._read()

    def latency(self) -> float | None:
        """Time the first anchor, with whatever else runs, and return its latency in ns; None if it cannot run.

        It is timed by the preset `default`, whatever the session's policy is, so that it takes no longer. It serves for
        comparisons, and is not recorded.
        """
        timed = self._run_anchor(0, PRESETS["default"])
        return None if timed is None else self._latency(timed)

    def _read(self) -> bool:
        """Take a reading, and return whether the first anchor is in line."""
        self._passes, self._timed_s = 0, 0.0
        ok = self._add_reading(0)
        self._read_at = time.monotonic()
        if self._read_at - self._all_at > ALL_S:
            self._all_at = self._read_at
            for index in range(1, len(ANCHORS)):
                self._add_reading(index)
        return ok

    def _in_line(self, value: float) -> bool:
        """Return whether the logarithm of the first anchor's latency fits the last readings; if so, add it to them."""
        if len(self._recent) >= FEWEST:
            middle = median(self._recent)
            spread = 1.4826 * median(abs(one - middle) for one in self._recent)
            if abs(value - middle) > max(math.log1p(TOLERANCE), SIGMAS * spread):
                return False
        self._recent.append(value)
        return True

    def _add_reading(self, index: int) -> bool:
        """Time an anchor, record it, and return whether it is in line. One that cannot run counts as in line."""
        self._device.wait_until_fit(self._check)
        with self._contention.without_exports() if self._contention else nullcontext():
            timed = self._run_anchor(index, self._policy)
        if timed is None:
            return True
        if index == 0:
            self._reading_s = timed.busy_s
        ok = index > 0 or self._in_line(math.log(self._latency(timed)))
        self._session.add_anchor(
            RecordedAnchor(timed.warmup_ns, timed.samples_ns, timed.telemetry, arch=ANCHORS[index], in_line=ok)
        )
        return ok

    def _latency(self, timed: RecordedPass) -> float:
        return max(1.0, trimmed_mean(timed.samples_ns, self._policy.trim))

    def _run_anchor(self, index: int, policy: TimingPolicy) -> RecordedPass | None:
        """Take one pass of an anchor; return None if it cannot run. Raises `DeviceLostError`."""
        artifact = self._artifacts[index] if self._artifacts else None
        if artifact is None or self._artifacts is None:
            return None
        try:
            loaded, _ = self._models.get(artifact, f"{SPACE}/{ANCHORS[index]} (anchor)")
            return self._device.time(loaded, policy)
        except WorkerError:
            self._models.forget(artifact.sha256)
            self._artifacts[index] = None  # the runtime does not support it, which is no reason to stop
            return None


def _artifact_of(future: Future[Artifact]) -> Artifact | None:
    """Return the exported anchor, or None if its export has failed, or takes too long."""
    if not future.done():
        future.cancel()
        return None
    try:
        return future.result()
    except ExportError:
        return None
