"""How far the labels of a target and space can be trusted: everything that `latlab quality` tells."""

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
from scipy import stats

from latlab.harness.active_learning.loop import Loop
from latlab.harness.architectures import is_block_space, space_named
from latlab.harness.quality.fitness import ENOUGH, Fitness, judge_fitness
from latlab.harness.quality.session_data import Records, Sitting, read_records
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

__all__ = ["Again", "Between", "Labels", "Probes", "Quality", "SessionQuality", "assess"]

MODEL = "ridge"
"""Predictor from whose leave-one-out predictions labels are expected: it needs no other device, and no choice."""
MODEL_NETWORKS = 200
"""It is fitted to so many at most."""
PARTS = 10
SLOW_P = 0.001
"""Of an analysis of variance over the tenths of a session: one session in a thousand seems to drift, and does not."""
TAIL = 1.4826
"""Of a normal distribution's median absolute deviation, to its standard deviation."""
STAGES = ("build", "export", "parity", "push", "load", "warm", "measure")


@dataclass(frozen=True)
class Labels:
    networks: int
    """Different ones that were timed: architectures whose exported files are the same count once."""
    labels: int
    copied: int
    """Of `labels`, those of networks whose twin was timed."""
    failed: int
    verdicts: Mapping[str, int]
    """How many timed labels have which ("" for none); empty where they were measured before there were any."""
    stderr_percent: float | None
    """Median standard error within a session, of the latency; None where no error is known."""
    half_width_percent: float | None
    """Median of half the 95 % interval's width."""


@dataclass(frozen=True)
class SessionQuality:
    number: int
    campaign: str
    selection: str
    started: datetime
    networks: int
    drift_percent: float
    """Found: from the session's fastest to its slowest time; 0 where it is not significant."""
    removed_percent: float | None
    """From the least to the largest correction of a label; None where labels are as measured."""
    order: Correlation
    """Of residuals, with the order of measuring."""
    temperature: Correlation
    slow_percent: float
    """What residuals of one tenth of the session have in common (standard deviation); 0 where that is chance."""
    wall_s: float
    timing_s: float

    @property
    def timing_share(self) -> float | None:
        return self.timing_s / self.wall_s if self.wall_s > 0 else None


@dataclass(frozen=True)
class Again:
    """Labels of the same networks in two sessions, those that share most."""

    sessions: tuple[int, int]
    """Their places in `Quality.sessions`."""
    retest: Retest
    expected: Ceiling
    """What the error bars of these labels foretell, by themselves."""
    self_correlation: float
    """The mean over all pairs of sessions."""
    pairs: int
    """Of sessions that share enough networks."""


@dataclass(frozen=True)
class Between:
    """How sessions differ; relative standard deviations."""

    networks: int
    common_percent: float
    """By how much a whole session is faster or slower."""
    specific_percent: float | None
    """By how much a network's label differs beyond that, and beyond its error bar."""
    anchors: bool
    """Whether this rests on anchors, because too few networks were measured again."""


@dataclass(frozen=True)
class Probes:
    """Known networks timed once more in the same session, out of turn."""

    passes: int
    networks: int
    spread_percent: float
    """Robust deviation of these passes from their network's other ones."""
    usual_percent: float
    """That of the passes which made the labels."""


