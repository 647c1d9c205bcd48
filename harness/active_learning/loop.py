"""The closed loop: choose the most informative network, measure it, refit the predictor, until the budget is spent.

Choosing and measuring overlap. A proposal is made whenever an export can start, and earlier proposals without a latency
count as measured. That is possible because the choice depends on the posterior variance, which latencies influence only
through the predictor's hyper-parameters.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from latlab.harness.active_learning.expected_accuracy import ExpectedAccuracy, Labels, expected_accuracy
from latlab.harness.active_learning.network_view import NetworkView
from latlab.harness.active_learning.source_devices import ENOUGH_LABELS
from latlab.harness.active_learning.stopping import FEWEST, MORE, Goal, GoalKind, Standing
from latlab.harness.errors import BadInputError
from latlab.harness.store.comparable import comparable
from latlab.harness.store.vocabulary import Role, Status
from latlab.predictors import Prediction, Predictor, create
from latlab.predictors.acquisition import CANDIDATES, FROM_PRIOR, REFERENCE, choose
from latlab.predictors.common.metrics import mape_percent, spearman
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["ClosedLoop", "refitted"]

FAILURES_PER_BUDGET = 1.0
"""Most failed networks that are replaced, per network of the budget. If more fail, the networks are not to blame."""

NEAR = 0.1
"""Standard deviation, in log-latency, of what counts as near the latency around which accuracy is wanted."""
ELSEWHERE = 0.01
"""What accuracy at any other network is worth, as a share of the most."""


class ClosedLoop:
    """The state of a closed loop: it proposes what to measure next, and fits the predictor to what was measured.

    Args:
        space: the search space.
        predictor: a predictor that is pre-trained already, or the name of one that needs no source devices.
        budget: number of networks to measure.
        seed: seed of the random candidates.
        exclude: architectures that must not be proposed (the hold-out).
        goals: the first one that is reached ends the loop before its budget is spent.
        as_written: whether networks are exported as published, with their dead edges (`NetworkView`).
        pool: the networks that can be measured, and that stand for the space, e.g. those of a table; None for all.
        near_ms: latency around which accuracy is wanted; None for the whole space.
        elapsed_s: returns the seconds that the measurements have taken and will take for what is under way; by default
            the time since the loop was made.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: str | Predictor,
        *,
        budget: int,
        seed: int = 0,
        exclude: Sequence[Architecture] = (),
        goals: Sequence[Goal] = (),
        as_written: bool = False,
        pool: Sequence[Architecture] | None = None,
        near_ms: float | None = None,
        elapsed_s: Callable[[], float] | None = None,
        chosen: Sequence[Architecture] | None = None,
    ) -> None:
        self.space = space
        self.predictor = create(predictor, space, seed=seed) if isinstance(predictor, str) else predictor
        self._budget, self.goals, self.as_written = budget, tuple(goals), as_written
        self._near_ms = near_ms
        self._elapsed_s = elapsed_s or partial(_since, time.monotonic())
        self.view = NetworkView(self.predictor, as_written)
        """Returns an architecture in the form that the predictor sees."""
        known = None if pool is None else set(pool)
        self._wanted = dict.fromkeys(arch for arch in self.predictor.wanted() if known is None or arch in known)
        self._reference = space.genes(self.view.all(_drawn(space, pool, REFERENCE, f"reference/{seed}")))
        drawn = _drawn(space, pool, CANDIDATES + len(exclude), f"candidates/{seed}")
        self._banned = set(self.view.all(exclude))
        designed = [arch for arch in space.designed() if known is None or arch in known]
        self._designed = [view for view in self.view.all(designed) if view not in self._banned]
        banned = {*self._banned, *(space.canonical(arch) for arch in self._wanted), *self._wanted}
        views = dict.fromkeys(view for view in self.view.all(drawn) if view not in banned)
        self._candidates = list(views)[:CANDIDATES]
        self._chosen = None if chosen is None else [view for view in self.view.all(chosen) if view not in self._banned]
        self._pending: dict[Architecture, None] = {}
        self._measured: dict[Architecture, tuple[float, float | None]] = {}
        self._failed: set[Architecture] = set()
        self._imported: set[Architecture] = set()
        self._fitted: int | None = None
        """Number of labels at the last fit; None before the first fit."""
        self._changed = False
        """Whether labels have changed since the last fit."""
        self.reached: Goal | None = None
        """The goal that has ended the loop."""
        self.session_variance = 0.0
        """Variance of log-latencies that a new measurement session adds to predictions (`session_spread`)."""

    @property
    def measured(self) -> int:
        """Number of networks with a latency."""
        return len(self._measured)

    @property
    def imported(self) -> int:
        """Number of networks whose only latency is imported; they are no part of the budget."""
        return len(self._imported)

    @property
    def proposed(self) -> int:
        """Number of networks of the budget that are measured or under way."""
        return self.measured - self.imported + len(self._pending)

    @property
    def failed(self) -> int:
        """Number of networks that failed."""
        return len(self._failed)

    def support(self) -> list[Architecture]:
        """Return the architectures with a latency, as the predictor sees them, in the order of measuring."""
        return list(self._measured)

    def support_ms(self) -> np.ndarray:
        """Return the latencies of `support` in ms."""
        return np.array([latency for latency, _ in self._measured.values()])

    def support_stderr_ms(self) -> np.ndarray:
        """Return the standard errors of these in ms, 0 where they are not known."""
        return np.array([stderr or 0.0 for _, stderr in self._measured.values()])

    def label_noise_percent(self) -> float:
        """Return the median standard error of the labels, as a percentage of the label."""
        return float(100 * np.median(self.support_stderr_ms() / self.support_ms()))

    def record(self, arch: str, status: str, latency_ms: float | None, stderr_ms: float | None) -> None:
        """Take in a finished row, or a running row with its latency so far. Times are in ms."""
        view = self.view(self.space.parse(arch))
        self._pending.pop(view, None)
        self._changed = True
        self._imported.discard(view)
        if status in (Status.OK, Status.RUNNING) and latency_ms is not None:
            self._measured[view] = (latency_ms, _known(stderr_ms))
        else:
            self._measured.pop(view, None)
            self._failed.add(view)

    def give(self, arch: str, latency_ms: float, stderr_ms: float | None) -> None:
        """Take in a label that the user has imported: it is learnt from, never proposed, and no part of the budget."""
        view = self.view(self.space.parse(arch))
        if view not in self._banned and view not in self._measured:
            self._measured[view] = (latency_ms, _known(stderr_ms))
            self._imported.add(view)
            self._changed = True

    def expect(self, archs: Sequence[str]) -> None:
        """Count architectures as proposed already, because an earlier run has left them unfinished."""
        self._pending.update(dict.fromkeys(self.view(self.space.parse(arch)) for arch in archs))

    def proposals(self) -> Iterator[str]:
        """Yield the architectures to measure next, each chosen by what is known when it is asked for.

        First come the architectures that the predictor needs (`Predictor.wanted`), then those of the space's own design
        (`SearchSpace.designed`). Others among the first `FROM_PRIOR` are chosen by the prior alone, which makes them
        diverse.
        """
        designed = self._designed if self._chosen is None else []
        # Goals come first, so that one that is reached with the last network of the budget is named.
        while not self.good_enough() and self.proposed < self._budget:
            if self.failed > FAILURES_PER_BUDGET * self._budget:
                return
            taken = {*self._measured, *self._pending, *self._failed}
            required = next((arch for arch in (*self._wanted, *designed) if arch not in taken), None)
            if required is not None:
                self._pending[required] = None
                yield required.text
                continue
            if self._chosen is not None:
                following = next((arch for arch in self._chosen if arch not in taken), None)
                if following is None:
                    return
                self._pending[following] = None
                yield following.text
                continue
            candidates = [arch for arch in self._candidates if arch not in taken]
            if not candidates:
                return
            if self._fitted is None or len(taken) >= FROM_PRIOR:
                self.fit()
            # Labels since the last fit do not influence the predictor yet, but their networks count as measured.
            pending = [*list(self._measured)[self._fitted or 0 :], *self._pending]
            chosen = choose(
                self.predictor,
                candidates,
                self._reference,
                1,
                pending,
                importance=self._importance(),
            )
            arch = candidates[chosen[0]]
            self._pending[arch] = None
            yield arch.text

    def _importance(self) -> np.ndarray | None:
        """Return how much accuracy at each network of the reference sample is worth; None if all are worth the same.

        With a latency that accuracy is wanted near, it is the probability density that the network is that fast.
        """
        if self._near_ms is None or len(self._measured) < FROM_PRIOR:
            return None
        prediction = self.predictor.predict(self._reference)
        variance = np.log1p((prediction.std_ms / prediction.mean_ms) ** 2) + NEAR**2
        density = np.exp(-(np.log(prediction.mean_ms / self._near_ms) ** 2) / (2 * variance)) / np.sqrt(variance)
        return np.asarray(density + ELSEWHERE * max(float(density.max()), 1e-12))

    def good_enough(self) -> bool:
        """Return whether a goal is reached, and remember which."""
        self.reached = next((goal for goal in self.goals if self._is_reached(goal)), None)
        return self.reached is not None

    def _is_reached(self, goal: Goal) -> bool:
        if goal.kind == GoalKind.SAMPLES:
            return self.proposed >= goal.value
        if goal.kind == GoalKind.TIME:
            return self._elapsed_s() >= goal.value
        return self.measured >= FEWEST and goal.expected(self.accuracy()).value >= goal.value

    def accuracy(self, *, more: int = 0, exact: bool = False) -> ExpectedAccuracy:
        """Return how accurate the predictor expects to be, after a fit to all labels.

        Args:
            more: number of further labels that it is to have, those of networks under way included.
            exact: as if its fit were exact, so that only noise and misfit are left.
        """
        self.fit(always=True)
        taken = {*self._measured, *self._pending, *self._failed}
        open_ = [arch for arch in self._candidates if arch not in taken] if more else []
        return expected_accuracy(
            self.predictor,
            self._reference,
            Labels.of(self.predictor, self.support_ms(), more=more),
            candidates=self.space.genes(open_),
            pending=list(self._pending) if more else (),
            more=max(more - len(self._pending), 0),
            exact=exact,
        )

    def standings(self) -> list[Standing]:
        """Return where the goals of accuracy stand, and what more networks would bring; from `FEWEST` labels on."""
        goals = [goal for goal in self.goals if goal.is_accuracy]
        return [self.standing_of(goal) for goal in goals] if self.measured >= FEWEST else []

    def standing_of(self, goal: Goal) -> Standing:
        """Return where a goal of accuracy stands."""
        now, then, limit = self.accuracy(), self.accuracy(more=MORE), self.accuracy(more=MORE, exact=True)
        return Standing(goal, goal.expected(now), goal.expected(then).value, goal.expected(limit).value)

    def expected_error_percent(self) -> float:
        """Return the median, over the space, of the predictions' relative standard deviations, in percent.

        A mean would be that of the few networks that a runtime folds to nothing.
        """
        prediction = self.predictor.predict(self._reference)
        return float(100 * np.median(prediction.std_ms / prediction.mean_ms))

    def use(self, predictor: Predictor) -> None:
        """Go on with another predictor of the same kind, e.g. one that was pre-trained on more devices."""
        self.predictor = predictor
        self._changed = True
        self.fit(always=True)

    def fit(self, *, always: bool = False) -> Predictor:
        """Fit the predictor to all measurements, and return it.

        Args:
            always: whether to fit even if the measurements have not grown by a tenth since the last fit; below 50
                measurements, every call fits.
        """
        enough = always or self.measured < 50 or self.measured >= 1.1 * (self._fitted or 0)
        if enough and (self._changed or self._fitted is None):
            self.predictor.adapt(self.support(), self.support_ms(), self.support_stderr_ms())
            self._fitted, self._changed = self.measured, False
        return self.predictor

    def predict(self, archs: Sequence[Architecture]) -> Prediction:
        """Predict the latencies of architectures in another session, by the last fit."""
        found = self.predictor.predict(self.space.genes(self.view.all(archs)))
        return found.widened(self.session_variance)

    @property
    def fitted(self) -> int:
        """Number of labels at the last fit; 0 before the first one."""
        return self._fitted or 0

    def standing_now(self) -> dict[str, float] | None:
        """Return a point of the learning curve from the last fit, without another one; None below three labels.

        Columns as in `learning_curve`; the hold-out is not known yet.
        """
        if self.fitted < 3 or self.fitted > self.measured:
            return None
        left_out, latency_ms = self.predictor.leave_one_out().mean_ms, self.support_ms()[: self.fitted]
        if len(left_out) != self.fitted:
            return None
        return {
            "n": self.fitted,
            "loo_spearman": spearman(left_out, latency_ms),
            "loo_mape_percent": mape_percent(left_out, latency_ms),
            "holdout_spearman": float("nan"),
        }

    def learning_curve(self, holdout: Sequence[Architecture], holdout_ms: ArrayLike) -> pd.DataFrame:
        """Return how good the predictor was after the first n measurements, for up to 25 values of n.

        Args:
            holdout: architectures of the hold-out; may be empty.
            holdout_ms: their latencies in ms.

        Returns:
            Columns n, loo_spearman, loo_mape_percent (both leave-one-out), holdout_spearman (NaN without a hold-out).
        """
        curve = _learning_curve(
            self.predictor,
            self.support(),
            self.support_ms(),
            self.support_stderr_ms(),
            self.view.all(holdout),
            np.asarray(holdout_ms, dtype=np.float64),
        )
        self._changed = True  # the predictor is fitted to fewer labels
        self.fit(always=True)
        return curve


