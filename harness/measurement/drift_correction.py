"""What a session's drift did to its labels, taken out again. Raw latencies stay beside."""

from __future__ import annotations

import math

from latlab.harness.statistics.drift import Drift, fit_drift
from latlab.harness.statistics.estimators import summarise
from latlab.harness.statistics.pass_series import timeline
from latlab.harness.statistics.pooled_variance import usual_scatter
from latlab.harness.statistics.verdicts import PassRecord, judge, judge_together, usual_clock_mhz
from latlab.harness.store.store import Campaign, Label, Pass, Store
from latlab.harness.telemetry.metrics import TimedPass
from latlab.harness.timing_policy import TimingPolicy

__all__ = ["correct", "record"]


def correct(store: Store, campaign: Campaign, session: int) -> Drift | None:
    """Fit the session's drift to its anchors and repeated networks, and divide the labels of finished rows by it.

    Error bars and verdicts are made anew, too: a whole session tells more of how its networks scatter than each of
    them alone. `raw_ms` stays what it was; where there is no drift to speak of, labels are their raw latencies. Doing
    it again, after more was measured, begins from the raw samples again.

    Returns:
        The drift; None where the session has no anchors, so that nothing is corrected.
    """
    anchors = store.anchors(campaign.id, session)
    if not anchors:
        return None
    policy = TimingPolicy(**campaign.policy)
    passes = [one for one in store.session_passes(campaign.id, session) if one.kind == "label"]
    runs = timeline([*anchors, *passes], policy.trim)
    drift = fit_drift([run.point for run in runs])
    usual_mhz = usual_clock_mhz([run.what.telemetry for run in runs])
    records: dict[int, list[PassRecord]] = {}
    for one in runs:
        if isinstance(one.what, Pass):
            factor = math.exp(drift.log_factor(one.time_s)) if drift.significant else 1.0
            records.setdefault(one.what.measurement_id, []).append(record(one.what, one.time_s, factor))
    finished = {row.id for row in store.rows(campaign, session).values() if row.status == "ok"}
    records = {row_id: own for row_id, own in records.items() if row_id in finished}
    scatter = usual_scatter([[one.samples_ns for one in own] for own in records.values()], policy.trim)
    verdicts = judge_together([judge(own, policy, usual_mhz, scatter) for own in records.values()])
    labels = []
    for (row_id, own), verdict in zip(records.items(), verdicts, strict=True):
        label = summarise([one.samples_ns for one in own], policy.trim, scatter)
        labels.append(Label(row_id, label.latency_ms, label.stderr_ms, label.low_ms, label.high_ms, verdict.kind))
    store.relabel(labels)
    store.note_session(campaign.id, session, drift=drift.to_json(), drift_percent=drift.percent)
    return drift


def record(one: TimedPass, otherwise_s: float, factor: float = 1.0) -> PassRecord:
    """A pass for `judge`, its samples divided by the drift at its time.

    Args:
        otherwise_s: when it was, for devices that do not tell.
    """
    at_s = one.telemetry.get("at_s")
    samples = [round(ns / factor) for ns in one.samples_ns] if factor != 1.0 else one.samples_ns
    return PassRecord(samples, at_s if isinstance(at_s, (int, float)) else otherwise_s, one.telemetry)