@dataclass(frozen=True, eq=False)
class Quality:
    """Names that end in `_percent` run from 0 to 100, all others from 0 to 1; None: not known."""

    target: str
    space: str
    simulated: bool
    policies: tuple[str, ...]
    other_rows: int
    """Labels that are left out: their timing policy or way of exporting is another."""
    labels: Labels
    again: Again | None
    between: Between | None
    ceiling: Ceiling
    """What one label per network permits; without `between` a little too high."""
    slow_ceiling: float
    """The same rank correlation, if what neighbours in time have in common is noise, too."""
    sessions: tuple[SessionQuality, ...]
    probes: Probes | None
    stages: tuple[Stage, ...]
    fitness: Fitness
    expectation: str
    """What residuals are residuals of, in words; "" where there are none."""
    records: Records = field(repr=False)
    residuals: tuple[pd.Series, ...] = field(repr=False)
    """Of each session, by network: logarithm of the label over its expectation."""

    @property
    def timing_share(self) -> float | None:
        """Of the wall-clock of all sessions; of a simulated device's own time, and maybe above 1, if it is one."""
        wall_s = sum(one.wall_s for one in self.sessions)
        return sum(one.timing_s for one in self.sessions) / wall_s if wall_s > 0 else None

    def to_json(self) -> dict[str, Any]:
        """All but the tables."""
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
    """Judge what the store holds of a target and space.

    Raises:
        BadInputError: where it holds no label of them.
    """
    records = read_records(store, target, space)
    labels = _labels(records)
    residuals, expectation = _residuals(records)
    sessions = tuple(_session(one, rest, records) for one, rest in zip(records.sittings, residuals, strict=True))
    between = _between(records)
    slow = max(one.slow_percent for one in sessions)
    permitted = _ceiling(records, between)
    with_order = _ceiling(records, between, slow / 100) if slow else permitted
    fitness = judge_fitness(
        networks=labels.networks,
        ceiling=permitted.spearman,
        verdicts=labels.verdicts,
        within_percent=labels.stderr_percent,
        between_percent=between.specific_percent if between else None,
        slow_percent=slow,
        slow_ceiling=with_order.spearman,
    )
    return Quality(
        target=target,
        space=space,
        simulated=records.simulated,
        policies=records.policies,
        other_rows=records.others,
        labels=labels,
        again=_again(records),
        between=between,
        ceiling=permitted,
        slow_ceiling=with_order.spearman,
        sessions=sessions,
        probes=_probes(records),
        stages=tuple(stages(records.rows.reindex(columns=[f"{name}_s" for name in STAGES]))),
        fitness=fitness,
        expectation=expectation,
        records=records,
        residuals=residuals,
    )


def _labels(records: Records) -> Labels:
    timed = pd.concat([one.labels for one in records.sittings])
    ok = records.rows[records.rows["status"] == Status.OK]
    errors = (timed["stderr_ms"] / timed["latency_ms"])[timed["stderr_ms"] > 0]
    widths = timed["half_width"].dropna()
    return Labels(
        networks=timed.index.nunique(),
        labels=len(ok),
        copied=int(ok["same_graph_as"].notna().sum()),
        failed=len(records.rows) - len(ok),
        verdicts=verdict_counts(ok[ok["same_graph_as"].isna()]),
        stderr_percent=100 * float(errors.median()) if len(errors) else None,
        half_width_percent=100 * float(widths.median()) if len(widths) else None,
    )


def _session(one: Sitting, residuals: pd.Series, records: Records) -> SessionQuality:
    rows = records.rows[(records.rows["campaign"] == one.campaign) & (records.rows["session"] == one.number)]
    residuals = residuals.reindex(one.labels.index)
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
    """Standard deviation of what neighbours in time have in common; 0 where it is not significant.

    One-way analysis of variance over tenths of the session, the component between them by its expected mean squares
    (Searle, Casella and McCulloch 1992, Variance Components, 3.5). It needs no monotonous drift, as a rank correlation
    does, and no network in several passes.

    Args:
        residuals: in the order of measuring.
    """
    if len(residuals) < ENOUGH:
        return 0.0
    parts = np.array_split(residuals, PARTS)
    sizes = np.array([len(part) for part in parts])
    within = sum(float(np.var(part)) * len(part) for part in parts) / (len(residuals) - PARTS)
    means = np.array([part.mean() for part in parts])
    between = float((sizes * (means - residuals.mean()) ** 2).sum()) / (PARTS - 1)
    if not within or stats.f.sf(between / within, PARTS - 1, len(residuals) - PARTS) > SLOW_P:
        return 0.0
    usual = (len(residuals) - (sizes**2).sum() / len(residuals)) / (PARTS - 1)
    return math.sqrt(max(0.0, between - within) / usual)


# From one session to the next


def _again(records: Records) -> Again | None:
    """None where no two sessions share `ENOUGH` networks."""
    latencies, errors = records.latencies(), records.errors()
    there = latencies.notna()
    shared = {(a, b): int((there[a] & there[b]).sum()) for a, b in combinations(range(len(records.sittings)), 2)}
    enough = {pair: networks for pair, networks in shared.items() if networks >= ENOUGH}
    if not enough:
        return None
    a, b = max(enough, key=lambda pair: (enough[pair], pair))
    sigma = np.sqrt((errors[a] ** 2 + errors[b] ** 2) / 2)
    both = (latencies[a] * latencies[b]) ** 0.5
    return Again(
        sessions=(a, b),
        retest=retest(latencies[a], latencies[b]),
        expected=ceiling(both, sigma),
        self_correlation=self_correlation(latencies),
        pairs=len(enough),
    )


