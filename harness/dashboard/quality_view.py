"""The page of label quality: the figures of `latlab quality` for one target and space, computed beside the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from latlab.harness.dashboard.state import SessionState
from latlab.harness.errors import LatlabError
from latlab.harness.store.place import StorePath
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection

__all__ = ["QualityView", "pairs_of"]

AGAIN_S = 30.0
"""Least seconds between two assessments of the same labels, and REST times what the last one took."""
REST = 10.0
NO_LABELS = (Selection.SUSTAIN, Selection.COMPARE)


def pairs_of(sessions: Sequence[SessionState]) -> list[dict[str, Any]]:
    """Return the targets and spaces with labels, the last measured first: target, space, labels, sessions, last."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in sessions:
        if one.campaign.selection in NO_LABELS or not one.ok:
            continue
        key = one.campaign.target, one.campaign.space
        line = found.setdefault(
            key, {"target": key[0], "space": key[1], "labels": 0, "failed": 0, "sessions": 0, "last": 0.0}
        )
        line["labels"] += one.ok
        line["failed"] += one.failed
        line["sessions"] += 1
        line["last"] = max(line["last"], one.last_sign)
    return sorted(found.values(), key=lambda line: -float(line["last"]))


class QualityView:
    """Assessments of the store at `path`, one at a time, in a thread of their own."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self._known: dict[tuple[str, str], tuple[int, float, dict[str, Any]]] = {}
        """Number of labels that were assessed, when the next assessment may begin, and the figures."""
        self._busy = threading.Lock()

    def view(self, sessions: Sequence[SessionState], params: Mapping[str, str]) -> dict[str, Any]:
        """Return the targets and spaces, and the figures of the one that `params` name, or of the first."""
        pairs = pairs_of(sessions)
        key = params.get("target", ""), params.get("space", "")
        chosen = next((one for one in pairs if (one["target"], one["space"]) == key), pairs[0] if pairs else None)
        if chosen is None:
            return {"pairs": [], "chosen": None}
        key = chosen["target"], chosen["space"]
        labels, due, figures = self._known.get(key, (-1, 0.0, {}))
        if labels != chosen["labels"] and time.monotonic() >= due and self._busy.acquire(blocking=False):
            threading.Thread(target=self._assess, args=(key, chosen["labels"]), daemon=True).start()
        return {"pairs": pairs[:500], "chosen": {"target": key[0], "space": key[1]}, "assessed": labels, **figures}

    def _assess(self, key: tuple[str, str], labels: int) -> None:
        from latlab.harness.quality.assessment import assess  # its predictor is slow to import

        began = time.monotonic()
        figures: dict[str, Any]
        try:
            with Store(self._path, must_exist=True) as store:
                figures = {"quality": assess(store, *key).to_json()}
        except LatlabError as error:
            figures = {"error": error.message}
        except Exception as error:  # a damaged row must not end the assessments of all others
            figures = {"error": f"{type(error).__name__}: {error}"}
        finally:
            self._busy.release()
        ended = time.monotonic()
        self._known[key] = labels, ended + max(AGAIN_S, REST * (ended - began)), figures
