"""Onboarding of a device: measure the most informative networks, predict the whole space, and judge the predictions."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.imported_labels import give_imported
from latlab.harness.active_learning.learning_notes import LearningNotes
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.onboarding_plan import Holdout, OnboardingPlan, OnboardingRun
from latlab.harness.active_learning.predictor_factory import predictor_for
from latlab.harness.active_learning.sample_cost import SampleCost
from latlab.harness.active_learning.sampling import choose_networks
from latlab.harness.active_learning.session_spread import ComparedSessions
from latlab.harness.active_learning.shared_labels import SharedLabels
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.failures import TargetFailure, all_failed, failures_of
from latlab.harness.fleet.jobs import Job, RunJobs, RunListener
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.text import in_words, other_spaces_in_words
from latlab.predictors import Predictor, SourceDevice
from latlab.predictors.common.metrics import spearman
from latlab.search_spaces import Architecture

__all__ = ["onboard"]

FIRST_PASSES = 2
"""Passes after which a network's latency is good enough to choose the next network by."""
EXCHANGE_EVERY = 5
"""Labels between two looks at what targets that are onboarded beside it have found."""
ANNOUNCE_EVERY = 5
"""Labels between two sentences about where the goals of accuracy stand."""
HOLDOUT_SESSIONS = 2
"""Measurement sessions over the hold-out. Labels are their means; their agreement shows the limit that noise sets."""


def onboard(
    store: Store, plans: Sequence[OnboardingPlan], run_jobs: RunJobs, listener: RunListener = RunListener()
) -> tuple[list[OnboardingRun], tuple[TargetFailure, ...]]:
    """Run a closed loop on each target, side by side. A later call continues an earlier one of the same plans.

    Args:
        plans: one for each target.
        run_jobs: runs jobs on their devices.
        listener: what is called during the run.

    Returns:
        The onboardings that did not fail, in the order of the plans, and the targets that failed.

    Raises:
        LatlabError: if every target failed.
    """
    onboardings, shared = [], SharedLabels()
    for plan in plans:
        # Predictors are pre-trained before a device is taken: it would wait, and this machine would be disturbed.
        if listener.announce:
            sources = in_words(plan.predictor.source_names(plan.sources))
            listener.announce(f"{plan.target}: predictor {plan.predictor.name}, prior: {sources}")
        onboardings.append(OnboardingJob(store, plan, shared, listener.announce))
        elsewhere = other_spaces_in_words(onboardings[-1].other_spaces)
        if listener.announce and elsewhere:
            listener.announce(f"{plan.target}: {elsewhere}")
    jobs = [
        Job(one.plan.target, one.work, one.total, (one.plan.policy.passes, one.plan.policy.most_passes))
        for one in onboardings
    ]
    run_jobs(jobs, listener)
    failures = failures_of(jobs)
    if len(failures) == len(jobs):
        raise all_failed(jobs)
    runs = [one.conclude(job.timed_s) for one, job in zip(onboardings, jobs, strict=True) if job.finished]
    return runs, failures