def _between(records: Records) -> Between | None:
    """None where nothing was measured in two sessions. Anchors help where too few networks were."""
    latencies, errors = records.latencies(), records.errors()
    repeated = int((latencies.notna().sum(axis=1) > 1).sum())
    with_anchors = repeated < ENOUGH
    if with_anchors:
        anchors = [one.anchor_levels() for one in records.sittings]
        latencies = pd.concat([latencies, pd.DataFrame({at: one["latency_ms"] for at, one in enumerate(anchors)})])
        errors = pd.concat([errors, pd.DataFrame({at: one["error"] for at, one in enumerate(anchors)})])
    found = between_sessions(latencies, errors)
    if math.isnan(found.common):
        return None
    specific = None if math.isnan(found.specific) else 100 * found.specific
    return Between(found.networks, 100 * found.common, specific, with_anchors and found.networks > repeated)


def _ceiling(records: Records, between: Between | None, slow: float = 0.0) -> Ceiling:
    """Of the last label of each network: it is the one that predictors learn from."""
    labels = pd.concat([one.labels for one in records.sittings])
    labels = labels[~labels.index.duplicated(keep="last")]
    sigma = labels["stderr_ms"] / labels["latency_ms"]
    specific = between.specific_percent if between else None
    if specific is not None:
        sigma = sigma.fillna(0.0)  # what is not known of errors within is in the differences between
    return ceiling(labels["latency_ms"], sigma, between=math.hypot((specific or 0.0) / 100, slow))


def _probes(records: Records) -> Probes | None:
    """Of all sessions; None where there are none."""
    probes, usual, networks = [], [], set()
    for one in records.sittings:
        log_ms = one.passes["log_ms"] - one.drift.log_factor(one.passes["time_s"].to_numpy())
        label = one.passes["kind"] == PassKind.LABEL
        level = log_ms[label].groupby(one.passes["network"]).mean()
        count = one.passes["network"][label].value_counts()
        rest = log_ms - one.passes["network"].map(level)
        probe = (one.passes["kind"] == PassKind.PROBE) & rest.notna()
        probes.append(rest[probe])
        networks |= set(one.passes["network"][probe])
        # The mean of k passes follows each of them: a deviation from it is short by sqrt((k - 1) / k).
        k = one.passes["network"].map(count)
        usual.append((rest * np.sqrt(k / (k - 1)))[label & (k > 1)])
    repeats, own = pd.concat(probes), pd.concat(usual)
    if repeats.empty:
        return None
    return Probes(len(repeats), len(networks), _spread_percent(repeats), _spread_percent(own))


def _spread_percent(deviations: pd.Series) -> float:
    return 100 * TAIL * float(deviations.abs().median())


# What a label is expected to be


def _residuals(records: Records) -> tuple[tuple[pd.Series, ...], str]:
    """Logarithms of labels over what they are expected to be, for each sitting, and what that is in words.

    Expected from the others of the space, by a predictor that leaves each network out: a drift shows in it even where
    all sessions drifted alike. Of what has no such predictor (blocks, models of one's own), from its other sessions.
    """
    logs = records.latencies().apply(np.log)
    expected = _predicted(records, np.exp(logs.mean(axis=1)))
    words = "what a predictor expects of it from all other networks"
    if expected is None:
        expected, words = logs[logs.notna().sum(axis=1) > 1].mean(axis=1), "its mean over sessions"
    if expected.empty:
        words = ""
    rest = logs.sub(expected, axis=0)
    return tuple(rest[at].dropna() for at in rest), words


def _predicted(records: Records, latency_ms: pd.Series) -> pd.Series | None:
    """Logarithms of the latencies that are expected of networks; None where there is nothing to expect them by."""
    if records.space == USER_MODEL_SPACE or is_block_space(records.space) or len(latency_ms) < ENOUGH:
        return None
    loop = Loop(space_named(records.space), MODEL, budget=0, as_written=records.as_written)
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
