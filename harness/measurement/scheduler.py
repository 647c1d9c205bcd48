"""The pass scheduler: it takes each network from its export to its row, with passes of many networks interleaved.

Passes of one network are spread out in time, because on a shared machine disturbances come in bursts: many runs in a
row meet one burst, several short passes meet several. The schedule is a rolling one. In each round one new network
begins, as long as the device's memory holds those in flight, and every network that is due gets one pass, in random
order. `policy.spread` rounds lie between two passes of a network. A network gets further passes until its interval is
narrow (`statistics.estimators.needs_pass`). So rows complete one by one, and killing the controller loses no more than
the pass in flight. Anchors close slices of passes (`anchors`): a slice whose closing anchor is out of line is taken
again.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from latlab.harness.devices.loaded_models import LoadedModels
from latlab.harness.devices.session import DeviceSession
from latlab.harness.exporters import Artifact, ExportError
from latlab.harness.measurement.anchors import Anchors
from latlab.harness.measurement.contention import ExportContention
from latlab.harness.measurement.in_flight import InFlight, Ready, for_spare_pass
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.distribution import distribution
from latlab.harness.statistics.estimators import needs_pass, summarise
from latlab.harness.statistics.pooled_variance import NoiseEstimator
from latlab.harness.statistics.verdicts import judge
from latlab.harness.store.claims import TakenError
from latlab.harness.store.store import Measurement
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Status
from latlab.harness.telemetry.metrics import metrics
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass
from latlab.harness.transports import DeviceLostError, ProtocolError, WorkerError

__all__ = ["PassScheduler"]

EXPORT_LOOKAHEAD = 2
"""Exports under way in addition to one per export process: enough to keep a device busy, few enough that the choice of
the next network can use recent results.
"""
PING_S = 20.0
"""Seconds between two requests to a device that waits for exports, so that its worker does not end."""
CHECK_S = 0.5
"""Seconds between two checks, during waits, whether the run is to end."""
SPACING_S = 0.25
"""Least seconds between two passes of a network if too few others fill the time: many bursts last that long."""
MAX_ATTEMPTS = 2
"""Workers that one network may kill; then it is recorded as a failure."""
REJECTED_SHARE = 0.04
"""Share of the timing that rejected slices may take: a device that is always disturbed is measured as it is."""
COMPARISONS = 12
"""Comparisons of an anchor with and without exports at the start, and each time that a slice ends, until it is known
whether exports change latencies. Until then exports pause during every pass.
"""
SPARE_CHECK_S = 0.25
"""Seconds between two looks, during waits, whether a network can get a spare pass."""
FEWEST_IN_FLIGHT = 8
"""Fewest networks that take turns, even if the device's memory does not hold all, so that passes are spread out."""
PROBE_EVERY = 4
"""One in so many of the networks whose graph was timed before is timed all the same, as a probe of the noise."""


