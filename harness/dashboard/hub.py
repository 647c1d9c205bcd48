"""What is shown, computed once for all who look, and only while somebody looks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from latlab.harness.dashboard.comparisons import comparison_view
from latlab.harness.dashboard.fleet_view import campaigns_view, fleet_view
from latlab.harness.dashboard.history_view import HistoryView
from latlab.harness.dashboard.metrics import metrics_text
from latlab.harness.dashboard.quality_view import QualityView
from latlab.harness.dashboard.searches import search_view
from latlab.harness.dashboard.session_view import session_view
from latlab.harness.dashboard.watch import StoreWatch, reading
from latlab.harness.errors import LatlabError
from latlab.harness.store.place import StorePath
from latlab.harness.store.store import Store

__all__ = ["LOOK_S", "VIEWS", "Hub"]

LOOK_S = 1.0
"""Seconds between two looks at the store."""
REST = 4.0
"""A view that took t seconds to compute is not computed again for REST times t: that is a fifth of a core at most."""
MOST_KEPT = 200
"""Views that are kept."""
VIEWS = ("fleet", "campaigns", "session", "quality", "search", "compare", "history")

Params = Mapping[str, str]


class Hub:
    """The views of one store.

    Args:
        path: of the store.

    Raises:
        StoreError: if it cannot be read.
    """

    def __init__(self, path: StorePath) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._heavy = threading.Lock()
        """One view at a time is computed from more than the last look."""
        self._watch = StoreWatch(path)
        self._looked = time.monotonic()
        self._store = Store(path, must_exist=True)
        self._store.close()
        self._quality = QualityView(path)
        self._histories = HistoryView(self._store)
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}
        self._trouble = ""
        self._heavy_views: dict[str, Callable[[Params, float], dict[str, Any]]] = {
            "session": self._session,
            "quality": self._of_quality,
            "compare": self._compare,
            "history": self._history,
        }

    def _look(self) -> None:
        """Read the store if the last look is too long ago. A store that cannot be read is shown as it was."""
        if time.monotonic() - self._looked < LOOK_S * 0.9:
            return
        try:
            self._watch.look()
            self._trouble = ""
        except LatlabError as error:
            self._trouble = error.message
        self._looked = time.monotonic()

    def pulse(self) -> dict[str, Any]:
        """Return the time, and that of the last look at the store, in seconds since 1970; and why one failed."""
        return {
            "now": time.time(),
            "read": self._watch.looked_at,
            "trouble": self._trouble,
            "store": self.path.name if isinstance(self.path, Path) else str(self.path),
        }

    def view(self, name: str, params: Params) -> str:
        """Return a view as JSON.

        Args:
            name: one of `VIEWS`.
            params: what it is of.
        """
        key = (name, json.dumps(dict(sorted(params.items()))))
        with self._lock:
            self._look()
            now = time.time()
            if name == "fleet":
                return _json(fleet_view(self._watch, now))
            if name == "campaigns":
                return _json(campaigns_view(self._watch, now))
            if name == "search":
                return _json(search_view(self._watch, params, now))
        with self._heavy:
            until, text = self._kept.get(key, (0.0, ""))
            began = time.monotonic()
            if began < until:
                return text
            try:
                text = _json(self._heavy_views[name](params, now))
            except LatlabError as error:
                text = _json({"error": error.message})
            ended = time.monotonic()
            self._kept.pop(key, None)
            self._kept[key] = ended + max(LOOK_S * 0.9, REST * (ended - began)), text
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return text

    def metrics(self) -> str:
        """Return the state of the store for Prometheus."""
        with self._lock:
            self._look()
            return metrics_text(self._watch, time.time())

    def _session(self, params: Params, now: float) -> dict[str, Any]:
        number = params.get("session", "")
        key = params.get("campaign", ""), int(number) if number.isascii() and number.isdigit() else 0
        with self._lock:
            session = self._watch.sessions.get(key)
        if session is None:
            return {"error": "there is no such session in the store"}
        with reading(self._store) as connection:
            return session_view(connection, session, now)

    def _of_quality(self, params: Params, now: float) -> dict[str, Any]:
        with self._lock:
            sessions = list(self._watch.sessions.values())
        return self._quality.view(sessions, params)

    def _compare(self, params: Params, now: float) -> dict[str, Any]:
        with self._lock:
            sessions = list(self._watch.sessions.values())
        with reading(self._store) as connection:
            return comparison_view(connection, sessions, now)

    def _history(self, params: Params, now: float) -> dict[str, Any]:
        with self._lock:
            sessions = list(self._watch.sessions.values())
        try:
            return self._histories.view(sessions, params, now)
        finally:
            self._store.close()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
