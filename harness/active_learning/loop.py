"""The closed loop: choose the most informative networks, measure them, refit, until the budget is spent.

Choosing and measuring overlap: a proposal is made whenever an export can start, with those still under way counted as
measured (their latencies do not matter to the variance that the choice is made by).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from latlab.harness.errors import BadInputError
from latlab.harness.store.comparable import comparable
from latlab.harness.store.vocabulary import Role, Status
from latlab.predictors import Prediction, Predictor, create
from latlab.predictors.acquisition import CANDIDATES, FROM_PRIOR, REFERENCE, choose
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Loop", "refitted"]

FAILURES_PER_BUDGET = 1.0
"""Failed networks are replaced, up to this many per network of the budget: then the fault is not theirs."""


class Loop:
    """Proposes what to measure next and keeps the predictor fitted to what was measured.

    Args:
        predictor: pre-trained already, or the name of one that needs no source devices.
        exclude: architectures that may not be proposed (the hold-out).
        until_percent: stop once the expected error of a prediction over the space is at most this; None: never.
        as_written: whether networks are exported with their dead edges. Without them an architecture and its
            canonical form are one network, so the predictor sees canonical forms only; but what it wants to have
            measured first, it sees as it asked for it.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: str | Predictor,
        *,
        budget: int,
        seed: int = 0,
        exclude: Sequence[Architecture] = (),
        until_percent: float | None = None,
        as_written: bool = False,
    ) -> None:
        self.space = space
        self.predictor = create(predictor, space, seed=seed) if isinstance(predictor, str) else predictor
        self._budget, self._until, self._as_written = budget, until_percent, as_written
        self._wanted = dict.fromkeys(self.predictor.wanted())
        count = min(CANDIDATES, space.size)
        reference = space.sample(min(REFERENCE, space.size), random.Random(f"reference/{seed}"))
        self._reference = space.genes(self._views(reference))
        drawn = space.sample(min(count + len(exclude), space.size), random.Random(f"candidates/{seed}"))
        banned = {*self._views(exclude), *(space.canonical(arch) for arch in self._wanted), *self._wanted}
        views = dict.fromkeys(view for view in self._views(drawn) if view not in banned)
        self._candidates = list(views)[:count]
        self._pending: dict[Architecture, None] = {}
        self._measured: dict[Architecture, tuple[float, float | None]] = {}
        self._failed: set[Architecture] = set()
        self._fitted: int | None = None
        """Labels that the predictor was fitted to last; None before the first fit."""

    def view(self, arch: Architecture) -> Architecture:
        """The architecture as the predictor should see it."""
        return arch if self._as_written or arch in self._wanted else self.space.canonical(arch)

    def _views(self, archs: Sequence[Architecture]) -> list[Architecture]:
        return [self.view(arch) for arch in archs]

    @property
    def measured(self) -> int:
        return len(self._measured)

    @property
    def failed(self) -> int:
        return len(self._failed)

    def support(self) -> list[Architecture]:
        """What is measured, as the predictor sees it, in the order of measuring."""
        return list(self._measured)

    def support_ms(self) -> np.ndarray:
        """Latencies of `support`."""
        return np.array([latency for latency, _ in self._measured.values()])

    def _support_stderr_ms(self) -> np.ndarray:
        return np.array([stderr or 0.0 for _, stderr in self._measured.values()])

    def label_noise_percent(self) -> float:
        """Median standard error of the labels, relative to them."""
        return float(100 * np.median(self._support_stderr_ms() / self.support_ms()))

    def record(self, arch: str, status: str, latency_ms: float | None, stderr_ms: float | None) -> None:
        """Take in a finished row, or a running one with its latency so far."""
        view = self.view(self.space.parse(arch))
        self._pending.pop(view, None)
        if status in (Status.OK, Status.RUNNING) and latency_ms is not None:
            self._measured[view] = (latency_ms, stderr_ms)
        else:
            self._measured.pop(view, None)
            self._failed.add(view)

    def expect(self, archs: Sequence[str]) -> None:
        """Count architectures as proposed already (an earlier run left them unfinished)."""
        self._pending.update(dict.fromkeys(self.view(self.space.parse(arch)) for arch in archs))

    def proposals(self) -> Iterator[str]:
        """What to measure next, one at a time, by what is known when asked.

        First what the predictor must have; the next few are chosen by the prior alone, which makes them diverse.
        """
        while self.measured + len(self._pending) < self._budget:
            if self.failed > FAILURES_PER_BUDGET * self._budget or self.good_enough():
                return
            taken = {*self._measured, *self._pending, *self._failed}
            asked_for = next((arch for arch in self._wanted if arch not in taken), None)
            if asked_for is not None:
                self._pending[asked_for] = None
                yield asked_for.text
                continue
            candidates = [arch for arch in self._candidates if arch not in taken]
            if not candidates:
                return
            if self._fitted is None or len(taken) >= FROM_PRIOR:
                self.fit()
            # Labels since the last fit have no say yet, but their networks count as measured.
            pending = [*list(self._measured)[self._fitted or 0 :], *self._pending]
            arch = candidates[choose(self.predictor, candidates, self._reference, 1, pending)[0]]
            self._pending[arch] = None
            yield arch.text

    def good_enough(self) -> bool:
        """Whether the expected error over the space has come down to what was asked for."""
        if self._until is None or self.measured < 5:
            return False
        self.fit(always=True)
        return self.expected_error_percent() <= self._until

    def expected_error_percent(self) -> float:
        """Root mean square of the predictions' relative standard deviation over the space."""
        prediction = self.predictor.predict(self._reference)
        return float(100 * np.sqrt(np.mean((prediction.std_ms / prediction.mean_ms) ** 2)))

    def fit(self, *, always: bool = False) -> Predictor:
        """Fit to all that is measured; without `always` only where that has grown by a tenth."""
        if always or self.measured < 50 or self.measured >= 1.1 * (self._fitted or 0):
            self.predictor.adapt(self.support(), self.support_ms(), self._support_stderr_ms())
            self._fitted = self.measured
        return self.predictor

    def predict(self, archs: Sequence[Architecture]) -> Prediction:
        return self.predictor.predict(self.space.genes(self._views(archs)))

    def learning_curve(self, holdout: Sequence[Architecture], holdout_ms: ArrayLike) -> pd.DataFrame:
        """How the predictor grew: columns n, loo_spearman, loo_mape_percent, holdout_spearman (NaN without one)."""
        curve = _learning_curve(
            self.predictor,
            self.support(),
            self.support_ms(),
            self._support_stderr_ms(),
            self._views(holdout),
            np.asarray(holdout_ms, dtype=np.float64),
        )
        self.fit(always=True)
        return curve


