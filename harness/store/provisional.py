"""Provisional labels: those of a run that was interrupted before it took all passes, or before it removed the drift.

They can be predicted from and exported, and are marked everywhere. The same command makes them final. A session without
anchors has no drift that could be removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CORRECTED_AT", "how_to_finish", "remark"]

CORRECTED_AT = "corrected_at"
"""The fact of a session that says when its drift was last removed (`measurement.drift_correction`)."""


def remark(provisional: int, labels: int) -> str:
    """Return a sentence for results that rest on provisional labels; "" if none is provisional."""
    if not provisional:
        return ""
    verb = "is" if provisional == 1 else "are"
    return (
        f"{provisional} of {labels} labels {verb} provisional: the run that measures them was interrupted before their "
        "last pass, or before the session's drift was removed. `latlab show` says how to finish it."
    )


def how_to_finish(campaign: Mapping[str, Any]) -> str:
    """Return the command that makes a campaign's labels final, as far as the store knows it.

    Args:
        campaign: a row of `Store.campaigns`.
    """
    selection, target, space = (str(campaign[name]) for name in ("selection", "target", "space"))
    settings = f" --policy {campaign['policy']}" if campaign["policy"] != "default" else ""
    settings += f" --seed {campaign['seed']}" if campaign["seed"] else ""
    kind, _, predictor = selection.partition("onboard:")
    if not kind:
        count = sum(int(campaign[name]) for name in ("ok", "running"))
        words = f"latlab onboard {target} --space {space} --predictor {predictor} --budget {count}{settings}"
        return f"`{words}`, or the same command as before"
    if selection == "random":
        count = sum(int(campaign[name]) for name in ("ok", "failed", "running"))
        return f"`latlab measure {target} --space {space} --count {count}{settings}`, or the same command as before"
    return "the same command as before"
