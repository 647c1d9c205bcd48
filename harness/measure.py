"""The way of one network to its row: export ahead, push, load, interleaved passes, summary.

Passes of one network are spread out in time, because on a shared machine disturbances come in bursts: one
sitting of many runs meets one burst, several short sittings meet several. The schedule is a rolling one: in each
round one new network begins, and every network in flight whose turn it is gets one pass, in random order;
`policy.spread` rounds lie between two passes of a network. So rows complete one by one, and killing the
controller loses no more than the pass in flight.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

from latlab.agents.policy import TimingPolicy
from latlab.agents.statistics import summarise
from latlab.harness.device import DeviceSession, Loaded
from latlab.harness.exporters import Artifact, ExportError
from latlab.harness.store import Campaign, Measurement, Store
from latlab.harness.transports import DeviceLostError, ProtocolError, WorkerError

__all__ = ["Engine"]

EXPORT_LOOKAHEAD = 2
"""Exports under way beyond one per worker: enough to keep a device busy, few enough that acquisition sees results."""
PING_S = 20.0
"""A device that waits for exports is asked for a sign of life so often."""
CHECK_S = 0.5
MAX_ATTEMPTS = 2
"""Workers that one network may kill before it is recorded as a failure."""


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
    passes: list[list[int]]
    warm_s: float
    queue_s: float
    """How long the exported network waited for its turn on the device."""
    due: int = 0
    loaded: Loaded | None = None
    attempts: int = 0
    push_s: float = 0.0
    load_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    aggregate: dict[str, Any] | None = None
    """Of the last pass, where its sample is a mean of runs."""
    followers: list[str] = field(default_factory=list)


class Engine:
    """Measures the architectures of one session of a campaign on one device.

    Args:
        submit: starts (or finds in the cache) the export of an architecture; its future gives the artifact.
        exports: how many exports run at once.
        overlap: whether exporting may go on while a network is timed (False where no core is left for it).
        check: called between passes; may raise to end the run there.
    """

    def __init__(
        self,
        store: Store,
        campaign: Campaign,
        session: int,
        policy: TimingPolicy,
        device: DeviceSession,
        submit: Callable[[str], Future[Artifact]],
        *,
        exports: int = 1,
        overlap: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._campaign, self._session, self._policy = store, campaign, session, policy
        self._device, self._submit = device, submit
        self._lookahead = exports + EXPORT_LOOKAHEAD
        self._overlap, self._check = overlap, check
        self._rng = random.Random(f"{campaign.seed}/{session}/{campaign.id}")
        self._exporting: dict[Future[Artifact], tuple[str, str]] = {}
        self._ready: deque[_Ready] = deque()
        self._active: list[_InFlight] = []
        self._blamed: list[int] = []
        """Rows of networks that have lost the worker since the last pass."""
        self.timed_s = 0.0
        """Seconds that the device spent in warm-up and samples since this engine was made."""

    def run(self, wanted: Iterable[tuple[str, str]], passes: int | None = None) -> Iterator[Measurement]:
        """Measure what `wanted` yields as (architecture, role) and yield each row once it is finished.

        With `passes` less than the policy's, networks are put aside after so many passes: their rows are yielded
        still `running`, with the latency so far, and a later run, in this process or another, goes on with them.

        `wanted` is asked for the next one only when an export can start, so it may decide by the rows it has seen.
        Architectures that this session has finished already must not be in it.

        Raises:
            DeviceLostError: when the device does not come back; every finished row and pass is in the store.
        """
        source, round_ = iter(wanted), 0
        self._until = min(passes or self._policy.passes, self._policy.passes)
        try:
            while True:
                self._top_up(source)
                yield from self._collect()
                if self._ready:
                    yield from self._admit(round_)
                if not self._active:
                    if self._ready:
                        continue
                    if not self._exporting:
                        return
                    self._await_exports(FIRST_COMPLETED)
                    continue
                if not self._overlap and self._exporting:
                    self._await_exports(ALL_COMPLETED)
                due = [net for net in self._active if net.due <= round_]
                self._rng.shuffle(due)
                for net in due:
                    self._check()
                    yield from self._turn(net, round_)
                # With no newcomer the rounds in between would be empty: go on to the next one that is due.
                if not self._ready and self._active:
                    round_ = max(round_ + 1, min(net.due for net in self._active))
                else:
                    round_ += 1
        finally:
            for future in self._exporting:
                future.cancel()

    def _top_up(self, source: Iterator[tuple[str, str]]) -> None:
        while len(self._exporting) + len(self._ready) < self._lookahead:
            following = next(source, None)
            if following is None:
                return
            arch, role = following
            future = self._submit(arch)
            self._exporting[future] = (arch, role)

    def _await_exports(self, return_when: str) -> None:
        """Wait, but not longer than the worker would without a word from us."""
        self._device.doing = "waiting for an export"
        pinged = time.monotonic()
        while True:
            self._check()
            done, left = wait(self._exporting, timeout=CHECK_S, return_when=return_when)
            if not left or (done and return_when == FIRST_COMPLETED):
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
                row = self._store.begin(self._campaign, self._session, arch, role)
                yield self._store.finish(row.id, error.kind, error=str(error))

    def _admit(self, round_: int) -> Iterator[Measurement]:
        ready = self._ready.popleft()
        artifact, arch, role = ready.artifact, ready.arch, ready.role
        row = self._store.begin(
            self._campaign,
            self._session,
            arch,
            role,
            artifact_sha256=artifact.sha256,
            artifact=_facts(artifact),
            fingerprint_id=self._device.fingerprint_id,
        )
        twin = self._store.same_graph(row)
        if twin is not None:
            yield self._store.copy_result(row.id, twin.id)
            return
        for net in self._active:
            if net.artifact.sha256 == artifact.sha256:
                net.followers.append(arch)
                return
        earlier = [] if row.is_new else self._store.passes(row.id)
        net = _InFlight(
            row,
            artifact,
            passes=[stored.samples_ns for stored in earlier],
            warm_s=sum(sum(stored.warmup_ns) for stored in earlier) / 1e9,
            queue_s=time.monotonic() - ready.since,
            due=round_,
        )
        self._active.append(net)
        if len(net.passes) >= self._until:
            yield from self._finish(net)

    def _turn(self, net: _InFlight, round_: int) -> Iterator[Measurement]:
        """One pass of one network, its loading included where it is not on the device."""
        try:
            if net.loaded is None:
                net.loaded = self._device.load(net.artifact, f"{self._campaign.space}/{net.row.arch}")
                net.push_s += net.loaded.push_s
                net.load_s += net.loaded.load_s
                net.facts = net.loaded.facts
            timed = self._device.time(net.loaded, self._policy.warmup, self._policy.runs)
        except WorkerError as error:
            if error.kind == "corrupt_artifact" and net.loaded is not None and not net.attempts:
                net.attempts, net.loaded = 1, None  # its file changed on the device: bring it there again
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
        self._store.add_pass(
            net.row.id, len(net.passes), timed.warmup_ns, timed.samples_ns, timed.telemetry, self._device.lease
        )
        self._blamed.clear()
        net.passes.append(timed.samples_ns)
        net.aggregate = timed.telemetry.get("aggregate")
        warm_s = sum(timed.warmup_ns) / 1e9
        net.warm_s += warm_s
        self.timed_s += warm_s + sum(timed.samples_ns) / 1e9
        net.due = round_ + self._policy.spread
        if len(net.passes) >= self._until:
            yield from self._finish(net)

    def _finish(self, net: _InFlight) -> Iterator[Measurement]:
        summary = summarise(net.passes, self._policy.trim)
        stderr_ms = summary.stderr_ms
        if len(net.passes) == 1 and net.aggregate is not None:
            # One sample stands for many runs (benchmark_model): what they scatter is all that is known of its error.
            stderr_ms = net.aggregate["std_ns"] / net.aggregate["runs"] ** 0.5 / 1e6
        artifact = net.artifact
        times = {
            "build_s": artifact.build_s or net.row.times_s.get("build_s", 0.0),
            "export_s": artifact.export_s or net.row.times_s.get("export_s", 0.0),
            "parity_s": artifact.parity_s or net.row.times_s.get("parity_s", 0.0),
            "queue_s": net.queue_s + net.row.times_s.get("queue_s", 0.0),
            "push_s": net.push_s + net.row.times_s.get("push_s", 0.0),
            "load_s": net.load_s + net.row.times_s.get("load_s", 0.0),
            "warm_s": net.warm_s,
            "measure_s": sum(map(sum, net.passes)) / 1e9,
        }
        row = self._store.finish(
            net.row.id,
            "ok" if len(net.passes) >= self._policy.passes else "running",
            latency_ms=summary.latency_ms,
            stderr_ms=stderr_ms,
            times_s=times,
            artifact={**_facts(artifact), **net.facts},
        )
        self._drop(net)
        yield row
        if row.status != "ok":
            return
        for arch in net.followers:
            follower = self._store.rows(self._campaign, self._session)[arch]
            yield self._store.copy_result(follower.id, row.id)

    def _fail(self, net: _InFlight, kind: str, message: str) -> Iterator[Measurement]:
        self._drop(net)
        yield self._store.finish(net.row.id, kind, error=message)
        for arch in net.followers:
            follower = self._store.rows(self._campaign, self._session)[arch]
            yield self._store.finish(follower.id, kind, error=message, same_graph_as=net.row.id)

    def _drop(self, net: _InFlight) -> None:
        self._active.remove(net)
        if net.loaded is None:
            return
        try:
            self._device.unload(net.loaded)
        except WorkerError:
            pass  # the worker freed it already
        except DeviceLostError as error:
            self._begin_anew(error)

    def _begin_anew(self, cause: DeviceLostError) -> None:
        """A fresh worker, on which nothing is loaded."""
        for net in self._active:
            net.loaded = None
        if _is_no_networks_fault(cause):
            raise cause
        try:
            self._device.restart(cause)
        except DeviceLostError:  # not one of them got through: it was the device
            for row_id in self._blamed:
                self._store.finish(row_id, "running", error=None, same_graph_as=None)
            raise


def _is_no_networks_fault(error: DeviceLostError) -> bool:
    """Whether the way to the device is gone, or its worker talks nonsense: neither may become a network's row."""
    return error.unreachable or isinstance(error, ProtocolError)


def _facts(artifact: Artifact) -> dict[str, Any]:
    """What of an artifact goes into its rows."""
    facts = artifact.to_json()
    for name in ("path", "sha256", "build_s", "export_s", "parity_s"):
        del facts[name]
    return facts