def refitted(space: SearchSpace, rows: pd.DataFrame, predictor: str | Predictor) -> Loop | None:
    """A loop fitted to stored rows of one target and space (`Store.table`); None where there are none.

    Not to the hold-out, and to rows that are `comparable` only: labels of different policies are never pooled.
    """
    rows = rows[(rows["status"] == Status.OK) & (rows["role"] != Role.HOLDOUT)]
    if rows.empty:
        return None
    alike = comparable(rows)
    loop = Loop(space, predictor, budget=0, as_written=bool(alike["as_written"].iloc[0]))
    for row in alike.to_dict("records"):
        loop.record(row["arch"], Status.OK, row["latency_ms"], row["stderr_ms"])
    try:
        loop.fit(always=True)
    except ValueError as error:
        raise BadInputError(
            f"the predictor {loop.predictor.name} cannot be fitted to the {loop.measured} measurements here: {error}",
            "`latlab onboard` with this predictor measures what it needs; --predictor chooses another.",
        ) from error
    return loop


def _learning_curve(
    predictor: Predictor,
    support: Sequence[Architecture],
    latency_ms: np.ndarray,
    stderr_ms: np.ndarray,
    holdout: Sequence[Architecture],
    holdout_ms: np.ndarray,
    points: int = 25,
) -> pd.DataFrame:
    """The predictor refitted to the first n measurements, for up to `points` values of n from 3 on."""
    rows = []
    sizes = sorted({round(n) for n in np.linspace(3, len(support), points)}) if len(support) >= 3 else []
    for n in sizes:
        predictor.adapt(support[:n], latency_ms[:n], stderr_ms[:n])
        left_out = predictor.leave_one_out().mean_ms
        rows.append(
            {
                "n": n,
                "loo_spearman": spearman(left_out, latency_ms[:n]),
                "loo_mape_percent": mape_percent(left_out, latency_ms[:n]),
                "holdout_spearman": spearman(predictor.predict(holdout).mean_ms, holdout_ms)
                if len(holdout)
                else float("nan"),
            }
        )
    return pd.DataFrame(rows, columns=["n", "loo_spearman", "loo_mape_percent", "holdout_spearman"])
