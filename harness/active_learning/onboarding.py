"""A new device, one call: measure what tells most, predict the whole space, and say how good that is."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.latency_table import latency_table, whole_space
from latlab.harness.active_learning.loop import Loop
from latlab.harness.active_learning.predictor_factory import predictor_for
from latlab.harness.active_learning.source_devices import signature
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.jobs import Job, Observer, Watcher
from latlab.harness.measurement.session import Sitting
from latlab.harness.store.store import Campaign, Measurement, Store
from latlab.harness.targets import Target
from latlab.harness.text import in_words
from latlab.harness.timing_policy import TimingPolicy
from latlab.predictors import Prediction, SourceDevice
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent
from latlab.search_spaces import Architecture, SearchSpace

if TYPE_CHECKING:
    from latlab.harness.lab import Lab

__all__ = ["Onboarding", "Plan", "onboard"]

NOISY_PERCENT = 5.0
"""Median standard error of labels beyond which people are told that something disturbs the device."""
FIRST_PASSES = 2
"""Passes after which a network's latency is good enough to choose the next one by."""
HOLDOUT = "holdout"
"""Selection of the campaign that the hold-out is measured in."""
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
class Plan:
    """What `onboard` is asked for."""

    target: Target
    space: SearchSpace
    policy: TimingPolicy
    predictor: str
    sources: tuple[SourceDevice, ...]
    """What the predictor is pre-trained on."""
    facts: Mapping[str, float]
    """Of the target's hardware, for predictors that take them."""
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


def onboard(
    lab: Lab,
    plans: Sequence[Plan],
    observe: Observer | None = None,
    watch: Watcher | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Onboarding]:
    """Run a loop on each target, side by side, then predict and report: what did not fail, in the order of plans.

    Continues where an earlier run of the same plans stopped.

    Args:
        say: told, in a sentence, what is done before the devices are.
    """
    stays = []
    for plan in plans:
        # Before a device is taken, which would wait, and be disturbed where it is this machine.
        if say:
            say(f"{plan.target}: predictor {plan.predictor}, prior: {in_words([one.name for one in plan.sources])}")
        stays.append(_Stay(lab.store, plan))
    jobs = [Job(stay.plan.target, stay.work, total=stay.total) for stay in stays]
    errors = lab.drive(jobs, observe, watch)
    if len(errors) == len(jobs):
        raise errors[0]
    return [stay.conclude(job.timed_s) for stay, job in zip(stays, jobs, strict=True) if job.finished]


