"""The assessment of a target's labels in one space: all figures that `latlab quality` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.architectures import is_block_space, space_named
from latlab.harness.quality.fitness import ENOUGH, Fitness, imported_fitness, judge_fitness
from latlab.harness.quality.session_data import SessionData, TargetData, read_target_data
from latlab.harness.quality.stage_times import Stage, stages
from latlab.harness.statistics.reliability import (
    Ceiling,
    Correlation,
    Retest,
    between_sessions,
    ceiling,
    correlation,
    retest,
    self_correlation,
)
from latlab.harness.store.store import Store
from latlab.harness.store.verdict_counts import verdict_counts
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Status
from latlab.harness.telemetry.recorded_pass import PassKind
from latlab.predictors.common.blas_threads import one_thread

__all__ = ["Labels", "Probes", "Quality", "RetestAgreement", "SessionDifferences", "SessionQuality", "assess"]

MODEL = "ridge"
"""Predictor whose leave-one-out predictions say what each label should be: it needs no other device and no settings."""
MODEL_NETWORKS = 200
"""Most networks that this predictor is fitted to."""
PARTS = 10
"""Parts that a session is cut into, to find a slow change of its speed."""
SLOW_P = 0.001
"""Significance level of the analysis of variance over these parts: one steady session in a thousand seems to drift."""
TAIL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
STAGES = ("build", "export", "parity", "push", "load", "warm", "measure")
"""Stages of a measurement whose seconds are added up."""


@dataclass(frozen=True)
class Labels:
    """The number of labels that a target and space have, and their precision within a session."""

    networks: int
    """Distinct networks that were timed: architectures whose exported files are the same count once."""
    labels: int
    """Finished rows, copied ones included."""
    copied: int
    """Labels that were copied from another architecture with the same exported file."""
    failed: int
    """Rows whose measurement failed."""
    verdicts: Mapping[str, int]
    """Number of timed labels for each verdict ("" for a good one); empty if a latlab without verdicts measured them."""
    stderr_percent: float | None
    """Median standard error within a session, in percent of the latency; None if no error is known."""
    half_width_percent: float | None
    """Median of half the 95 % interval's width, in percent of the latency; None if no interval is known."""


@dataclass(frozen=True)
class SessionQuality:
    """One session of one campaign: when it was, how much it drifted, and how its seconds were spent."""

    number: int
    """Number of the session in its campaign, from 1."""
    campaign: str
    selection: str
    """The choice of its networks (`store.vocabulary.Selection`)."""
    started: datetime
    networks: int
    """Networks that were timed in it."""
    drift_percent: float
    """Slowdown from the session's fastest time to its slowest; 0 if it is not significant."""
    removed_percent: float | None
    """Ratio of the largest to the smallest drift correction of a label, less 1; None if no label was corrected."""
    order: Correlation
    """Rank correlation of the residuals with the order of measuring."""
    temperature: Correlation
    """Rank correlation of the residuals with the temperature during the passes."""
    slow_percent: float
    """Standard deviation of what the residuals of a tenth of the session have in common; 0 if that may be chance."""
    wall_s: float
    """Wall-clock seconds of the session, without its pauses."""
    timing_s: float
    """Seconds of warm-up and samples, anchors included."""

    @property
    def timing_share(self) -> float | None:
        """Share of the wall-clock time that was spent timing, or None if that time is 0."""
        return self.timing_s / self.wall_s if self.wall_s > 0 else None


@dataclass(frozen=True)
class RetestAgreement:
    """The agreement of two sessions' labels; the two are those that have most networks in common."""

    sessions: tuple[int, int]
    """Places of the two in `Quality.sessions`."""
    retest: Retest
    expected: Ceiling
    """The agreement that the labels' error bars alone predict."""
    self_correlation: float
    """Mean Spearman correlation over all pairs of sessions."""
    pairs: int
    """Pairs of sessions with enough networks in common."""


@dataclass(frozen=True)
class SessionDifferences:
    """Differences between sessions, as standard deviations in percent of the latency."""

    networks: int
    """Networks (or anchors) that were measured in at least two sessions."""
    common_percent: float
    """Standard deviation of the speed of whole sessions."""
    specific_percent: float | None
    """Standard deviation of a network's label that neither its session's speed nor its error bar explains; None if it
    is not known."""
    anchors: bool
    """True if these figures come from anchors, because too few networks were measured again."""


