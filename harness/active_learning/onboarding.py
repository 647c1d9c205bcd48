"""A new device, one call: measure what tells most, predict the whole space, and say how good that is."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.latency_table import latency_table, whole_space
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.source_devices import signature
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.jobs import Job, RunJobs, RunListener
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.targets import Target
from latlab.harness.text import in_words
from latlab.harness.timing_policy import TimingPolicy
from latlab.predictors import Prediction, SourceDevice
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Holdout", "Onboarding", "OnboardingPlan", "OnboardingRun", "onboard", "save_onboarding"]

NOISY_PERCENT = 5.0
"""Median standard error of labels beyond which people are told that something disturbs the device."""
FIRST_PASSES = 2
"""Passes after which a network's latency is good enough to choose the next one by."""
HOLDOUT_SESSIONS = 2
"""Sittings over the hold-out: labels are their means, and their agreement is the ceiling that noise leaves."""

_SCORES = (
    "holdout_spearman",
    "holdout_mape_percent",
    "holdout_within_10_percent",
    "holdout_coverage_90_percent",
    "holdout_retest_spearman",
)


@dataclass(frozen=True, slots=True)
class OnboardingPlan:
    """What `onboard` is asked for."""

    target: Target
    space: SearchSpace
    policy: TimingPolicy
    predictor: PredictorOptions
    """With the predictor's name filled in."""
    sources: tuple[SourceDevice, ...]
    """Source devices that the predictor is pre-trained on."""
    blocks: Mapping[str, float]
    """Milliseconds of single blocks on the target, for predictors that use them."""
    budget: int
    until_percent: float | None
    holdout: int
    seed: int
    as_written: bool
    options: dict[str, Any]
    out: Path


@dataclass(frozen=True)
class Holdout:
    """Labels of the hold-out: mean over sessions, and how well two sessions agree."""

    archs: list[Architecture]
    latency_ms: np.ndarray
    retest_spearman: float


@dataclass(frozen=True)
class Onboarding:
    """What `Lab.onboard` brings back. Units are in the names; None: not asked for."""

    target: str
    space: str
    measured: int
    failed: int
    holdout_spearman: float | None
    holdout_mape_percent: float | None
    holdout_within_10_percent: float | None
    wall_s: float
    timing_share: float
    """Of `wall_s`, spent on timing networks; of a simulated device's own time, and maybe above 1, if it is one."""
    simulated: bool
    report: Path
    latency_table: Path
    predictor: str
    predictor_folder: Path
    sources: tuple[str, ...]
    """Names of the devices that it was pre-trained on."""
    label_noise_percent: float
    """Median standard error of a label, relative to it."""
    expected_error_percent: float
    loo_spearman: float | None
    loo_mape_percent: float | None
    holdout_retest_spearman: float | None
    holdout_coverage_90_percent: float | None
    onboard_s: float
    """Without the hold-out."""
    table: pd.DataFrame = field(repr=False)
    """The latency table: arch, latency_ms, std_ms, lower_ms, upper_ms, measured."""
    measurements: pd.DataFrame = field(repr=False)

    @property
    def noisy(self) -> bool:
        return self.label_noise_percent > NOISY_PERCENT

    def to_json(self) -> dict[str, Any]:
        """All but the tables, numbers rounded for reading."""
        result: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, pd.DataFrame):
                continue
            if isinstance(value, float):
                value = None if np.isnan(value) else round(value, 4)
            if isinstance(value, tuple):
                value = list(value)
            result[name] = str(value) if isinstance(value, Path) else value
        return result


@dataclass(frozen=True)
class OnboardingRun:
    """All that an onboarding has measured and learnt, before anything is written."""

    plan: OnboardingPlan
    loop: ClosedLoop
    """With the predictor, fitted to all labels."""
    holdout: Holdout | None
    prediction: Prediction | None
    """Of the hold-out."""
    learning_curve: pd.DataFrame
    rows: pd.DataFrame
    """The measurements of the onboarding and of its hold-out, with raw passes (`Store.table`)."""
    campaign: Campaign
    facts: dict[str, Any]
    """The device's facts."""
    wall_s: float
    onboard_s: float
    """Seconds without the hold-out."""
    timed_s: float
    """Seconds that the device spent timing networks."""