def _since(start: float) -> float:
    return time.monotonic() - start


def _drawn(space: SearchSpace, pool: Sequence[Architecture] | None, count: int, seed: str) -> list[Architecture]:
    """Return at most `count` random networks of the space, or of the pool."""
    if pool is None or len(pool) == space.size:  # then the pool is the space
        return space.sample(min(count, space.size), random.Random(seed))
    return random.Random(seed).sample(pool, min(count, len(pool)))


def _known(stderr_ms: float | None) -> float | None:
    """Return a standard error, or None where a table has NaN because it is not known."""
    return None if stderr_ms is None or np.isnan(stderr_ms) else stderr_ms


def refitted(space: SearchSpace, rows: pd.DataFrame, predictor: str | Predictor) -> ClosedLoop | None:
    """Return a loop that is fitted to stored rows of one target and space (`Store.table`); None if there are none.

    Rows of the hold-out are left out. Of the others only `comparable` ones are used, because labels of different
    policies must not be pooled, and of those at most `ENOUGH_LABELS` networks, chosen at random but the same each time:
    with 4,500 instead of 2,000 the error of `roost` is 1 to 3 % smaller, and the time and the memory grow with them.

    Raises:
        BadInputError: if the predictor cannot be fitted to these rows.
    """
    rows = rows[(rows["status"] == Status.OK) & (rows["role"] != Role.HOLDOUT)]
    if rows.empty:
        return None
    alike = comparable(rows)
    loop = ClosedLoop(space, predictor, budget=0, as_written=bool(alike["as_written"].iloc[0]))
    archs = alike["arch"].drop_duplicates()
    if len(archs) > ENOUGH_LABELS:
        wanted = {arch.text for arch in loop.predictor.wanted()}
        alike = alike[alike["arch"].isin({*archs.sample(ENOUGH_LABELS, random_state=0), *wanted})]
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
    """Refit the predictor to the first n measurements, for up to `points` values of n from 3 on (`learning_curve`)."""
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
