"""What an onboarding is to do on one target, and what it has measured and learnt there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.active_learning.predictor_factory import PredictorOptions
from latlab.harness.active_learning.stopping import Goal
from latlab.harness.store.store import Campaign
from latlab.harness.targets import Target
from latlab.harness.timing_policy import TimingPolicy
from latlab.predictors import OtherSpace, Prediction, SourceDevice
from latlab.predictors.samplers import Sampler
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Holdout", "OnboardingPlan", "OnboardingRun"]


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
    beside: tuple[str, ...]
    """Targets that are onboarded at the same time, and whose labels it may learn from as they come."""
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
    sampler: Sampler | None = None
    """The sampler that chooses all networks before the first is measured; None for the closed loop's own choice."""
    encoding_table: Path | None = None
    """The table of encodings that the sampler reads."""


@dataclass(frozen=True)
class Holdout:
    """The hold-out: n architectures, their labels (means over the sessions), and the sessions' agreement."""

    archs: list[Architecture]
    latency_ms: np.ndarray
    """Labels: n."""
    retest_spearman: float
    """Rank correlation between the two sessions."""


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
    sources: tuple[SourceDevice, ...]
    """The source devices that the predictor has learnt from: the plan's, and targets that were onboarded beside it."""
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
