"""Onboarding of a device: measure the most informative networks, predict the whole space, and judge the predictions."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from latlab.harness.active_learning.fitted_predictor import FittedPredictor, card_of
from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.imported_labels import give_imported
from latlab.harness.active_learning.latency_table import measured_latencies
from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.sample_cost import SampleCost
from latlab.harness.active_learning.stopping import FEWEST, MORE, RANKS, Goal
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.fleet.failures import TargetFailure, all_failed, failures_of
from latlab.harness.fleet.jobs import Job, RunJobs, RunListener
from latlab.harness.measurement.disturbance import Disturbance, disturbances
from latlab.harness.measurement.measurer import Measurer
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.store.vocabulary import Role, Selection, Status
from latlab.harness.targets import Target
from latlab.harness.text import correlation, in_words, other_spaces_in_words
from latlab.harness.timing_policy import TimingPolicy
from latlab.predictors import OtherSpace, Prediction, SourceDevice
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Holdout", "Onboarding", "OnboardingPlan", "OnboardingRun", "Onboardings", "onboard", "save_onboarding"]

NOISY_PERCENT = 5.0
"""Median standard error of the labels, in percent, above which a warning says that something disturbs the device."""
FIRST_PASSES = 2
"""Passes after which a network's latency is good enough to choose the next network by."""
ANNOUNCE_EVERY = 5
"""Labels between two sentences about where the goals of accuracy stand."""
HOLDOUT_SESSIONS = 2
"""Measurement sessions over the hold-out. Labels are their means; their agreement shows the limit that noise sets."""

_SCORES = (
    "holdout_spearman",
    "holdout_mape_percent",
    "holdout_within_10_percent",
    "holdout_coverage_90_percent",
    "holdout_retest_spearman",
)


@dataclass(frozen=True, slots=True)
class OnboardingPlan:
    """The plan of an onboarding: what `onboard` does on one target."""

    target: Target
    space: SearchSpace
    policy: TimingPolicy
    predictor: PredictorOptions
    """The predictor and its options; its name is never None here."""
    sources: tuple[SourceDevice, ...]
    """Source devices that the predictor is pre-trained on."""
    blocks: Mapping[str, float]
    """Milliseconds of single blocks on the target, for predictors that use them."""
    others: tuple[OtherSpace, ...]
    """The target's labels in other spaces, for predictors that use them."""
    budget: int
    """The most networks to measure."""
    goals: tuple[Goal, ...]
    """The first one that is reached stops the loop before its budget is spent."""
    near_ms: float | None
    """Latency around which accuracy is wanted; None for the whole space."""
    holdout: int
    """Number of networks in the hold-out."""
    seed: int
    as_written: bool
    """Whether networks are exported as published, with their dead edges."""
    options: dict[str, Any]
    """Further options of the campaigns (`campaign_options`)."""
    out: Path
    """Folder for the results."""


@dataclass(frozen=True)
class Holdout:
    """The hold-out: n architectures, their labels (means over the sessions), and the sessions' agreement."""

    archs: list[Architecture]
    latency_ms: np.ndarray
    """Labels: n."""
    retest_spearman: float
    """Rank correlation between the two sessions."""


