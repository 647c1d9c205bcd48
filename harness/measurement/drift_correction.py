"""Drift correction: it removes a session's drift from its labels. The latencies as measured stay in `raw_ms`."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.statistics.distribution import distribution
from latlab.harness.statistics.drift import Drift, fit_drift
from latlab.harness.statistics.estimators import summarise
from latlab.harness.statistics.pass_series import pass_series
from latlab.harness.statistics.pooled_variance import estimate_noise
from latlab.harness.statistics.verdicts import judge, judge_together, usual_clock_mhz
from latlab.harness.store.provisional import CORRECTED_AT
from latlab.harness.store.store import Label
from latlab.harness.store.vocabulary import Status
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass

__all__ = ["correct_labels"]


def correct_labels(session: MeasurementSession) -> Drift | None:
    """Fit the session's drift to its anchors and repeated networks, and divide the labels of finished rows by it.

    Error bars and verdicts are computed again, too, because a whole session says more about the scatter of its networks
    than each network alone. `raw_ms` does not change. Without significant drift, labels equal their raw latencies. A
    later call, after more was measured, starts from the raw samples again.

    Returns:
        The drift, or None if the session has no anchors; then nothing is corrected.
    """
    anchors = session.anchors()
    if not anchors:
        return None
    policy = session.policy
    passes = [one for one in session.passes() if one.kind == PassKind.LABEL]
    series = pass_series([*anchors, *passes], policy.trim)
    drift = fit_drift([one.observation for one in series])
    usual_mhz = usual_clock_mhz([one.recorded.telemetry for one in series])
    rows = session.rows().values()
    finished = {row.id for row in rows if row.status == Status.OK}
    corrected: dict[int, list[RecordedPass]] = {}
    for one in series:
        row_id = one.recorded.measurement_id
        if not isinstance(one.recorded, RecordedAnchor) and row_id in finished:
            factor = math.exp(drift.log_factor(one.time_s)) if drift.significant else 1.0
            corrected.setdefault(row_id, []).append(one.recorded.without_drift(factor, one.time_s))
    noise_model = estimate_noise([[one.samples_ns for one in own] for own in corrected.values()], policy.trim)
    verdicts = judge_together([judge(own, policy, usual_mhz, noise_model) for own in corrected.values()])
    labels = []
    for (row_id, own), verdict in zip(corrected.items(), verdicts, strict=True):
        label = summarise([one.samples_ns for one in own], policy.trim, noise_model)
        labels.append(
            Label(
                row_id,
                label.latency_ms,
                label.stderr_ms,
                label.low_ms,
                label.high_ms,
                verdict.kind,
                distribution(own),
            )
        )
    session.store.relabel(labels)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")  # the form of `finished_at`
    # The clock may have been set back since the last label: what is corrected now is corrected all the same.
    corrected_at = max([now, *(row.finished_at or "" for row in rows)])
    session.add_facts(drift=drift.to_json(), drift_percent=drift.percent, **{CORRECTED_AT: corrected_at})
    return drift
