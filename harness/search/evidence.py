"""What a store knows of the targets of a search, and the measuring of more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from latlab.harness.active_learning.fitted_predictor import FittedPredictor
from latlab.harness.active_learning.latency_table import measured_latencies
from latlab.harness.active_learning.session_spread import ComparedSessions, repeated, with_sessions
from latlab.harness.active_learning.target_labels import LATENCY, in_place_of_latency
from latlab.harness.errors import LatlabError
from latlab.harness.fleet.campaigns import Measurements
from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.search.limits import Limit, Measured
from latlab.harness.search.scoring import Predict
from latlab.harness.store.store import Store
from latlab.harness.store.tables import LABELS
from latlab.harness.store.vocabulary import Role, Selection, Status

__all__ = ["StoreEvidence"]


class StoreEvidence:
    """The labels of a store (`rounds.Evidence`).

    Args:
        store: the store.
        limits: of the search; one target may have several.
        space: name of the search space.
        as_written: whether networks are exported with their dead edges.
        predictor: returns the predictor of a metric on a target, fitted to its labels.
        measure: measures architectures on all targets, in a new session if the second argument is true.
        resolve: adds passes to architectures on one target, until it is certain which are below so many ms.
    """

    def __init__(
        self,
        store: Store,
        limits: Sequence[Limit],
        space: str,
        as_written: bool,
        predictor: Callable[[str, str], FittedPredictor],
        measure: Callable[[Sequence[str], bool], Measurements],
        resolve: Callable[[str, float, Sequence[str]], Measurements],
    ) -> None:
        self._store, self._limits, self._space, self._as_written = store, limits, space, as_written
        self._predictor, self._measure, self._resolve = predictor, measure, resolve

    def predicts(self) -> Sequence[Predict]:
        return [self._predictor(limit.target, limit.metric).predict for limit in self._limits]

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        found = []
        for limit in self._limits:
            rows = self._rows(limit)
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
        return [self._spread(limit) for limit in self._limits]

    def unknown_spreads(self) -> dict[str, float]:
        """Return the targets on which no network was measured in two sessions, and what is assumed of them."""
        return {one.target: self._spread(one) for one in self._limits if not repeated(self._rows(one))}

    def _spread(self, limit: Limit) -> float:
        return ComparedSessions(self._store, limit.target, self._rows(limit)).spread().total

    def failed(self) -> set[str]:
        """Return the networks that cannot be measured, or of which the device does not tell a metric with a limit."""
        found: set[str] = set()
        for limit in self._limits:
            rows = self._store.table(target=limit.target, space=self._space, only=(*LABELS, limit.metric))
            good = in_place_of_latency(rows[rows["status"] == Status.OK], limit.metric)
            found |= set(rows["arch"]) - set(good["arch"])
        return found

    def measure(self, archs: Sequence[str], again: bool) -> Sequence[TargetFailure]:
        if again:  # a run that was killed may have measured some already
            labels = self.labels()
            archs = [arch for arch in archs if min(each[arch].sessions for each in labels) < 2]
            if not archs:
                return ()
        return self._some_failed(self._measure(archs, again).failures)

    def resolve(self, archs: Sequence[str]) -> Sequence[TargetFailure]:
        failures: list[TargetFailure] = []
        for limit in self._limits:
            if limit.metric != LATENCY:  # further passes say nothing of it
                continue
            try:
                failures += self._resolve(limit.target, limit.max_ms, archs).failures
            except LatlabError as error:
                failures.append(TargetFailure(limit.target, error.message, error.hint))
        return self._some_failed(failures)

    def _some_failed(self, failures: Sequence[TargetFailure]) -> Sequence[TargetFailure]:
        """Return the targets that failed. Raises `LatlabError` if that is all of them."""
        targets = {limit.target for limit in self._limits}
        if failures and targets == {one.target for one in failures}:
            told = "\n".join(f"{one.target}: {one.message}" for one in failures)
            hints = dict.fromkeys(one.hint for one in failures if one.hint)
            raise LatlabError(told, "\n".join(hints) or "The same command continues the search.")
        return failures

    def _rows(self, limit: Limit) -> pd.DataFrame:
        needed = (*LABELS, "fingerprint_id", limit.metric)
        rows = self._store.table(target=limit.target, space=self._space, only=needed)
        kept = (rows["status"] == Status.OK) & (rows["role"] != Role.HOLDOUT)
        rows = rows[kept & (rows["as_written"].astype(bool) == self._as_written)]
        return with_sessions(in_place_of_latency(rows, limit.metric))
