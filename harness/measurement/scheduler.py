"""The way of one network to its row: export ahead, push, load, interleaved passes, summary.

Passes of one network are spread out in time, because on a shared machine disturbances come in bursts: one
sitting of many runs meets one burst, several short sittings meet several. The schedule is a rolling one: in each
round one new network begins, as long as the device's memory holds those in flight, and every network whose turn it is
gets one pass, in random order; `policy.spread` rounds lie between two passes of a network, and passes are added,
network by network, until its interval is narrow (`statistics.needs_pass`). So rows complete one by one, and killing the
controller loses no more than the pass in flight. Anchors close slices of passes (`anchors`): a slice whose closing
anchor failed is taken again.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ExportError
from latlab.harness.measurement.anchors import Anchors
from latlab.harness.measurement.contention import ExportContention
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.estimators import needs_pass, summarise
from latlab.harness.statistics.pooled_variance import NoiseEstimator
from latlab.harness.statistics.verdicts import judge
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.metrics import metrics
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass
from latlab.harness.transports import DeviceLostError, ProtocolError, WorkerError

__all__ = ["PassScheduler"]

EXPORT_LOOKAHEAD = 2
"""Exports under way beyond one per worker: enough to keep a device busy, few enough that acquisition sees results."""
PING_S = 20.0
"""A device that waits for exports is asked for a sign of life so often."""
CHECK_S = 0.5
SPACING_S = 0.25
"""Between two passes of a network, where there are too few others to fill the time: many bursts last that long."""
MAX_ATTEMPTS = 2
"""Workers that one network may kill before it is recorded as a failure."""
REJECTED_SHARE = 0.04
"""Of the time spent timing that may be spent again: a device that is disturbed all the time is measured as it is."""
COMPARISONS = 12
"""Of an anchor beside exports and without them, at first and each time that a slice ends, until it is known whether
they show: until then they wait for every pass."""
FEWEST_IN_FLIGHT = 8
"""So many networks take turns, even where the device's memory does not hold them all: passes are to be spread out."""
PROBE_EVERY = 4
"""Of networks whose graph has been timed already, one in so many is timed all the same: a probe of the noise."""


@dataclass(frozen=True)
class _Ready:
    artifact: Artifact
    arch: str
    role: str
    since: float = field(default_factory=time.monotonic)


@dataclass
class _InFlight:
    row: Measurement
    artifact: Artifact
    passes: list[RecordedPass]
    """Those that make the label."""
    taken: int
    """All that the store has of it, by number."""
    queue_s: float
    """How long the exported network waited for its turn on the device."""
    due: int = 0
    last: float = 0.0
    """When its last pass ended."""
    attempts: int = 0
    push_s: float = 0.0
    load_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    followers: list[str] = field(default_factory=list)
    probe_for: Measurement | None = None
    """The row that takes over the result; this one's further pass is a probe."""

    @property
    def samples(self) -> list[list[int]]:
        return [one.samples_ns for one in self.passes]

    @property
    def timed_s(self) -> float:
        return sum(one.busy_s for one in self.passes)


