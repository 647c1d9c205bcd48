"""How far sessions have come, and how long they will still take."""

from __future__ import annotations

from typing import Any

from latlab.harness.dashboard.state import CURRENT_S, SessionState
from latlab.harness.fleet.eta import LEAST_PASSES, Remaining, remaining
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.text import spoken_duration

__all__ = ["PLANNED", "kind_of", "planned", "session_json", "session_state"]

PLANNED = "planned"
"""The fact of a session that says how many networks it is to measure."""


def kind_of(selection: str) -> str:
    """Return what a campaign is for, in a few words."""
    words = {
        Selection.RANDOM: "random networks", Selection.LISTED: "listed networks", Selection.HOLDOUT: "hold-out",
        Selection.REFERENCES: "embedding", Selection.SUSTAIN: "sustained run", Selection.COMPARE: "comparison",
        Selection.IMPORTED: "imported",
    }  # fmt: skip
    kind, onboarding, predictor = selection.partition("onboard:")
    if onboarding and not kind:
        return f"onboarding with {predictor}"
    return {str(key): value for key, value in words.items()}.get(selection, selection)


def planned(session: SessionState) -> int | None:
    """Return how many networks the session is to measure; None if the store does not say."""
    found = session.facts.get(PLANNED)
    return found if isinstance(found, int) and 0 < found < 10**9 else None


def session_state(session: SessionState, now: float) -> str:
    """Return the state of a session in a word: measuring, unfinished or done."""
    wanted, there = planned(session), sum(session.finished.values())
    if now - session.last_sign < CURRENT_S and (session.open or (wanted is not None and there < wanted)):
        return "measuring"
    return "unfinished" if session.open or (wanted is not None and there < wanted) else "done"


def _remaining(session: SessionState, now: float) -> Remaining | None:
    """Return how long the session will still take at the pace of the last minutes; None without a ground for it."""
    wanted, policy = planned(session), session.campaign.policy
    count, seconds = session.pass_rate.within(now)
    fewest = policy.get("passes")
    if wanted is None or session.passes is None or count < LEAST_PASSES or not isinstance(fewest, int):
        return None
    most = policy.get("max_passes")
    most = most if isinstance(most, int) else 0
    networks = wanted - session.failed - session.copied
    return remaining(session.passes, session.passes * seconds / count, networks, fewest, max(fewest, most))


def _left_in_words(session: SessionState, now: float) -> str:
    left = _remaining(session, now)
    if left is None:
        return ""
    least, most = spoken_duration(left.least_s), spoken_duration(left.most_s)
    return least if least == most else f"{least} to {most}"


def session_json(session: SessionState, now: float) -> dict[str, Any]:
    """Return a line about a session for the page."""
    campaign, wanted = session.campaign, planned(session)
    state = session_state(session, now)
    return {
        "campaign": campaign.id,
        "session": session.number,
        "target": campaign.target,
        "space": campaign.space,
        "kind": kind_of(campaign.selection),
        "policy": campaign.policy_name,
        "seed": campaign.seed,
        "state": state,
        "ok": session.ok,
        "so_far": session.so_far,
        "failed": session.failed,
        "open": len(session.open),
        "planned": wanted,
        "left": _left_in_words(session, now) if state == "measuring" else "",
        "per_minute": session.label_rate.per_minute(now) if state == "measuring" else None,
        "first": session.first,
        "last": session.last_sign,
        "simulated": session.simulated,
        "lost": sum(one.status == Status.DEVICE_LOST for one in session.open.values()),
    }