@dataclass(frozen=True)
class Onboarding:
    """The result of `Lab.onboard`. Units are in the names; scores are None without the labels that they need."""

    target: str
    space: str
    measured: int
    imported: int
    """Number of networks whose labels the user has imported, beside those that were measured."""
    failed: int
    holdout_spearman: float | None
    holdout_mape_percent: float | None
    holdout_within_10_percent: float | None
    wall_s: float
    timing_share: float
    """Share of `wall_s` spent on timing networks. A simulated device counts its own time, so this may exceed 1."""
    simulated: bool
    report: Path
    latency_table: Path
    predictor: str
    predictor_folder: Path
    sources: tuple[str, ...]
    """Names of the devices that the predictor was pre-trained on."""
    other_spaces: Mapping[str, int]
    """Number of the target's labels in other spaces that the predictor uses, by the space's name."""
    label_noise_percent: float
    """Median standard error of the labels, as a percentage of the label."""
    expected_error_percent: float
    """Expected error of a prediction over the space, by the predictor itself."""
    expected_spearman: float | None
    """Expected rank correlation of predictions with the truth over the space, by the predictor itself; None below
    `stopping.FEWEST` labels."""
    expected_spearman_low: float | None
    expected_spearman_high: float | None
    """The range of it that is to hold the truth in nine of ten runs."""
    expected_spearman_of_more: float | None
    """What `stopping.MORE` more networks are expected to bring it to."""
    expected_spearman_of_exact_fit: float | None
    """What an exact fit would bring it to: noise of the labels, or what the predictor cannot express, limits it."""
    stopped_by: str
    """The goal that was reached, or `budget` if none was."""
    goals: tuple[str, ...]
    """Where each goal of accuracy stands at the end, in words."""
    loo_spearman: float | None
    loo_mape_percent: float | None
    holdout_retest_spearman: float | None
    holdout_coverage_90_percent: float | None
    onboard_s: float
    """Seconds that the onboarding took without the hold-out."""
    table: pd.DataFrame = field(repr=False)
    """The latency table (`latency_table.COLUMNS`) of the whole space, or of a sample and of all that was measured."""
    measurements: pd.DataFrame = field(repr=False)
    """The rows of the loop's campaign (`Store.table`)."""

    @property
    def disturbances(self) -> tuple[Disturbance, ...]:
        """The target, if something else on the device has disturbed most of its labels."""
        return disturbances(self.measurements)

    @property
    def expected_ranks(self) -> str:
        """How well the predictor expects to rank the space, how sure that is, and what limits it, in words."""
        now, more, exact = (
            value or 0.0
            for value in (self.expected_spearman, self.expected_spearman_of_more, self.expected_spearman_of_exact_fit)
        )
        low, high = self.expected_spearman_low or 0.0, self.expected_spearman_high or 0.0
        noise = "noise of the labels, or what the predictor leaves out"
        limit = "too few networks" if exact - now > 1 - exact else noise
        return (
            f"Spearman {correlation(now)} ({correlation(low)} to {correlation(high)}) over the space, limited by "
            f"{limit}; {MORE} more networks would bring {correlation(more)}, an exact fit {correlation(exact)}"
        )

    @property
    def noisy(self) -> bool:
        """True if the labels are so noisy that the user should look for the cause (`NOISY_PERCENT`)."""
        return self.label_noise_percent > NOISY_PERCENT

    def to_json(self) -> dict[str, Any]:
        """Return all fields but the tables, with numbers rounded to four decimals."""
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
class Onboardings(Sequence[Onboarding]):
    """The results of `Lab.onboard_fleet`: a sequence of those that succeeded, and the targets that failed."""

    results: tuple[Onboarding, ...]
    failures: tuple[TargetFailure, ...] = ()
    """The targets without a result, and why they have none."""

    @overload
    def __getitem__(self, place: int) -> Onboarding: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Onboarding]: ...

    def __getitem__(self, place: int | slice) -> Onboarding | Sequence[Onboarding]:
        """Return a result, or several."""
        return self.results[place]

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self.results)


