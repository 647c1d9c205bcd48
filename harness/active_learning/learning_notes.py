"""The learning curve of an onboarding as it grows, as a fact of its session: others can see it before the end."""

from __future__ import annotations

import math
import time
from typing import Any

import pandas as pd

from latlab.harness.active_learning.loop import ClosedLoop
from latlab.harness.measurement.session import MeasurementSession

__all__ = ["CURVE", "LearningNotes"]

CURVE = "learning_curve"
"""The fact of a session that holds the points of the curve, with the columns of `ClosedLoop.learning_curve`."""
MOST_S = 0.2
"""A point that takes longer is the last one before the end: it would hold up the device, or disturb this machine."""
EVERY = 5
"""From `EACH` labels on, every so many labels are a point."""
EACH = 20


class LearningNotes:
    """Notes how good the predictor was after n labels, whenever the loop has fitted it anyway.

    Args:
        session: whose fact the curve is. A curve that an earlier run has left there is continued.
    """

    def __init__(self, session: MeasurementSession) -> None:
        self._session = session
        known = session.store.session_facts(*session.key).get(CURVE)
        self._points: list[dict[str, Any]] = (
            [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
        )
        self._noted = max((one["n"] for one in self._points if isinstance(one.get("n"), int)), default=0)
        self._is_slow = False

    def look(self, loop: ClosedLoop) -> None:
        """Add a point if the loop's last fit was to more labels than the last point."""
        fitted = loop.fitted
        due = self._noted + (1 if fitted <= EACH else EVERY)
        if self._is_slow or fitted < max(3, due):
            return
        began = time.monotonic()
        point = loop.standing_now()
        self._is_slow = time.monotonic() - began > MOST_S
        if point is not None:
            self._noted = fitted
            self._points.append(_plain(point))
            self._session.add_facts(**{CURVE: self._points})

    def end(self, curve: pd.DataFrame) -> None:
        """Replace the points by those of the whole curve, computed at the end."""
        self._session.add_facts(**{CURVE: [_plain(row) for row in curve.to_dict("records")]})


def _plain(point: dict[Any, Any]) -> dict[str, Any]:
    """Return a point as JSON values, with None for what is not known."""
    return {
        str(name): int(value) if name == "n" else round(float(value), 6) if math.isfinite(value) else None
        for name, value in point.items()
    }