class PassScheduler:
    """Measures the architectures of one session of a campaign on one device, pass by pass.

    Args:
        submit: starts (or finds in the cache) the export of an architecture; its future gives the artifact.
        exports: how many exports run at once.
        overlap: whether exporting may go on while a network is timed (False where no core is left for it).
        check: called between passes; may raise to end the run there.
        models: what is loaded on the device; kept from one run to the next.
        noise: what the session has taught about noise so far; kept likewise.
        anchors: of the session; None to do without.
        contention: exports on the device itself, which may disturb a pass; None where it is another machine.
    """

    def __init__(
        self,
        session: MeasurementSession,
        device: DeviceSession,
        submit: Callable[[str], Future[Artifact]],
        *,
        exports: int,
        overlap: bool,
        check: Callable[[], None],
        models: LoadedModels,
        noise: NoiseEstimator,
        anchors: Anchors | None = None,
        contention: ExportContention | None = None,
    ) -> None:
        self._session, self._store, self._campaign = session, session.store, session.campaign
        self._policy = session.policy
        self._device, self._submit = device, submit
        self._lookahead = exports + EXPORT_LOOKAHEAD
        self._overlap, self._check, self._contention = overlap, check, contention
        self._models, self._noise, self._anchors = models, noise, anchors
        self._rng = random.Random(f"{self._campaign.seed}/{session.number}/{self._campaign.id}")
        self._exporting: dict[Future[Artifact], tuple[str, str]] = {}
        self._ready: deque[_Ready] = deque()
        self._active: list[_InFlight] = []
        self._slice: list[tuple[_InFlight, RecordedPass]] = []
        """Passes since the last anchor."""
        self._rejected_s = 0.0
        self._held: list[_InFlight] = []
        """Networks with all their passes, which wait for the slice to close."""
        self._blamed: list[int] = []
        """Rows of networks that have lost the worker since the last pass."""
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples since this engine was made."""

    def run(
        self, wanted: Iterable[tuple[str, str]], passes: int | Mapping[str, int] | None = None
    ) -> Iterator[Measurement]:
        """Measure what `wanted` yields as (architecture, role) and yield each row once it is finished.

        With `passes`, for all or by architecture, networks are put aside after so many: rows whose policy asks for more
        are yielded still `running`, with the latency so far, and a later run, in this process or another, goes on
        with them. Rows that are finished already are refined, and stay finished.

        `wanted` is asked for the next one only when an export can start, so it may decide by the rows it has seen.
        Without `passes`, architectures that this session has finished already must not be in it.

        Raises:
            DeviceLostError: when the device does not come back; every finished row and pass is in the store.
        """
        source, round_ = iter(wanted), 0
        self._until = passes
        # Who measures a few passes to decide by waits neither for anchors nor for time to pass in between: the other
        # passes come later.
        brief = isinstance(passes, int) and passes < self._policy.passes
        self._holds = self._anchors is not None and not brief
        self._spread = min(1, self._policy.spread) if brief else self._policy.spread
        try:
            self._top_up(source)  # so that exporters have something to do after the anchors
            self._guarded(lambda anchors: anchors.begin())
            self._guarded(self._compare)
            while True:
                self._top_up(source)
                yield from self._collect()
                if self._next_fits():
                    yield from self._admit(round_)
                if not self._active:
                    if self._ready:
                        continue
                    if self._held:
                        yield from self._close_slice()
                        continue
                    if not self._exporting:
                        break
                    self._await_exports(FIRST_COMPLETED)
                    continue
                if not self._overlap and self._exporting:
                    self._await_exports(ALL_COMPLETED)
                due = [net for net in self._active if net.due <= round_]
                self._rng.shuffle(due)
                for net in due:
                    self._check()
                    if net in self._active:  # the slice that closed may have changed who is
                        yield from self._turn(net, round_)
                spaced_in_s = self._spaced_in_s()
                newcomer = self._next_fits()
                if not newcomer and spaced_in_s > 0:
                    if self._exporting and not self._ready:
                        self._await_exports(FIRST_COMPLETED, spaced_in_s)
                    else:
                        self._device.rest(spaced_in_s)
                # With no newcomer the rounds in between would be empty: go on to the next one that is due.
                if not newcomer and self._active:
                    round_ = max(round_ + 1, min(net.due for net in self._active))
                else:
                    round_ += 1
            self._guarded(lambda anchors: anchors.end())
        finally:
            for future in self._exporting:
                future.cancel()

    def _guarded(self, read: Callable[[Anchors], object]) -> object:
        """What anchors have to say; None without them, or where the worker has not survived it."""
        if self._anchors is None:
            return None
        try:
            return read(self._anchors)
        except DeviceLostError as error:
            self._anchors.worker_died()
            self._begin_anew(error)
            return None

    def _next_fits(self) -> bool:
        """Whether another network can begin while those in flight stay loaded: else each pass would load its own."""
        if len(self._active) < FEWEST_IN_FLIGHT:
            return bool(self._ready)
        return bool(self._ready) and self._models.has_room(self._ready[0].artifact)

    def _quiet(self) -> AbstractContextManager[object]:
        return self._contention.without_exports() if self._contention else nullcontext()

    def _spaced_in_s(self) -> float:
        """Seconds until the network that waits longest should have its next pass."""
        first = min((net.last for net in self._active), default=0.0)  # 0 before its first pass
        return first + SPACING_S - time.monotonic() if self._spread > 1 else 0.0

    def _top_up(self, source: Iterator[tuple[str, str]]) -> None:
        while len(self._exporting) + len(self._ready) < self._lookahead:
            following = next(source, None)
            if following is None:
                return
            arch, role = following
            future = self._submit(arch)
            self._exporting[future] = (arch, role)

    def _await_exports(self, return_when: str, most_s: float = math.inf) -> None:
        """Wait, but not longer than the worker would without a word from us."""
        self._device.doing = "waiting for an export"
        pinged = time.monotonic()
        until = pinged + most_s
        while True:
            self._check()
            left_s = max(0.0, until - time.monotonic())
            done, left = wait(self._exporting, timeout=min(CHECK_S, left_s), return_when=return_when)
            if not left or (done and return_when == FIRST_COMPLETED) or left_s == 0:
                return
            if time.monotonic() - pinged > PING_S:
                pinged = time.monotonic()
                try:
                    self._device.ping()
                except DeviceLostError as error:
                    self._begin_anew(error)

    def _collect(self) -> Iterator[Measurement]:
        """Exports that have ended: artifacts wait for admission, failures are rows."""
        for future in [future for future in self._exporting if future.done()]:
            arch, role = self._exporting.pop(future)
            try:
                self._ready.append(_Ready(future.result(), arch, role))
            except ExportError as error:
                row = self._session.begin(arch, role)
                yield self._store.finish(row.id, error.kind, error=str(error))

    def _admit(self, round_: int) -> Iterator[Measurement]:
        ready = self._ready.popleft()
        artifact, arch, role = ready.artifact, ready.arch, ready.role
        row = self._session.begin(
            arch,
            role,
            artifact_sha256=artifact.sha256,
            artifact=artifact.facts(),
            fingerprint_id=self._device.fingerprint_id,
        )
        known = None if self._until and row.status == Status.OK else self._store.same_graph(row)
        if known is not None:
            probed = self._policy.anchors and not random.Random(f"{self._campaign.seed}/{arch}").randrange(PROBE_EVERY)
            if not probed:
                yield self._store.copy_result(row.id, known.id)
                return
        for net in (*self._active, *self._held) if known is None else ():
            if net.artifact.sha256 == artifact.sha256 and net.probe_for is None:
                net.followers.append(arch)
                return
        earlier = [] if row.is_new and known is None else self._store.passes(known.id if known else row.id)
        net = _InFlight(
            row,
            artifact,
            passes=[one for one in earlier if one.kind == PassKind.LABEL],
            taken=max((one.number + 1 for one in earlier), default=0),
            queue_s=time.monotonic() - ready.since,
            due=round_,
            probe_for=known,
        )
        self._active.append(net)
        if known is None and not self._wants(net):
            yield from self._finish(net)

    def _wants(self, net: _InFlight) -> bool:
        """Whether the network is to have another pass in this run."""
        if self._until is not None:
            return len(net.passes) < (self._until if isinstance(self._until, int) else self._until[net.row.arch])
        return self._lacks_pass(net)

    def _lacks_pass(self, net: _InFlight) -> bool:
        """Whether the policy asks for another pass, in this run or a later one."""
        return needs_pass(net.samples, self._policy, net.timed_s, self._noise.model)

    def _turn(self, net: _InFlight, round_: int) -> Iterator[Measurement]:
        """One pass of one network, its loading included where it is not on the device."""
        try:
            loaded, is_new = self._models.get(net.artifact, f"{self._campaign.space}/{net.row.arch}")
            if is_new:
                net.push_s += loaded.push_s
                net.load_s += loaded.load_s
            net.facts = loaded.facts
            self._device.wait_until_fit(self._check)
            with self._quiet():
                timed = self._device.time(loaded, self._policy)
        except WorkerError as error:
            self._models.forget(net.artifact.sha256)
            if error.kind == "corrupt_artifact" and not net.attempts:
                net.attempts = 1  # its file changed on the device: bring it there again
                return
            yield from self._fail(net, error.kind, error.message)
            if error.kind == "crash" and self._device.target.accelerator == "cuda":
                # Some CUDA errors stay with the process: the next network would fail of the last one's.
                self._begin_anew(DeviceLostError(error.message))
            return
        except DeviceLostError as error:
            if _is_no_networks_fault(error):  # whoever runs this engine may find the device again
                raise
            net.attempts += 1
            self._begin_anew(error)
            if net.attempts >= MAX_ATTEMPTS:
                for row in self._fail(net, "timeout" if error.timed_out else "crash", error.message):
                    self._blamed.append(row.id)
                    yield row
            return
        owner, kind = (net.probe_for, PassKind.PROBE) if net.probe_for else (net.row, PassKind.LABEL)
        taken = replace(timed, number=net.taken, kind=kind, measurement_id=owner.id)
        self._store.add_pass(owner.id, taken, self._device.lease)
        self._blamed.clear()
        self.timed_s += taken.busy_s
        net.taken, net.last, net.due = net.taken + 1, time.monotonic(), round_ + self._spread
        if net.probe_for is not None:
            self._drop(net)
            yield self._store.copy_result(net.row.id, net.probe_for.id)
            return
        net.passes.append(taken)
        if self._holds:
            self._slice.append((net, taken))
        if not self._wants(net):
            if self._holds:
                self._active.remove(net)
                self._held.append(net)
                self._models.spare(net.artifact.sha256)
            else:
                yield from self._finish(net)
        if self._anchors is not None:
            self._anchors.add_pass(taken.busy_s)
            if self._anchors.due:
                yield from self._close_slice()

    def _close_slice(self) -> Iterator[Measurement]:
        """Ask the anchor what the passes since the last one are worth; finish the networks that have enough."""
        trusted = self._guarded(lambda anchors: anchors.read())
        self._guarded(self._compare)
        slice_s = sum(taken.busy_s for _, taken in self._slice)
        if trusted is False and self._rejected_s + slice_s <= max(slice_s, REJECTED_SHARE * self.timed_s):
            self._rejected_s += slice_s
            for net, taken in self._slice:
                if net in self._active or net in self._held:
                    self._store.reject_pass(net.row.id, taken.number)
                    net.passes.remove(taken)
        self._slice.clear()
        held, self._held = self._held, []
        for net in held:
            self._active.append(net)
            if not self._wants(net):
                yield from self._finish(net)

    def _compare(self, anchors: Anchors) -> None:
        if self._contention is not None:
            self._contention.compare(anchors.latency, COMPARISONS)

    def _finish(self, net: _InFlight) -> Iterator[Measurement]:
        summary = summarise(net.samples, self._policy.trim)
        stderr_ms = summary.stderr_ms
        aggregate = net.passes[-1].telemetry.get("aggregate")
        if len(net.passes) == 1 and aggregate is not None:
            # One sample stands for many runs (benchmark_model): what they scatter is all that is known of its error.
            stderr_ms = aggregate["std_ns"] / aggregate["runs"] ** 0.5 / 1e6
        artifact = net.artifact
        times = {
            "build_s": artifact.build_s or net.row.times_s.get("build_s", 0.0),
            "export_s": artifact.export_s or net.row.times_s.get("export_s", 0.0),
            "parity_s": artifact.parity_s or net.row.times_s.get("parity_s", 0.0),
            "queue_s": net.queue_s + net.row.times_s.get("queue_s", 0.0),
            "push_s": net.push_s + net.row.times_s.get("push_s", 0.0),
            "load_s": net.load_s + net.row.times_s.get("load_s", 0.0),
            "warm_s": sum(one.warmup_s for one in net.passes),
            "measure_s": sum(one.samples_s for one in net.passes),
        }
        more = net.row.status != Status.OK and self._lacks_pass(net)
        row = self._store.finish(
            net.row.id,
            Status.RUNNING if more else Status.OK,
            latency_ms=summary.latency_ms,
            stderr_ms=stderr_ms,
            raw_ms=summary.latency_ms,
            low_ms=summary.low_ms,
            high_ms=summary.high_ms,
            verdict=judge(net.passes, self._policy).kind,
            metrics={**net.row.metrics, **metrics(net.facts, net.passes, _size(artifact))},
            times_s=times,
            artifact={**artifact.facts(), **net.facts},
        )
        self._drop(net, keep=row.status != Status.OK)
        yield row
        if row.status != Status.OK:
            return
        self._noise.add(net.samples)
        for arch in net.followers:
            follower = self._session.rows()[arch]
            yield self._store.copy_result(follower.id, row.id)

    def _fail(self, net: _InFlight, kind: str, message: str) -> Iterator[Measurement]:
        self._drop(net)
        if net.probe_for is not None:
            yield self._store.copy_result(net.row.id, net.probe_for.id)
            return
        if net.row.status == Status.OK:  # it was only to be refined: its label stands
            yield net.row
            return
        yield self._store.finish(net.row.id, kind, error=message)
        for arch in net.followers:
            follower = self._session.rows()[arch]
            yield self._store.finish(follower.id, kind, error=message, same_graph_as=net.row.id)

    def _drop(self, net: _InFlight, keep: bool = False) -> None:
        """It is done with. Where its other passes are to come later, it may stay loaded (`keep`)."""
        self._active.remove(net)
        if keep:
            return
        try:
            self._models.unload(net.artifact.sha256)
        except DeviceLostError as error:
            self._begin_anew(error)

    def _begin_anew(self, cause: DeviceLostError) -> None:
        """A fresh worker, on which nothing is loaded."""
        if _is_no_networks_fault(cause):
            raise cause
        try:
            self._device.restart(cause)
        except DeviceLostError:  # not one of them got through: it was the device
            for row_id in self._blamed:
                self._store.finish(row_id, Status.RUNNING, error=None, same_graph_as=None)
            raise


def _is_no_networks_fault(error: DeviceLostError) -> bool:
    """Whether the way to the device is gone, or its worker talks nonsense: neither may become a network's row."""
    return error.unreachable or isinstance(error, ProtocolError)


def _size(artifact: Artifact) -> int:
    """Bytes of its file; 0 where the cache has dropped it since."""
    try:
        return artifact.path.stat().st_size
    except FileNotFoundError:
        return 0