class _Stay:
    """One plan on its way. Its work may be done again from the start: it goes on with what the store holds."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.plan, self._store = plan, store
        self.total = plan.budget + HOLDOUT_SESSIONS * plan.holdout
        self._start = time.monotonic()
        self._predictor = predictor_for(
            plan.predictor,
            plan.space,
            seed=plan.seed,
            sources=plan.sources,
            facts=plan.facts,
            blocks=plan.blocks,
        )

    def work(self, sitting: Sitting, tell: Callable[[Measurement], None]) -> None:
        plan, store = self.plan, self._store
        holdout_archs = holdout_of(plan.space, plan.holdout, plan.seed, self._predictor.wanted())
        self._loop = loop = Loop(
            plan.space,
            self._predictor,
            budget=plan.budget,
            seed=plan.seed,
            exclude=holdout_archs,
            until_percent=plan.until_percent,
            as_written=plan.as_written,
        )
        self._campaign = _campaign(store, plan, f"onboard:{plan.predictor}")
        _close_loop(store, sitting, plan, self._campaign, loop, tell)
        if not loop.measured:
            raise LatlabError(
                f"all {loop.failed} networks failed on {plan.target}: {_last_error(store, self._campaign)}",
                f"`latlab doctor {plan.target.device}` looks for the cause; `latlab show` lists the failures.",
            )
        self._onboard_s = time.monotonic() - self._start
        self._holdout = _measure_holdout(store, sitting, plan, holdout_archs, tell) if plan.holdout else None
        self._facts = sitting.device.facts

    def conclude(self, timed_s: float) -> Onboarding:
        return _conclude(
            self._store,
            self.plan,
            self._loop,
            self._campaign,
            self._holdout,
            self._facts,
            self._start,
            self._onboard_s,
            timed_s,
        )


def _campaign(store: Store, plan: Plan, selection: str) -> Campaign:
    return store.campaign(plan.target, plan.space.name, plan.policy, plan.seed, selection, plan.options)


def _close_loop(
    store: Store, sitting: Sitting, plan: Plan, campaign: Campaign, loop: Loop, tell: Callable[[Measurement], None]
) -> None:
    """Choose and measure until the budget is spent, then finish what was put aside.

    A network's first passes are enough for the loop to go on with; its others come in sweeps over all networks, so
    that a label does not hang on how disturbed the device was in one second.
    """
    earlier = store.resume(campaign, 1)
    unfinished = [arch for arch, row in earlier.items() if row.status == "running" and row.latency_ms is None]
    for row in earlier.values():
        if row.arch not in unfinished:
            loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
    loop.expect(unfinished)

    # Lazily: each proposal is made when an export can start, with what is known by then.
    wanted = ((arch, "train") for arch in itertools.chain(unfinished, loop.proposals()))
    for row in sitting.run(campaign, 1, wanted, passes=FIRST_PASSES):
        loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
        tell(row)
    archs = [arch for arch, row in store.rows(campaign, 1).items() if row.status == "running"]
    for _ in _sweep(sitting, plan, campaign, 1, archs, "train", FIRST_PASSES + 1):
        pass
    # Only now are all labels what they will be: with all passes, and without the session's drift.
    for row in store.rows(campaign, 1).values():
        loop.record(row.arch, row.status, row.latency_ms, row.stderr_ms)
    if loop.measured:
        loop.fit(always=True)


def _sweep(
    sitting: Sitting, plan: Plan, campaign: Campaign, session: int, archs: Sequence[str], role: str, first: int
) -> Iterator[Measurement]:
    """Bring networks from pass `first` to their last, one pass of all of them at a time, in random orders."""
    rng = random.Random(f"{plan.seed}/{session}")
    left = list(archs)
    for passes in range(first, plan.policy.most_passes + 1):
        rng.shuffle(left)
        for row in sitting.run(campaign, session, [(arch, role) for arch in left], passes=passes):
            if row.status != "running":
                left.remove(row.arch)  # failed, say: later sweeps must not try it again
                yield row


def _last_error(store: Store, campaign: Campaign) -> str:
    errors = [row.error for row in store.rows(campaign, 1).values() if row.error]
    return errors[-1] if errors else "nothing could be proposed"


def _measure_holdout(
    store: Store, sitting: Sitting, plan: Plan, archs: list[Architecture], tell: Callable[[Measurement], None]
) -> Holdout:
    """The hold-out in two interleaved sittings, one after the other."""
    campaign = _campaign(store, plan, HOLDOUT)
    labels = []
    for session in range(1, HOLDOUT_SESSIONS + 1):
        done = {arch for arch, row in store.resume(campaign, session).items() if row.status != "running"}
        todo = [arch.text for arch in archs if arch.text not in done]
        for row in _sweep(sitting, plan, campaign, session, todo, "holdout", 1):
            tell(row)
        rows = store.rows(campaign, session)
        labels.append([rows[arch.text].latency_ms if rows[arch.text].status == "ok" else None for arch in archs])
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


def _conclude(
    store: Store,
    plan: Plan,
    loop: Loop,
    campaign: Campaign,
    holdout: Holdout | None,
    facts: dict[str, Any],
    start: float,
    onboard_s: float,
    timed_s: float,
) -> Onboarding:
    from latlab.harness.report.build import onboarding_report

    archs = whole_space(plan.space)
    measured = {arch for arch, row in store.rows(campaign, 1).items() if row.status == "ok"}
    table = latency_table(archs, loop.predict(archs), measured)
    table.to_parquet(plan.out / "latency_table.parquet", index=False)
    table.to_csv(plan.out / "latency_table.csv", index=False, float_format="%.6g")
    loop.predictor.save(plan.out / "predictor")
    origin = {"predictor": plan.predictor, "seed": plan.seed, "facts": dict(plan.facts), **signature(plan.sources)}
    (plan.out / "predictor" / "sources.json").write_text(json.dumps(origin, indent=1) + "\n")
    curve = loop.learning_curve(holdout.archs if holdout else [], holdout.latency_ms if holdout else [])
    prediction = loop.predict(holdout.archs) if holdout else None
    rows = store.table(target=str(plan.target), space=plan.space.name, raw=True)
    rows = rows[rows["campaign"].isin([campaign.id, _campaign(store, plan, HOLDOUT).id])]
    wall_s = time.monotonic() - start
    result = Onboarding(
        target=str(plan.target),
        space=plan.space.name,
        measured=loop.measured,
        failed=loop.failed,
        wall_s=wall_s,
        timing_share=timed_s / wall_s,
        simulated=bool(facts.get("simulated")),
        report=plan.out / "report.html",
        latency_table=plan.out / "latency_table.parquet",
        predictor=plan.predictor,
        predictor_folder=plan.out / "predictor",
        sources=tuple(source.name for source in plan.sources),
        label_noise_percent=loop.label_noise_percent(),
        expected_error_percent=loop.expected_error_percent(),
        loo_spearman=float(curve["loo_spearman"].iloc[-1]) if len(curve) else None,
        loo_mape_percent=float(curve["loo_mape_percent"].iloc[-1]) if len(curve) else None,
        **_score(prediction, holdout),
        onboard_s=onboard_s,
        table=table,
        measurements=rows[rows["campaign"] == campaign.id].drop(columns=["passes"]).reset_index(drop=True),
    )
    onboarding_report(result, plan, loop, holdout, prediction, rows, curve, facts)
    return result
