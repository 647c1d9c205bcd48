"""A paired comparison on one device: the passes of several networks take turns, in blocks of fresh loads.

Every block starts a fresh worker, loads all networks in random order, and lets them take turns for half a second or so.
`statistics.paired` says why, and computes the intervals from whole blocks. Every pass is in the store as soon as it
ends.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from latlab.harness.compare.evidence import Evidence
from latlab.harness.compare.result import ComparedModel, ComparisonResult, Pair, Question
from latlab.harness.devices.session import DeviceSession
from latlab.harness.devices.worker_client import LoadedModel
from latlab.harness.exporters import Artifact
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.paired import Outcome
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Status
from latlab.harness.targets import BENCHMARK_MODEL, Target
from latlab.harness.telemetry.metrics import metrics
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedPass
from latlab.harness.timing_policy import TimingPolicy
from latlab.harness.transports import DeviceLostError, ProtocolError, WorkerError

__all__ = ["RESULT", "ComparisonRun", "Contestant", "close_earlier", "policy_of"]

RESULT = "comparison"
"""The fact of a session that holds what is known so far, as `ComparisonResult.to_json` gives it."""
BLOCK_S = 0.7
"""Seconds of passes in a block, at least as long as starting its worker and loading took."""
MOST_ROUNDS = 40
"""Most rounds of a block: its median hardly improves with more, and the next block's fresh loads are worth more."""
BLOCKS = 10
"""Blocks that should fit into the budget, if they have to be made shorter for it: Student's t wants as many."""
RECENT = 3
"""A further block is expected to take as long as the longest of so many last ones."""
MAX_ATTEMPTS = 2
"""Workers that one network may kill; then it is recorded as a failure."""


def policy_of(target: Target) -> TimingPolicy:
    """Return the timing policy of a comparison's passes: eight runs, or as many as begin within half a second.

    Nothing is discarded, because a pass is represented by its shortest run. Only `benchmark_model`, which prints means,
    needs a warm-up.
    """
    warmup = 2 if target.runtime == BENCHMARK_MODEL else 0
    return TimingPolicy(
        Role.COMPARE.value, warmup=warmup, runs=8, trim=0.25, passes=1, spread=0, max_pass_s=0.5, overheads=100
    )


@dataclass(frozen=True)
class Contestant:
    """One of the networks that are compared, and how it runs."""

    name: str
    """Unique in the comparison; the row's name in the store."""
    label: str
    """The name that the device is given for messages, SPACE/ARCH."""
    target: Target
    artifact: Artifact
    session: MeasurementSession
    """Where its row is."""