@dataclass(frozen=True)
class OnboardingRun:
    """An onboarding after its measurements, before anything is written: all that it has measured and learnt."""

    plan: OnboardingPlan
    loop: ClosedLoop
    """The loop, whose predictor is fitted to all labels."""
    holdout: Holdout | None
    prediction: Prediction | None
    """Predictions for the hold-out; None without one."""
    learning_curve: pd.DataFrame
    rows: pd.DataFrame
    """The measurements of the onboarding and of its hold-out, with raw passes (`Store.table`)."""
    campaign: Campaign
    facts: dict[str, Any]
    """The device's facts."""
    wall_s: float
    """Seconds that the onboarding took."""
    onboard_s: float
    """Seconds that it took without the hold-out."""
    timed_s: float
    """Seconds that the device spent timing networks."""


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
    onboardings = []
    for plan in plans:
        # Predictors are pre-trained before a device is taken: it would wait, and this machine would be disturbed.
        if listener.announce:
            sources = in_words([one.name for one in plan.sources])
            listener.announce(f"{plan.target}: predictor {plan.predictor.name}, prior: {sources}")
        onboardings.append(OnboardingJob(store, plan, listener.announce))
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

    def __init__(self, store: Store, plan: OnboardingPlan, announce: Callable[[str], None] | None = None) -> None:
        self.plan, self._store, self._announce = plan, store, announce
        self.total = plan.budget + HOLDOUT_SESSIONS * plan.holdout
        self._start = time.monotonic()
        self._predictor = predictor_for(
            plan.predictor,
            plan.space,
            seed=plan.seed,
            sources=plan.sources,
            blocks=plan.blocks,
            others=plan.others,
        )
        self.other_spaces = dict(self._predictor.other_spaces)
        name = plan.predictor.name or self._predictor.name
        self._session = MeasurementSession(store, self._campaign(Selection.onboarding(name)), 1)

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

    def conclude(self, timed_s: float) -> OnboardingRun:
        """Judge the predictor, and return what was measured and learnt.

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
        """Choose and measure until the budget is spent, then take the other passes of all networks.

        The first passes of a network are enough to choose the next one. The others come in sweeps over all networks, so
        that no label depends on how disturbed the device was in one second.
        """
        session, loop = self._session, self._loop
        earlier = session.resume()
        self._began, self._earlier_s = time.monotonic(), sum(map(_device_seconds, earlier.values()))
        unfinished = [arch for arch, row in earlier.items() if row.status == Status.RUNNING and row.latency_ms is None]
        for row in earlier.values():
            if row.arch not in unfinished:
                loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        loop.expect(unfinished)

        give_imported(self._store, self.plan.target, self.plan.space.name, self.plan.as_written, loop)

        # A generator: each proposal is made when an export can start, by what is known then.
        wanted = ((arch, str(Role.TRAIN)) for arch in itertools.chain(unfinished, loop.proposals()))
        for row in measurer.run(session, wanted, passes=FIRST_PASSES):
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
            publish(row)
            self._announce_standings()
        archs = [arch for arch, row in session.rows().items() if row.status == Status.RUNNING]
        for _ in self._sweep(measurer, session, archs, Role.TRAIN, FIRST_PASSES + 1):
            pass
        # Labels are final only now: with all passes, and corrected for the session's drift.
        for row in session.rows().values():
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        if loop.measured:
            loop.fit(always=True)

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
                if row.status != Status.RUNNING:
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


def save_onboarding(run: OnboardingRun, folder: Path) -> Onboarding:
    """Write the latency table and the predictor into a folder that becomes the plan's folder, and return the result.

    The report is not written here, only its path is set.

    Raises:
        BadInputError, OSError: something cannot be written.
    """
    plan, loop, curve = run.plan, run.loop, run.learning_curve
    own = run.rows[run.rows["campaign"] == run.campaign.id]
    expected_error_percent = loop.expected_error_percent()
    rank = loop.standing_of(RANKS) if loop.measured >= FEWEST else None
    scores = {
        "loo_spearman": float(curve["loo_spearman"].iloc[-1]) if len(curve) else None,
        "loo_mape_percent": float(curve["loo_mape_percent"].iloc[-1]) if len(curve) else None,
        **_score(run.prediction, run.holdout),
    }
    card = card_of(
        str(plan.target),
        loop.predictor,
        labels=loop.measured,
        as_written=plan.as_written,
        sources=plan.sources,
        facts=run.facts,
        options=plan.predictor,
        seed=plan.seed,
        scores={"expected_error_percent": expected_error_percent, **scores},
    )
    fitted = FittedPredictor(loop.predictor, card, measured_latencies(run.rows))
    table = fitted.table()
    table.to_parquet(folder / "latency_table.parquet", index=False)
    table.to_csv(folder / "latency_table.csv", index=False, float_format="%.6g")
    try:
        fitted.write(folder / "predictor")
    except SafetensorError as error:  # its words are the system's, but it is no OSError
        raise BadInputError(
            f"cannot write the predictor into {plan.out / 'predictor'}: {error}",
            "Name another place with --out, or make room there: the same command goes on.",
        ) from error
    return Onboarding(
        target=str(plan.target),
        space=plan.space.name,
        measured=loop.measured - loop.imported,
        imported=loop.imported,
        failed=loop.failed,
        wall_s=run.wall_s,
        timing_share=run.timed_s / run.wall_s,
        simulated=bool(run.facts.get("simulated")),
        report=plan.out / "report.html",
        latency_table=plan.out / "latency_table.parquet",
        predictor=plan.predictor.name or loop.predictor.name,
        predictor_folder=plan.out / "predictor",
        sources=tuple(source.name for source in plan.sources),
        other_spaces=dict(loop.predictor.other_spaces),
        label_noise_percent=loop.label_noise_percent(),
        expected_error_percent=expected_error_percent,
        expected_spearman=rank.now.value if rank else None,
        expected_spearman_low=rank.now.low if rank else None,
        expected_spearman_high=rank.now.high if rank else None,
        expected_spearman_of_more=rank.then if rank else None,
        expected_spearman_of_exact_fit=rank.limit if rank else None,
        stopped_by=str(loop.reached or "budget"),
        goals=tuple(standing.sentence() for standing in loop.standings()),
        **scores,
        onboard_s=run.onboard_s,
        table=table,
        measurements=own.drop(columns=["passes"]).reset_index(drop=True),
    )