class OnboardingJob:
    """The job of one plan. Its work may run again from the start: it continues from what the store holds."""

    def __init__(
        self,
        store: Store,
        plan: OnboardingPlan,
        shared: SharedLabels,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self._store, self._shared, self._announce = plan, store, shared, announce
        self.total = plan.budget + HOLDOUT_SESSIONS * plan.holdout
        self._start = time.monotonic()
        self._taught: tuple[SourceDevice, ...] = ()
        """What targets beside it have taught its predictor."""
        self._predictor = self._pretrained()
        self.other_spaces = dict(self._predictor.other_spaces)
        name = plan.predictor.name or self._predictor.name
        sampler = None if plan.sampler is None else plan.sampler.text
        self._session = MeasurementSession(store, self._campaign(Selection.onboarding(name, sampler)), 1)

    @property
    def _sources(self) -> tuple[SourceDevice, ...]:
        """The plan's sources, and what targets beside it have taught: that is newer than what the store had of them."""
        taught = {one.name for one in self._taught}
        return (*(one for one in self.plan.sources if one.name not in taught), *self._taught)

    def _pretrained(self) -> Predictor:
        """Return a predictor that has learnt from all sources so far."""
        plan = self.plan
        return predictor_for(
            plan.predictor,
            plan.space,
            seed=plan.seed,
            sources=self._sources,
            blocks=plan.blocks,
            others=plan.others,
        )

    def _exchange(self) -> None:
        """Publish the labels so far, and learn from those of the targets beside it, if there are enough new ones."""
        self._shared.put(str(self.plan.target), self._loop)
        found = self._shared.of(self.plan.beside) if self._predictor.pretrains_quickly else ()
        if self._shared.are_news(found, sum(len(one.genes) for one in self._taught)):
            if self._announce and not self._taught:
                names = in_words([one.name for one in found])
                self._announce(f"{self.plan.target}: learns from now on from {names}, which are onboarded beside it")
            self._taught = found
            self._loop.use(self._pretrained())

    def work(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        """Measure until the budget is spent, then measure the hold-out: the work of a job (`Job.work`)."""
        plan = self.plan
        holdout_archs = holdout_of(plan.space, plan.holdout, plan.seed, self._predictor.wanted())
        self._loop = ClosedLoop(
            plan.space,
            self._predictor,
            budget=plan.budget,
            seed=plan.seed,
            exclude=holdout_archs,
            goals=plan.goals,
            as_written=plan.as_written,
            near_ms=plan.near_ms,
            elapsed_s=self._elapsed_s,
            chosen=self._chosen(holdout_archs),
        )
        self._close_loop(measurer, publish)
        if self._loop.measured == self._loop.imported:
            raise LatlabError(
                f"all {self._loop.failed} networks failed on {plan.target}: {self._last_error()}",
                f"`latlab doctor {plan.target.device}` looks for the cause; `latlab show` lists the failures.",
            )
        self._onboard_s = time.monotonic() - self._start
        self._holdout = self._measure_holdout(measurer, holdout_archs, publish) if plan.holdout else None
        self._facts = measurer.device.facts

    def _chosen(self, holdout: Sequence[Architecture]) -> list[Architecture] | None:
        """Return the networks that the plan's sampler chooses; None if the loop is to choose."""
        plan, wanted = self.plan, self._predictor.wanted()
        if plan.sampler is None:
            return None
        return choose_networks(
            plan.space,
            plan.sampler,
            max(plan.budget - len(wanted), 0),
            seed=plan.seed,
            predictor=self._predictor,
            sources=plan.sources,
            table=plan.encoding_table,
            exclude=[*holdout, *wanted],
        )

    def conclude(self, timed_s: float) -> OnboardingRun:
        """Judge the predictor, and return what was measured and learnt.

        Args:
            timed_s: seconds that the device spent timing networks.
        """
        loop, holdout, plan = self._loop, self._holdout, self.plan
        self._taught = self._shared.of(plan.beside) if self._predictor.pretrains_quickly else ()
        if self._taught:  # now they are final
            loop.use(self._pretrained())
        curve = loop.learning_curve(holdout.archs if holdout else [], holdout.latency_ms if holdout else [])
        rows = self._store.table(target=str(plan.target), space=plan.space.name, raw=True)
        LearningNotes(self._session).end(curve)
        ours = [self._session.campaign.id, self._campaign(Selection.HOLDOUT).id]
        self._use_sessions(rows[rows["campaign"] == self._session.campaign.id])
        return OnboardingRun(
            plan=plan,
            loop=loop,
            holdout=holdout,
            prediction=loop.predict(holdout.archs) if holdout else None,
            learning_curve=curve,
            sources=self._sources,
            rows=rows[rows["campaign"].isin(ours)],
            campaign=self._session.campaign,
            facts=self._facts,
            wall_s=time.monotonic() - self._start,
            onboard_s=self._onboard_s,
            timed_s=timed_s,
        )

    def _use_sessions(self, rows: pd.DataFrame) -> None:
        """Have the loop learn from labels on the level of all sessions of the target, and know how sessions differ.

        Args:
            rows: the finished rows of its own session.
        """
        rows = rows[rows["status"] == Status.OK]
        sessions = ComparedSessions(self._store, str(self.plan.target), rows)
        for row in sessions.on_one_level(rows).to_dict("records"):
            self._loop.record(row["arch"], Status.OK, row["latency_ms"], row["stderr_ms"])
        self._loop.session_variance = sessions.variance(rows)
        self._loop.fit(always=True)

    def _campaign(self, selection: str) -> Campaign:
        plan = self.plan
        return self._store.campaign(plan.target, plan.space.name, plan.policy, plan.seed, selection, plan.options)

    def _close_loop(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        """Choose and measure until the budget is spent, then take the other passes of all networks.

        The first passes of a network are enough to choose the next one. The others come in sweeps over all networks, so
        that no label depends on how disturbed the device was in one second.
        """
        session, loop = self._session, self._loop
        earlier = session.resume()
        session.add_facts(planned=self.plan.budget)
        self._began, self._earlier_s = time.monotonic(), sum(map(_device_seconds, earlier.values()))
        unfinished = [arch for arch, row in earlier.items() if row.status == Status.RUNNING and row.latency_ms is None]
        for row in earlier.values():
            if row.arch not in unfinished:
                loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        loop.expect(unfinished)

        give_imported(self._store, self.plan.target, self.plan.space.name, self.plan.as_written, loop)

        # A generator: each proposal is made when an export can start, by what is known then.
        wanted = ((arch, str(Role.TRAIN)) for arch in itertools.chain(unfinished, loop.proposals()))
        known: set[str] = set()
        notes = LearningNotes(session)
        for row in measurer.run(session, wanted, passes=FIRST_PASSES):
            notes.look(loop)  # the loop was fitted for its last proposal
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
            if row.arch in known:  # it has got a further pass, while the device waited
                continue
            known.add(row.arch)
            publish(row)
            if loop.measured % EXCHANGE_EVERY == 0:
                self._exchange()
            self._announce_standings()
        archs = [arch for arch, row in session.rows().items() if row.status == Status.RUNNING]
        for _ in self._sweep(measurer, session, archs, Role.TRAIN, FIRST_PASSES + 1):
            pass
        # Labels are final only now: with all passes, and corrected for the session's drift.
        for row in session.rows().values():
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        if loop.measured:
            loop.fit(always=True)
        self._exchange()

    def _elapsed_s(self) -> float:
        """Return the seconds of measuring so far, earlier runs included, and of the passes that are still to come."""
        cost, policy = SampleCost(self.plan.policy), self.plan.policy
        missing = sum(cost.passes_s(one, policy.passes - FIRST_PASSES) for one in self._loop.support_ms().tolist())
        return self._earlier_s + time.monotonic() - self._began + max(missing, 0.0)

    def _announce_standings(self) -> None:
        """Say where the goals stand after every `ANNOUNCE_EVERY` labels."""
        loop = self._loop
        if self._announce is None or loop.measured % ANNOUNCE_EVERY:
            return
        for standing in loop.standings():
            self._announce(f"{self.plan.target}: {loop.measured} networks: {standing.sentence()}")

    def _sweep(
        self, measurer: Measurer, session: MeasurementSession, archs: Sequence[str], role: Role, first: int
    ) -> Iterator[Measurement]:
        """Take the passes of networks from number `first` to the last, one pass of each at a time, in random orders.

        Rows are yielded once they are finished.
        """
        rng = random.Random(f"{self.plan.seed}/{session.number}")
        left = list(archs)
        for passes in range(first, self.plan.policy.most_passes + 1):
            rng.shuffle(left)
            for row in measurer.run(session, [(arch, str(role)) for arch in left], passes=passes):
                if row.status != Status.RUNNING and row.arch in left:
                    left.remove(row.arch)  # it may have failed: later sweeps must not try it again
                    yield row

    def _last_error(self) -> str:
        errors = [row.error for row in self._session.rows().values() if row.error]
        return errors[-1] if errors else "nothing could be proposed"

    def _measure_holdout(
        self, measurer: Measurer, archs: list[Architecture], publish: Callable[[Measurement], None]
    ) -> Holdout:
        """Measure the hold-out in `HOLDOUT_SESSIONS` sessions, one after the other, each with interleaved passes."""
        campaign = self._campaign(Selection.HOLDOUT)
        labels = []
        for number in range(1, HOLDOUT_SESSIONS + 1):
            session = MeasurementSession(self._store, campaign, number)
            done = {arch for arch, row in session.resume().items() if row.status != Status.RUNNING}
            session.add_facts(planned=len(archs))
            todo = [arch.text for arch in archs if arch.text not in done]
            for row in self._sweep(measurer, session, todo, Role.HOLDOUT, 1):
                publish(row)
            rows = session.rows()
            labels.append(
                [rows[arch.text].latency_ms if rows[arch.text].status == Status.OK else None for arch in archs]
            )
        table = np.array(labels, dtype=np.float64)
        ok = np.asarray(np.isfinite(table).all(axis=0))
        table = table[:, ok]
        return Holdout([a for a, good in zip(archs, ok, strict=True) if good], table.mean(axis=0), spearman(*table))


def _device_seconds(row: Measurement) -> float:
    """Return the seconds that a stored row took on its device."""
    return sum(float(row.times_s.get(f"{stage}_s") or 0.0) for stage in ("push", "load", "warm", "measure"))