class ComparisonRun:
    """A comparison in progress on one device: the work of a job (`fleet.jobs.Job.work`).

    If the connection to the device is lost, the job may be tried again: the comparison then goes on with a new block.

    Args:
        contestants: at least two; all on the same device, with the same number of threads.
        question: what is asked.
        seed: of the order of loading and of the passes.
    """

    def __init__(self, contestants: Sequence[Contestant], question: Question, seed: int) -> None:
        self.contestants, self.question = list(contestants), question
        self._rng = random.Random(f"{seed}/{contestants[0].session.number}")
        self._order = self._orders()
        self._evidence = Evidence(question, len(contestants))
        self._passes: list[list[RecordedPass]] = [[] for _ in contestants]
        self._facts: list[dict[str, Any]] = [{} for _ in contestants]
        self._rows: list[Measurement] = []
        self._failed: dict[int, tuple[str, str]] = {}
        self._deaths: dict[int, int] = {}
        self._block_s: list[float] = []
        self._simulated = False
        self.spent_s = 0.0
        """Seconds on the device so far; on a simulated one, on its own clock."""

    @property
    def target(self) -> Target:
        """The target of the first network, which stands for the device and its threads."""
        return self.contestants[0].target

    @property
    def blocks(self) -> int:
        """Number of complete blocks."""
        return self._evidence.blocks

    def work(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        """Measure blocks until every pair is settled, the budget is spent, or fewer than two networks run.

        Raises:
            StoppedError: if the jobs are stopped.
            DeviceLostError, DeviceFaultError, BadInputError: if the device is to blame. What was timed is in the store.
        """
        device = measurer.device
        self._simulated = device.hello.is_simulated
        measurer.touched |= {one.session.key for one in self.contestants}
        for one in self.contestants:
            device.check_runtime(one.target.runtime)
        self._rows = [
            one.session.begin(
                one.name,
                Role.COMPARE,
                artifact_sha256=one.artifact.sha256,
                artifact=one.artifact.facts(),
                fingerprint_id=device.fingerprint_id,
            )
            for one in self.contestants
        ]
        device.wait_until_fit(measurer.check)
        fresh = True
        try:
            while not self._is_over():
                self._take_block(measurer, fresh)
                fresh = False
                self.contestants[0].session.add_facts(**{RESULT: self.result().to_json()})
                publish(self._preliminary())
        finally:
            for place, row in enumerate(self._rows):
                if place not in self._failed and self._passes[place]:  # also if an earlier attempt has closed it
                    facts = {**self.contestants[place].artifact.facts(), **self._facts[place]}
                    self._rows[place] = _close(
                        self.contestants[place].session.store, row.id, self._passes[place], facts
                    )

    # Blocks

    def _alive(self) -> list[int]:
        return [place for place in range(len(self.contestants)) if place not in self._failed]

    def _is_over(self) -> bool:
        if len(self._alive()) < 2:
            return True
        return self.blocks > 0 and (not self._fits_another() or self._evidence.is_settled(self._failed))

    def _fits_another(self) -> bool:
        return self.spent_s + max(self._block_s[-RECENT:]) <= self.question.budget_s

    def _take_block(self, measurer: Measurer, fresh: bool) -> None:
        """Load all networks in a fresh worker, let them take turns, and look at the intervals."""
        device = measurer.device
        clock = _Clock()
        rounds: list[dict[int, list[int]]] = []
        place: int | None = None
        try:
            if not fresh:
                device.renew()
            loaded: dict[int, LoadedModel] = {}
            for place in self._shuffled():
                measurer.check()
                one = self.contestants[place]
                try:
                    loaded[place] = device.load(one.artifact, one.label, one.target)
                    self._facts[place] = loaded[place].facts
                except WorkerError as error:
                    self._fail(place, error.kind, error.message)
            overhead_s = clock.elapsed_s
            passes_s = min(max(BLOCK_S, overhead_s), max(0.0, self.question.budget_s / BLOCKS - overhead_s))
            while len(self._alive()) > 1 and not _is_enough(len(rounds), clock.elapsed_s - overhead_s, passes_s):
                measured: dict[int, list[int]] = {}
                for place in next(self._order):
                    if place not in self._failed:
                        measured.update(self._take_pass(measurer, place, loaded, len(rounds), clock))
                rounds.append(measured)
        except DeviceLostError as error:
            self._lost(device, place, error)
            return
        finally:
            self.spent_s += clock.elapsed_s
        self._block_s.append(clock.elapsed_s)
        share = self.spent_s / self.question.budget_s if self._fits_another() else 1.0
        self._evidence.add_block(rounds, share, self._failed)

    def _take_pass(
        self, measurer: Measurer, place: int, loaded: dict[int, LoadedModel], number: int, clock: _Clock
    ) -> dict[int, list[int]]:
        measurer.check()
        device, one = measurer.device, self.contestants[place]
        device.wait_until_fit(measurer.check)
        try:
            timed = device.time(loaded[place], one.session.policy)
        except WorkerError as error:
            self._fail(place, error.kind, error.message)
            return {}
        recorded = replace(
            timed,
            number=len(self._passes[place]),
            kind=PassKind.COMPARE,
            measurement_id=self._rows[place].id,
            telemetry={**timed.telemetry, "block": self.blocks, "round": number},
        )
        one.session.store.add_pass(self._rows[place].id, recorded, device.lease)
        self._passes[place].append(recorded)
        self._deaths.clear()
        clock.busy_s += recorded.busy_s
        measurer.timed_s += recorded.busy_s
        return {place: recorded.samples_ns}

    def _lost(self, device: DeviceSession, place: int | None, error: DeviceLostError) -> None:
        """Start a fresh worker after one died, and blame the network that it was running the second time."""
        if error.unreachable or isinstance(error, ProtocolError) or place is None:
            raise error
        self._deaths[place] = self._deaths.get(place, 0) + 1
        if self._deaths[place] >= MAX_ATTEMPTS:
            self._fail(place, "timeout" if error.timed_out else "crash", error.message)
        device.restart(error)

    def _fail(self, place: int, kind: str, message: str) -> None:
        self._failed[place] = (kind, message)
        row = self._rows[place]
        self._rows[place] = self.contestants[place].session.store.finish(row.id, kind, error=message)

    def _shuffled(self) -> list[int]:
        order = self._alive()
        self._rng.shuffle(order)
        return order

    def _orders(self) -> Iterator[list[int]]:
        """Yield orders of the passes in a round: a random one, then its reverse, then another."""
        while True:
            order = list(range(len(self.contestants)))
            self._rng.shuffle(order)
            yield order
            yield order[::-1]

    # Results

    def _preliminary(self) -> Measurement:
        """Return a row that says how far the comparison is, for a display of progress."""
        place = next(iter(self._alive()), 0)
        row = self._rows[place]
        row.latency_ms = _latency_ms(self._passes[place])
        return row

    def result(self) -> ComparisonResult:
        """Return what is known so far."""
        models = []
        for place, one in enumerate(self.contestants):
            row = self._rows[place] if self._rows else None
            kind, message = self._failed.get(place, (row.status if row else Status.RUNNING.value, None))
            passes = list(self._passes[place])
            models.append(ComparedModel(one.name, str(one.target), _latency_ms(passes), len(passes), kind, message))
        pairs = self._evidence.pairs(self._failed)
        return ComparisonResult(
            device=self.target.device,
            models=tuple(models),
            pairs=pairs,
            question=self.question,
            blocks=self.blocks,
            spent_s=self.spent_s,
            status=self._status(pairs),
            simulated=self._simulated,
        )

    def _status(self, pairs: Sequence[Pair]) -> str:
        if len(self._alive()) < 2:
            return "failed"
        if pairs and all(one.outcome is not Outcome.UNDECIDED for one in pairs):
            return "decided"
        if self.blocks and self._evidence.is_settled(
            self._failed
        ):  # the check was certain before the pairs were decided
            return "checked"
        return "undecided" if self.blocks and not self._fits_another() else "interrupted"


class _Clock:
    """Seconds of a block: those that passed here, or those that the device was busy, whichever are more.

    A simulated device may be busy for longer than its answer takes.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.busy_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return max(self.busy_s, time.monotonic() - self._began)


def _is_enough(rounds: int, elapsed_s: float, wanted_s: float) -> bool:
    """Return whether a block has enough rounds: an even number, or a single one that took all of the time."""
    if rounds < 2:
        return rounds == 1 and elapsed_s >= wanted_s
    return rounds >= MOST_ROUNDS or (elapsed_s >= wanted_s and rounds % 2 == 0)


def _latency_ms(passes: Sequence[RecordedPass]) -> float | None:
    return median(min(one.samples_ns) for one in passes) / 1e6 if passes else None


def close_earlier(store: Store, campaign: Campaign) -> None:
    """Close the rows of an earlier comparison whose latlab was killed, with the passes that they have."""
    for row in store.rows(campaign, store.latest_session(campaign)).values():
        passes = store.passes(row.id) if row.status == Status.RUNNING else []
        if passes:
            _close(store, row.id, passes, row.artifact)


def _close(store: Store, row_id: int, passes: Sequence[RecordedPass], facts: dict[str, Any]) -> Measurement:
    latency_ms = _latency_ms(passes)
    return store.finish(
        row_id,
        Status.OK,
        latency_ms=latency_ms,
        raw_ms=latency_ms,
        times_s={"measure_s": sum(one.busy_s for one in passes)},
        metrics=metrics(facts, passes, int(facts.get("size_bytes") or 0)),
        artifact=facts,
    )
