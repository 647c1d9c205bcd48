"""The result of an onboarding: its figures, and the files that it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from latlab.harness.active_learning.fitted_predictor import FittedPredictor, card_of
from latlab.harness.active_learning.latency_table import measured_latencies
from latlab.harness.active_learning.onboarding_plan import Holdout, OnboardingRun
from latlab.harness.active_learning.stopping import FEWEST, MORE, RANKS, ended_by
from latlab.harness.errors import BadInputError
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.measurement.disturbance import Disturbance, disturbances
from latlab.harness.text import correlation
from latlab.predictors import Prediction
from latlab.predictors.common.metrics import coverage_percent, mape_percent, spearman, within_percent

__all__ = ["NOISY_PERCENT", "Onboarding", "Onboardings", "save_onboarding"]

NOISY_PERCENT = 5.0
"""Median standard error of the labels, in percent, above which a warning says that something disturbs the device."""

_SCORES = (
    "holdout_spearman",
    "holdout_mape_percent",
    "holdout_within_10_percent",
    "holdout_coverage_90_percent",
    "holdout_retest_spearman",
)


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
    standings = loop.standings()
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
        sources=run.sources,
        facts=run.facts,
        options=plan.predictor,
        seed=plan.seed,
        session_variance=loop.session_variance,
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
        sources=plan.predictor.source_names(run.sources),
        other_spaces=dict(loop.predictor.other_spaces),
        label_noise_percent=loop.label_noise_percent(),
        expected_error_percent=expected_error_percent,
        expected_spearman=rank.now.value if rank else None,
        expected_spearman_low=rank.now.low if rank else None,
        expected_spearman_high=rank.now.high if rank else None,
        expected_spearman_of_more=rank.then if rank else None,
        expected_spearman_of_exact_fit=rank.limit if rank else None,
        stopped_by=str(ended_by(loop.reached, standings) or "budget"),
        goals=tuple(standing.sentence() for standing in standings),
        **scores,
        onboard_s=run.onboard_s,
        table=table,
        measurements=own.drop(columns=["passes"]).reset_index(drop=True),
    )
