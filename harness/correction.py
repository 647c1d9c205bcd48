"""What a session's drift did to its labels, taken out again. Raw latencies stay beside."""

from __future__ import annotations

import math
from collections.abc import Sequence

from latlab.agents.policy import TimingPolicy
from latlab.agents.statistics import summarise
from latlab.harness.beyond import TimedPass
from latlab.harness.quality.drift import Drift, fit_drift
from latlab.harness.quality.timeline import timeline
from latlab.harness.quality.verdicts import PassRecord, judge, usual_clock_mhz
from latlab.harness.store import Campaign, Label, Pass, Store

__all__ = ["correct", "record"]


def correct(store: Store, campaign: Campaign, session: int) -> Drift | None:
    """Fit the session's drift to its anchors and repeated networks, and divide the labels of finished rows by it.

    `raw_ms` stays what it was; where there is no drift to speak of, labels are their raw latencies. Doing it again,
    after more was measured, begins from the raw samples again.

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
    store.relabel([_label(row_id, records[row_id], policy, usual_mhz) for row_id in records if row_id in finished])
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


def _label(row_id: int, records: Sequence[PassRecord], policy: TimingPolicy, usual_mhz: float | None) -> Label:
    summary = summarise([one.samples_ns for one in records], policy.trim)
    verdict = judge(records, policy, usual_mhz).kind
    return Label(row_id, summary.latency_ms, summary.stderr_ms, summary.low_ms, summary.high_ms, verdict)
