"""What a store knows of the targets of a search, and the measuring of more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from latlab.harness.active_learning.fitted_predictor import FittedPredictor
from latlab.harness.active_learning.latency_table import measured_latencies
from latlab.harness.active_learning.session_spread import repeated, session_spread, with_sessions
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.campaigns import Measurements
from latlab.harness.search.limits import Measured
from latlab.harness.search.scoring import Predict
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import Role, Selection, Status

__all__ = ["StoreEvidence"]


class StoreEvidence:
    """The labels of a store (`rounds.Evidence`).

    Args:
        store: the store.
        targets: full targets, one for each limit; one target may have several.
        space: name of the search space.
        as_written: whether networks are exported with their dead edges.
        predictor: returns the predictor of a target, fitted to its labels.
        measure: measures architectures on all targets, in a new session if the second argument is true.
    """

    def __init__(
        self,
        store: Store,
        targets: Sequence[str],
        space: str,
        as_written: bool,
        predictor: Callable[[str], FittedPredictor],
        measure: Callable[[Sequence[str], bool], Measurements],
    ) -> None:
        self._store, self._targets, self._space, self._as_written = store, targets, space, as_written
        self._predictor, self._measure = predictor, measure

    def predicts(self) -> Sequence[Predict]:
        return [self._predictor(target).predict for target in self._targets]

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        found = []
        for target in self._targets:
            rows = self._rows(target)
            own = rows[rows["selection"] != Selection.IMPORTED]
            sessions = own.groupby("arch")["session_id"].nunique().to_dict()
            found.append(
                {
                    arch: Measured(one.latency_ms, one.stderr_ms or 0.0, sessions.get(arch, 1))
                    for arch, one in measured_latencies(rows).items()
                }
            )
        return found

    def spreads(self) -> Sequence[float]:
        return [self._spread(target) for target in self._targets]

    def unknown_spreads(self) -> dict[str, float]:
        """Return the targets on which no network was measured in two sessions, and what is assumed of them."""
        return {one: self._spread(one) for one in dict.fromkeys(self._targets) if not repeated(self._rows(one))}

    def _spread(self, target: str) -> float:
        return session_spread(self._store, target, self._rows(target)).total

    def failed(self) -> set[str]:
        found: set[str] = set()
        for target in dict.fromkeys(self._targets):
            rows = self._store.table(target=target, space=self._space, only=LABELS)
            good = set(rows.loc[rows["status"] == Status.OK, "arch"])
            found |= set(rows["arch"]) - good
        return found

    def measure(self, archs: Sequence[str], again: bool) -> None:
        if again:  # a run that was killed may have measured some already
            labels = self.labels()
            archs = [arch for arch in archs if min(each[arch].sessions for each in labels) < 2]
            if not archs:
                return
        found = self._measure(archs, again)
        if found.failures:
            first = found.failures[0]
            raise LatlabError(
                f"{first.target}: {first.message}", first.hint or "The same command continues the search."
            )

    def _rows(self, target: str) -> pd.DataFrame:
        rows = self._store.table(target=target, space=self._space, only=(*LABELS, "fingerprint_id"))
        kept = (rows["status"] == Status.OK) & (rows["role"] != Role.HOLDOUT)
        rows = rows[kept & (rows["as_written"].astype(bool) == self._as_written)]
        return with_sessions(rows)