class PassScheduler:
    """The scheduler that measures architectures of one session on one device, pass by pass.

    Args:
        session: where rows and passes go.
        device: the connected device.
        submit: starts the export of an architecture, or finds it in the cache; its future gives the artifact.
        exports: number of export processes.
        overlap: whether exports may go on while a network is timed; False if no core is left for them.
        check: called between passes and during waits; it may raise to end the run.
        models: the networks that are loaded on the device; kept from one run to the next.
        noise: the noise of the session's networks so far; kept from one run to the next.
        anchors: the session's anchors; None to do without.
        contention: pauses exports during passes; None if exports run on another machine than the networks.
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
        self._ready: deque[Ready] = deque()
        self._active: list[InFlight] = []
        self._slice: list[tuple[InFlight, RecordedPass]] = []
        """Passes since the last reading of the anchors."""
        self._rejected_s = 0.0
        self._held: list[InFlight] = []
        """Networks with all their passes, which wait until the slice is closed and the passes are known to be good."""
        self._aside: list[InFlight] = []
        """Networks that were put aside with a latency: a device that waits for exports gives them further passes."""
        self._blamed: list[int] = []
        """Ids of rows that were recorded as failures because the worker died, since the last pass that succeeded."""
        self.timed_s = 0.0
        """Seconds that the device has spent in warm-up and samples for this scheduler."""

    def run(
        self, wanted: Iterable[tuple[str, str]], passes: int | Mapping[str, int] | None = None
    ) -> Iterator[Measurement]:
        """Measure (architecture, role) pairs, and yield each row once it is finished.

        Args:
            wanted: the pairs. The next one is asked for only when an export can start, so an iterator may choose it by
                the rows that it has seen. Without `passes`, it must not contain architectures that the session has
                finished already.
            passes: number of passes, for all or by architecture, after which a network is put aside. Its row is then
                yielded still `running`, with the latency so far, if the policy asks for more passes; a later run, in
                this process or another, continues it. Rows that are finished already get further passes, and stay
                finished. With fewer passes for all than the policy's, rows are yielded again after each spare pass,
                which they get while the device would wait for exports.

        Raises:
            DeviceLostError: if the device does not come back. Every finished row and pass is in the store.
            DeviceFaultError: if a person has to fix something on the device.
            BadInputError: if the device cannot serve the target, or does not meet the inventory's demands.
        """
        source, round_ = iter(wanted), 0
        self._pass_limit = passes
        # A run of a few passes gives quick results to choose the next network by. It waits neither for the closing
        # anchor nor for time between two passes: the other passes come later.
        brief = isinstance(passes, int) and passes < self._policy.passes
        self._brief, self._aside = brief, []
        self._holds_finished = self._anchors is not None and not brief
        self._spread = min(1, self._policy.spread) if brief else self._policy.spread
        try:
            self._submit_exports(source)  # so that exporters have something to do after the anchors
            self._use_anchors(lambda anchors: anchors.begin())
            self._use_anchors(self._compare_contention)
            while True:
                self._submit_exports(source)
                yield from self._collect_exports()
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
                    spare = self._for_spare_pass()
                    if spare is not None:
                        self._check()
                        self._aside.remove(spare)
                        self._active.append(spare)
                        yield from self._take_pass(spare, round_)
                        continue
                    self._await_exports(FIRST_COMPLETED, SPARE_CHECK_S if self._aside else math.inf)
                    continue
                if not self._overlap and self._exporting:
                    self._await_exports(ALL_COMPLETED)
                due = [net for net in self._active if net.due <= round_]
                self._rng.shuffle(due)
                for net in due:
                    self._check()
                    if net in self._active:  # it may have been finished when a slice was closed
                        yield from self._take_pass(net, round_)
                spacing_left_s = self._spacing_left_s()
                newcomer = self._next_fits()
                if not newcomer and spacing_left_s > 0:
                    if self._exporting and not self._ready:
                        self._await_exports(FIRST_COMPLETED, spacing_left_s)
                    else:
                        self._device.rest(spacing_left_s)
                # With no newcomer the rounds in between would be empty: skip to the next round with a network due.
                if not newcomer and self._active:
                    round_ = max(round_ + 1, min(net.due for net in self._active))
                else:
                    round_ += 1
            self._use_anchors(lambda anchors: anchors.end())
        finally:
            for future in self._exporting:
                future.cancel()

    def _use_anchors(self, read: Callable[[Anchors], object]) -> object:
        """Return what `read` returns for the anchors; None without anchors, or if the worker has died meanwhile."""
        if self._anchors is None:
            return None
        try:
            return read(self._anchors)
        except DeviceLostError as error:
            self._anchors.worker_died()
            self._restart_worker(error)
            return None

    def _next_fits(self) -> bool:
        """Return whether another network can begin while those in flight stay loaded.

        Otherwise, every pass would have to load its network again.
        """
        if len(self._active) < FEWEST_IN_FLIGHT:
            return bool(self._ready)
        return bool(self._ready) and self._models.has_room(self._ready[0].artifact)

    def _for_spare_pass(self) -> InFlight | None:
        """Return the network to time while the device would wait for exports; None if that would hold exports up."""
        if not self._overlap or (self._contention is not None and self._contention.changes_latency is not False):
            return None
        return for_spare_pass(self._aside, self._policy, self._noise.model, time.monotonic())

    def _without_exports(self) -> AbstractContextManager[object]:
        return self._contention.without_exports() if self._contention else nullcontext()

    def _spacing_left_s(self) -> float:
        """Return the seconds until the network that has waited longest may have its next pass."""
        first = min((net.last for net in self._active), default=0.0)  # 0.0 before a first pass
        return first + SPACING_S - time.monotonic() if self._spread > 1 else 0.0

    def _submit_exports(self, source: Iterator[tuple[str, str]]) -> None:
        while len(self._exporting) + len(self._ready) < self._lookahead:
            following = next(source, None)
            if following is None:
                return
            arch, role = following
            future = self._submit(arch)
            self._exporting[future] = (arch, role)

    def _await_exports(self, return_when: str, most_s: float = math.inf) -> None:
        """Wait for exports, for at most `most_s` seconds. Meanwhile, keep the device's worker from ending."""
        self._device.begin("waiting for an export")
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
                    self._restart_worker(error)

    def _collect_exports(self) -> Iterator[Measurement]:
        """Collect exports that have ended: networks wait for their turn, failures become rows, which are yielded."""
        for future in [future for future in self._exporting if future.done()]:
            arch, role = self._exporting.pop(future)
            try:
                self._ready.append(Ready(future.result(), arch, role))
            except ExportError as error:
                with suppress(TakenError):
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
        known = None if self._pass_limit and row.status == Status.OK else self._store.same_graph(row)
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
        net = InFlight(
            row,
            artifact,
            passes=[one for one in earlier if one.kind == PassKind.LABEL],
            taken=max((one.number + 1 for one in earlier), default=0),
            queue_s=time.monotonic() - ready.since,
            due=round_,
            probe_for=known,
        )
        self._active.append(net)
        if known is None and not self._wants_pass(net):
            yield from self._finish(net)

    def _wants_pass(self, net: InFlight) -> bool:
        """Return whether the network should get another pass in this run."""
        if self._pass_limit is not None:
            return len(net.passes) < (
                self._pass_limit if isinstance(self._pass_limit, int) else self._pass_limit[net.row.arch]
            )
        return self._policy_wants_pass(net)

    def _policy_wants_pass(self, net: InFlight) -> bool:
        """Return whether the policy asks for another pass, in this run or a later one."""
        return needs_pass(net.samples, self._policy, net.timed_s, self._noise.model)

    def _take_pass(self, net: InFlight, round_: int) -> Iterator[Measurement]:
        """Take one pass of one network, after loading it if it is not loaded."""
        try:
            loaded, is_new = self._models.get(net.artifact, f"{self._campaign.space}/{net.row.arch}")
            if is_new:
                net.push_s += loaded.push_s
                net.load_s += loaded.load_s
            net.facts = loaded.facts
            self._device.wait_until_fit(self._check)
            with self._without_exports():
                timed = self._device.time(loaded, self._policy)
        except WorkerError as error:
            self._models.forget(net.artifact.sha256)
            if error.kind == "corrupt_artifact" and not net.attempts:
                net.attempts = 1  # its file has changed on the device: push it again
                return
            yield from self._fail(net, error.kind, error.message)
            if error.kind == "crash" and self._device.target.accelerator == "cuda":
                # Some CUDA errors stay with the process: the next network would fail because of this one.
                self._restart_worker(DeviceLostError(error.message))
            return
        except DeviceLostError as error:
            if _is_no_networks_fault(error):  # the fleet may find the device again
                raise
            net.attempts += 1
            self._restart_worker(error)
            if net.attempts >= MAX_ATTEMPTS:
                for row in self._fail(net, "timeout" if error.timed_out else "crash", error.message):
                    self._blamed.append(row.id)
                    yield row
            return
        owner, kind = (net.probe_for, PassKind.PROBE) if net.probe_for else (net.row, PassKind.LABEL)
        taken = replace(timed, number=net.taken, kind=kind, measurement_id=owner.id)
        try:
            self._store.add_pass(owner.id, taken, self._device.lease)
        except TakenError:  # this controller was away, and another one measures the network now
            self._drop(net)
            return
        self._device.note_pass(timed.busy_s)
        self._blamed.clear()
        self.timed_s += taken.busy_s
        net.taken, net.last, net.due = net.taken + 1, time.monotonic(), round_ + self._spread
        if net.probe_for is not None:
            self._release(net)
            yield self._store.copy_result(net.row.id, net.probe_for.id)
            return
        net.passes.append(taken)
        if self._holds_finished:
            self._slice.append((net, taken))
        if not self._wants_pass(net):
            if self._holds_finished:
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
        """Read the anchors, reject the slice's passes if they cannot be trusted, and finish networks that are done."""
        trusted = self._use_anchors(lambda anchors: anchors.read())
        self._use_anchors(self._compare_contention)
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
            if not self._wants_pass(net):
                yield from self._finish(net)

    def _compare_contention(self, anchors: Anchors) -> None:
        if self._contention is not None:
            self._contention.compare(anchors.latency, COMPARISONS)

    def _finish(self, net: InFlight) -> Iterator[Measurement]:
        summary = summarise(net.samples, self._policy.trim)
        stderr_ms = summary.stderr_ms
        aggregate = net.passes[-1].telemetry.get("aggregate")
        if len(net.passes) == 1 and aggregate is not None:
            # One sample stands for many runs (benchmark_model): only their scatter says something about its error.
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
        more = net.row.status != Status.OK and self._policy_wants_pass(net)
        try:
            row = self._store.finish(
                net.row.id,
                Status.RUNNING if more else Status.OK,
                latency_ms=summary.latency_ms,
                stderr_ms=stderr_ms,
                raw_ms=summary.latency_ms,
                low_ms=summary.low_ms,
                high_ms=summary.high_ms,
                verdict=judge(net.passes, self._policy).kind,
                metrics={
                    **net.row.metrics,
                    **metrics(net.facts, net.passes, _size(artifact)),
                    **distribution(net.passes),
                },
                times_s=times,
                artifact={**artifact.facts(), **net.facts},
            )
        except TakenError:
            self._drop(net)
            return
        self._release(net, keep=row.status != Status.OK)
        again = net.row.status == Status.OK and self._brief
        if self._brief:
            self._put_aside(net, row)
        yield row
        if row.status != Status.OK:
            return
        if not again:  # a network that got a spare pass counts once
            self._noise.add(net.samples)
        for arch in net.followers:
            follower = self._session.rows()[arch]
            yield self._store.copy_result(follower.id, row.id)

    def _put_aside(self, net: InFlight, row: Measurement) -> None:
        """Keep a network with a latency for spare passes."""
        net.row, net.queue_s, net.push_s, net.load_s = row, 0.0, 0.0, 0.0  # these seconds are in the row now
        self._aside.append(net)

    def _fail(self, net: InFlight, kind: str, message: str) -> Iterator[Measurement]:
        self._release(net)
        if kind == "crash" and self._campaign.space == USER_MODEL_SPACE and net.artifact.data is None:
            message = (
                f"{message}. The values of its inputs were made up: --range and --input-data set others. "
                "So may be its lengths: --input and --dim"
            )
        if net.probe_for is not None:
            yield self._store.copy_result(net.row.id, net.probe_for.id)
            return
        if net.row.status == Status.OK:  # it has a label, which stays as it was before the further pass
            yield net.row
            return
        yield self._store.finish(net.row.id, kind, error=message)
        for arch in net.followers:
            follower = self._session.rows()[arch]
            yield self._store.finish(follower.id, kind, error=message, same_graph_as=net.row.id)

    def _release(self, net: InFlight, keep: bool = False) -> None:
        """Take the network out of the schedule, and unload it, unless a later run needs it loaded (`keep`)."""
        self._active.remove(net)
        if keep:
            return
        try:
            self._models.unload(net.artifact.sha256)
        except DeviceLostError as error:
            self._restart_worker(error)

    def _drop(self, net: InFlight) -> None:
        """Leave a network, with the passes of this run, to another controller."""
        self._release(net)
        self._slice = [(one, taken) for one, taken in self._slice if one is not net]

    def _restart_worker(self, cause: DeviceLostError) -> None:
        """Start a fresh worker, on which nothing is loaded. Raises `DeviceLostError` if the device is to blame."""
        if _is_no_networks_fault(cause):
            raise cause
        try:
            self._device.restart(cause)
        except DeviceLostError:  # no pass has succeeded since those rows failed: the device was to blame
            for row_id in self._blamed:
                self._store.finish(row_id, Status.RUNNING, error=None, same_graph_as=None)
            raise


def _is_no_networks_fault(error: DeviceLostError) -> bool:
    """Return whether the link is gone, or the worker breaks the protocol: neither may become a network's failure."""
    return error.unreachable or isinstance(error, ProtocolError)


def _size(artifact: Artifact) -> int:
    """Return the bytes of the artifact's file; 0 if the cache has removed it meanwhile."""
    try:
        return artifact.path.stat().st_size
    except FileNotFoundError:
        return 0