@dataclass(frozen=True)
class Probes:
    """Passes of networks that were timed once more in the same session, out of turn, to show the noise."""

    passes: int
    networks: int
    """Networks that were probed."""
    spread_percent: float
    """Robust standard deviation of these passes from the mean of the passes that made their network's label."""
    usual_percent: float
    """The same deviation of the passes that made the labels."""


@dataclass(frozen=True, eq=False)
class Quality:
    """All figures about the labels of one target and space; shares run from 0 to 1, None means not known.

    Names that end in `_percent` are in percent.
    """

    target: str
    space: str
    simulated: bool
    policies: tuple[str, ...]
    other_rows: int
    """Labels that are left out, because another timing policy or way of exporting made them."""
    labels: Labels
    again: RetestAgreement | None
    """Agreement of two sessions; None if no two have enough networks in common."""
    between: SessionDifferences | None
    """Differences between sessions; None if nothing was measured in two."""
    ceiling: Ceiling
    """The correlations that one label per network permits; a little too high if `between` is not known."""
    slow_ceiling: float
    """`ceiling.spearman`, if what labels near each other in time have in common is noise, too."""
    sessions: tuple[SessionQuality, ...]
    probes: Probes | None
    stages: tuple[Stage, ...]
    fitness: Fitness
    expectation: str
    """The value that the residuals compare a label with, in words; "" if there are no residuals."""
    data: TargetData = field(repr=False)
    """The labels and passes that the figures come from."""
    residuals: tuple[pd.Series, ...] = field(repr=False)
    """A series per session, by network: the logarithm of the label over its expectation."""

    @property
    def timing_share(self) -> float | None:
        """Share of all sessions' wall-clock time that was spent timing, or None if that time is 0.

        A simulated device's seconds of timing are simulated too, so that its share may be above 1.
        """
        wall_s = sum(one.wall_s for one in self.sessions)
        return sum(one.timing_s for one in self.sessions) / wall_s if wall_s > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return everything but the tables as JSON values, floats rounded to six digits and NaN as None."""
        values = {one.name: _plain(getattr(self, one.name)) for one in fields(self) if one.repr}
        return values | {"timing_share": _plain(self.timing_share)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {key or "good": _plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, datetime) else value


def assess(store: Store, target: str, space: str) -> Quality:
    """Return all figures about the labels that the store holds of a target and space.

    Raises:
        BadInputError: if it holds no label of them.
    """
    data = read_target_data(store, target, space)
    labels = _labels(data)
    residuals, expectation = _residuals(data)
    sessions = tuple(_session(one, rest, data) for one, rest in zip(data.sessions, residuals, strict=True))
    between = _session_differences(data)
    slow = max(one.slow_percent for one in sessions)
    permitted = _ceiling(data, between)
    with_order = _ceiling(data, between, slow / 100) if slow else permitted
    fitness = (
        imported_fitness(target)
        if data.imported
        else judge_fitness(
            networks=labels.networks,
            ceiling=permitted.spearman,
            verdicts=labels.verdicts,
            within_percent=labels.stderr_percent,
            between_percent=between.specific_percent if between else None,
            slow_percent=slow,
            slow_ceiling=with_order.spearman,
        )
    )
    return Quality(
        target=target,
        space=space,
        simulated=data.simulated,
        policies=data.policies,
        other_rows=data.others,
        labels=labels,
        again=_retest_agreement(data),
        between=between,
        ceiling=permitted,
        slow_ceiling=with_order.spearman,
        sessions=sessions,
        probes=_probes(data),
        stages=tuple(stages(data.rows.reindex(columns=[f"{name}_s" for name in STAGES]))),
        fitness=fitness,
        expectation=expectation,
        data=data,
        residuals=residuals,
    )


def _labels(data: TargetData) -> Labels:
    timed = pd.concat([one.labels for one in data.sessions])
    ok = data.rows[data.rows["status"] == Status.OK]
    errors = (timed["stderr_ms"] / timed["latency_ms"])[timed["stderr_ms"] > 0]
    widths = timed["half_width"].dropna()
    return Labels(
        networks=timed.index.nunique(),
        labels=len(ok),
        copied=int(ok["same_graph_as"].notna().sum()),
        failed=len(data.rows) - len(ok),
        verdicts={} if data.imported else verdict_counts(ok[ok["same_graph_as"].isna()]),
        stderr_percent=100 * float(errors.median()) if len(errors) else None,
        half_width_percent=100 * float(widths.median()) if len(widths) else None,
    )


def _session(one: SessionData, residuals: pd.Series, data: TargetData) -> SessionQuality:
    rows = data.rows[(data.rows["campaign"] == one.campaign) & (data.rows["session"] == one.number)]
    residuals = residuals.reindex(one.labels.index)
    if data.imported:  # the order of a file is not the order of measuring
        residuals = pd.Series(math.nan, residuals.index)
    return SessionQuality(
        number=one.number,
        campaign=one.campaign,
        selection=str(rows["selection"].iloc[0]),
        started=one.started,
        networks=len(one.labels),
        drift_percent=one.drift.percent,
        removed_percent=one.removed_percent(),
        order=correlation(residuals, one.labels["order"]),
        temperature=correlation(residuals, one.labels["temperature_c"]),
        slow_percent=100 * _slow(residuals.dropna().to_numpy()),
        wall_s=one.wall_s,
        timing_s=one.timing_s,
    )


def _slow(residuals: NDArray[np.float64]) -> float:
    """Return the standard deviation of what labels near each other in time have in common; 0 if not significant.

    One-way analysis of variance over tenths of the session; the component between them follows from the expected mean
    squares (Searle, Casella and McCulloch 1992, Variance Components, 3.5). Unlike a rank correlation it also finds a
    drift that goes up and down, and it needs no network in several passes.

    Args:
        residuals: logarithms, shape (networks,), in the order of measuring.
    """
    if len(residuals) < ENOUGH:
        return 0.0
    parts = np.array_split(residuals, PARTS)
    sizes = np.array([len(part) for part in parts])
    within = sum(float(np.var(part)) * len(part) for part in parts) / (len(residuals) - PARTS)
    means = np.array([part.mean() for part in parts])
    between = float((sizes * (means - residuals.mean()) ** 2).sum()) / (PARTS - 1)
    if not within or special.fdtrc(PARTS - 1, len(residuals) - PARTS, between / within) > SLOW_P:
        return 0.0
    usual = (len(residuals) - (sizes**2).sum() / len(residuals)) / (PARTS - 1)
    return math.sqrt(max(0.0, between - within) / usual)


# From one session to the next


def _retest_agreement(data: TargetData) -> RetestAgreement | None:
    """Return the agreement of two sessions, or None if no two have `ENOUGH` networks in common."""
    latencies, errors = data.latencies(), data.errors()
    there = latencies.notna()
    shared = {(a, b): int((there[a] & there[b]).sum()) for a, b in combinations(range(len(data.sessions)), 2)}
    enough = {pair: networks for pair, networks in shared.items() if networks >= ENOUGH}
    if not enough:
        return None
    a, b = max(enough, key=lambda pair: (enough[pair], pair))
    sigma = np.sqrt((errors[a] ** 2 + errors[b] ** 2) / 2)
    both = (latencies[a] * latencies[b]) ** 0.5
    return RetestAgreement(
        sessions=(a, b),
        retest=retest(latencies[a], latencies[b]),
        expected=ceiling(both, sigma),
        self_correlation=self_correlation(latencies),
        pairs=len(enough),
    )


def _session_differences(data: TargetData) -> SessionDifferences | None:
    """Return how sessions differ, or None if nothing was measured in two; anchors help if too few networks were."""
    latencies, errors = data.latencies(), data.errors()
    repeated = int((latencies.notna().sum(axis=1) > 1).sum())
    with_anchors = repeated < ENOUGH
    if with_anchors:
        anchors = [one.anchor_levels() for one in data.sessions]
        latencies = pd.concat([latencies, pd.DataFrame({at: one["latency_ms"] for at, one in enumerate(anchors)})])
        errors = pd.concat([errors, pd.DataFrame({at: one["error"] for at, one in enumerate(anchors)})])
    found = between_sessions(latencies, errors)
    if math.isnan(found.common):
        return None
    specific = None if math.isnan(found.specific) else 100 * found.specific
    return SessionDifferences(found.networks, 100 * found.common, specific, with_anchors and found.networks > repeated)


def _ceiling(data: TargetData, between: SessionDifferences | None, slow: float = 0.0) -> Ceiling:
    """Return the ceiling of the last label of each network, which is the one that predictors learn from."""
    labels = pd.concat([one.labels for one in data.sessions])
    labels = labels[~labels.index.duplicated(keep="last")]
    sigma = labels["stderr_ms"] / labels["latency_ms"]
    specific = between.specific_percent if between else None
    if specific is not None:
        sigma = sigma.fillna(0.0)  # errors that are not known are part of the differences between sessions
    return ceiling(labels["latency_ms"], sigma, between=math.hypot((specific or 0.0) / 100, slow))


def _probes(data: TargetData) -> Probes | None:
    """Return how the probes of all sessions scatter, or None if there are none."""
    probes, usual, networks = [], [], set()
    for one in data.sessions:
        log_ms = one.passes["log_ms"] - one.drift.log_factor(one.passes["time_s"].to_numpy())
        label = one.passes["kind"] == PassKind.LABEL
        level = log_ms[label].groupby(one.passes["network"]).mean()
        count = one.passes["network"][label].value_counts()
        rest = log_ms - one.passes["network"].map(level)
        probe = (one.passes["kind"] == PassKind.PROBE) & rest.notna()
        probes.append(rest[probe])
        networks |= set(one.passes["network"][probe])
        # The mean of k passes contains each of them, so that a deviation from it is too small by sqrt((k - 1) / k).
        k = one.passes["network"].map(count)
        usual.append((rest * np.sqrt(k / (k - 1)))[label & (k > 1)])
    repeats, own = pd.concat(probes), pd.concat(usual)
    if repeats.empty:
        return None
    return Probes(len(repeats), len(networks), _spread_percent(repeats), _spread_percent(own))


def _spread_percent(deviations: pd.Series) -> float:
    return 100 * TAIL * float(deviations.abs().median())


# What a label is expected to be


def _residuals(data: TargetData) -> tuple[tuple[pd.Series, ...], str]:
    """Return the logarithms of labels over their expectation for each session, and the expectation in words.

    The expectation is a predictor's, fitted to the other networks of the space, so that a drift shows even if all
    sessions drifted alike. Blocks and models of the user's own have no such predictor: for them it is the mean over
    sessions.
    """
    logs = data.latencies().apply(np.log)
    expected = _predicted(data, np.exp(logs.mean(axis=1)))
    words = "what a predictor expects of it from all other networks"
    if expected is None:
        expected, words = logs[logs.notna().sum(axis=1) > 1].mean(axis=1), "its mean over sessions"
    if expected.empty:
        words = ""
    rest = logs.sub(expected, axis=0)
    return tuple(rest[at].dropna() for at in rest), words


def _predicted(data: TargetData, latency_ms: pd.Series) -> pd.Series | None:
    """Return the logarithms of the latencies that a predictor expects, by network, or None if none can be fitted."""
    if data.space == USER_MODEL_SPACE or is_block_space(data.space) or len(latency_ms) < ENOUGH:
        return None
    loop = ClosedLoop(space_named(data.space), MODEL, budget=0, as_written=data.as_written)
    chosen = np.unique(np.linspace(0, len(latency_ms) - 1, MODEL_NETWORKS).astype(int))
    for arch, value in latency_ms.iloc[chosen].items():
        loop.record(str(arch), Status.OK, float(value), None)
    with one_thread():
        loop.fit(always=True)
    left_out = dict(zip(loop.support(), loop.predictor.leave_one_out().mean_ms, strict=True))
    archs = [loop.view(loop.space.parse(str(arch))) for arch in latency_ms.index]
    others = [arch for arch in dict.fromkeys(archs) if arch not in left_out]
    if others:
        left_out.update(zip(others, loop.predict(others).mean_ms, strict=True))
    return pd.Series(np.log([left_out[arch] for arch in archs]), index=latency_ms.index)