def onboard(
    store: Store, plans: Sequence[OnboardingPlan], run_jobs: RunJobs, listener: RunListener = RunListener()
) -> list[OnboardingRun]:
    """Run a closed loop on each target, side by side; a later call goes on where an earlier one of the same plans was.

    Args:
        run_jobs: does jobs on their devices.

    Returns:
        What did not fail, in the order of the plans.

    Raises:
        LatlabError: where every target failed.
    """
    onboardings = []
    for plan in plans:
        # Before a device is taken: it would wait, and would be disturbed where it is this machine.
        if listener.announce:
            sources = in_words([one.name for one in plan.sources])
            listener.announce(f"{plan.target}: predictor {plan.predictor.name}, prior: {sources}")
        onboardings.append(OnboardingJob(store, plan))
    jobs = [Job(one.plan.target, one.work, total=one.total) for one in onboardings]
    errors = run_jobs(jobs, listener)
    if len(errors) == len(jobs):
        raise errors[0]
    return [one.conclude(job.timed_s) for one, job in zip(onboardings, jobs, strict=True) if job.finished]


class OnboardingJob:
    """One plan under way. Its work may be done again from the start: it goes on with what the store holds."""

    def __init__(self, store: Store, plan: OnboardingPlan) -> None:
        self.plan, self._store = plan, store
        self.total = plan.budget + HOLDOUT_SESSIONS * plan.holdout
        self._start = time.monotonic()
        self._predictor = predictor_for(
            plan.predictor, plan.space, seed=plan.seed, sources=plan.sources, blocks=plan.blocks
        )
        name = plan.predictor.name or self._predictor.name
        self._session = MeasurementSession(store, self._campaign(Selection.onboarding(name)), 1)

    def work(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        """Measure until the budget is spent, then the hold-out; what a job does on its device."""
        plan = self.plan
        holdout_archs = holdout_of(plan.space, plan.holdout, plan.seed, self._predictor.wanted())
        self._loop = ClosedLoop(
            plan.space,
            self._predictor,
            budget=plan.budget,
            seed=plan.seed,
            exclude=holdout_archs,
            until_percent=plan.until_percent,
            as_written=plan.as_written,
        )
        self._close_loop(measurer, publish)
        if not self._loop.measured:
            raise LatlabError(
                f"all {self._loop.failed} networks failed on {plan.target}: {self._last_error()}",
                f"`latlab doctor {plan.target.device}` looks for the cause; `latlab show` lists the failures.",
            )
        self._onboard_s = time.monotonic() - self._start
        self._holdout = self._measure_holdout(measurer, holdout_archs, publish) if plan.holdout else None
        self._facts = measurer.device.facts

    def conclude(self, timed_s: float) -> OnboardingRun:
        """Return what the work has brought.

        Args:
            timed_s: seconds that the device spent timing networks.
        """
        loop, holdout, plan = self._loop, self._holdout, self.plan
        curve = loop.learning_curve(holdout.archs if holdout else [], holdout.latency_ms if holdout else [])
        rows = self._store.table(target=str(plan.target), space=plan.space.name, raw=True)
        ours = [self._session.campaign.id, self._campaign(Selection.HOLDOUT).id]
        return OnboardingRun(
            plan=plan,
            loop=loop,
            holdout=holdout,
            prediction=loop.predict(holdout.archs) if holdout else None,
            learning_curve=curve,
            rows=rows[rows["campaign"].isin(ours)],
            campaign=self._session.campaign,
            facts=self._facts,
            wall_s=time.monotonic() - self._start,
            onboard_s=self._onboard_s,
            timed_s=timed_s,
        )

    def _campaign(self, selection: str) -> Campaign:
        plan = self.plan
        return self._store.campaign(plan.target, plan.space.name, plan.policy, plan.seed, selection, plan.options)

    def _close_loop(self, measurer: Measurer, publish: Callable[[Measurement], None]) -> None:
        """Choose and measure until the budget is spent, then finish what was put aside.

        A network's first passes are enough for the loop to go on with; its others come in sweeps over all networks, so
        that a label does not depend on how disturbed the device was in one second.
        """
        session, loop = self._session, self._loop
        earlier = session.resume()
        unfinished = [arch for arch, row in earlier.items() if row.status == Status.RUNNING and row.latency_ms is None]
        for row in earlier.values():
            if row.arch not in unfinished:
                loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        loop.expect(unfinished)

        # Lazily: each proposal is made when an export can start, with what is known by then.
        wanted = ((arch, str(Role.TRAIN)) for arch in itertools.chain(unfinished, loop.proposals()))
        for row in measurer.run(session, wanted, passes=FIRST_PASSES):
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
            publish(row)
        archs = [arch for arch, row in session.rows().items() if row.status == Status.RUNNING]
        for _ in self._sweep(measurer, session, archs, Role.TRAIN, FIRST_PASSES + 1):
            pass
        # Only now are all labels what they will be: with all passes, and without the session's drift.
        for row in session.rows().values():
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        if loop.measured:
            loop.fit(always=True)

    def _sweep(
        self, measurer: Measurer, session: MeasurementSession, archs: Sequence[str], role: Role, first: int
    ) -> Iterator[Measurement]:
        """Bring networks from pass `first` to their last, one pass of all of them at a time, in random orders."""
        rng = random.Random(f"{self.plan.seed}/{session.number}")
        left = list(archs)
        for passes in range(first, self.plan.policy.most_passes + 1):
            rng.shuffle(left)
            for row in measurer.run(session, [(arch, str(role)) for arch in left], passes=passes):
                if row.status != Status.RUNNING:
                    left.remove(row.arch)  # it may have failed: later sweeps must not try it again
                    yield row

    def _last_error(self) -> str:
        errors = [row.error for row in self._session.rows().values() if row.error]
        return errors[-1] if errors else "nothing could be proposed"

    def _measure_holdout(
        self, measurer: Measurer, archs: list[Architecture], publish: Callable[[Measurement], None]
    ) -> Holdout:
        """Measure the hold-out in interleaved sessions, one after the other."""
        campaign = self._campaign(Selection.HOLDOUT)
        labels = []
        for number in range(1, HOLDOUT_SESSIONS + 1):
            session = MeasurementSession(self._store, campaign, number)
            done = {arch for arch, row in session.resume().items() if row.status != Status.RUNNING}
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


def _score(prediction: Prediction | None, holdout: Holdout | None) -> dict[str, float | None]:
    if prediction is None or holdout is None:
        return dict.fromkeys(_SCORES)
    predicted, measured = prediction.mean_ms, holdout.latency_ms
    values = (
        spearman(predicted, measured),
        mape_percent(predicted, measured),
        within_percent(predicted, measured),
        coverage_percent(prediction, measured),
        holdout.retest_spearman,
    )
    return dict(zip(_SCORES, values, strict=True))


def save_onboarding(run: OnboardingRun) -> Onboarding:
    """Write the latency table and the predictor into the plan's folder, and return the result."""
    plan, loop, curve = run.plan, run.loop, run.learning_curve
    archs = whole_space(plan.space)
    own = run.rows[run.rows["campaign"] == run.campaign.id]
    measured = set(own.loc[own["status"] == Status.OK, "arch"])
    table = latency_table(archs, loop.predict(archs), measured)
    table.to_parquet(plan.out / "latency_table.parquet", index=False)
    table.to_csv(plan.out / "latency_table.csv", index=False, float_format="%.6g")
    loop.predictor.save(plan.out / "predictor")
    origin = {
        "predictor": plan.predictor.name,
        "seed": plan.seed,
        "facts": dict(plan.predictor.facts),
        **signature(plan.sources),
    }
    (plan.out / "predictor" / "sources.json").write_text(json.dumps(origin, indent=1) + "\n")
    return Onboarding(
        target=str(plan.target),
        space=plan.space.name,
        measured=loop.measured,
        failed=loop.failed,
        wall_s=run.wall_s,
        timing_share=run.timed_s / run.wall_s,
        simulated=bool(run.facts.get("simulated")),
        report=plan.out / "report.html",
        latency_table=plan.out / "latency_table.parquet",
        predictor=plan.predictor.name or loop.predictor.name,
        predictor_folder=plan.out / "predictor",
        sources=tuple(source.name for source in plan.sources),
        label_noise_percent=loop.label_noise_percent(),
        expected_error_percent=loop.expected_error_percent(),
        loo_spearman=float(curve["loo_spearman"].iloc[-1]) if len(curve) else None,
        loo_mape_percent=float(curve["loo_mape_percent"].iloc[-1]) if len(curve) else None,
        **_score(run.prediction, run.holdout),
        onboard_s=run.onboard_s,
        table=table,
        measurements=own.drop(columns=["passes"]).reset_index(drop=True),
    )
