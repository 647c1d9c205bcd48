"""The rounds of a search: look at the candidates, measure the best of them, learn, until the answer stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.search.accuracy import AccuracySource, Remembered
from latlab.harness.search.candidates import Candidates
from latlab.harness.search.choice import finalists_to_measure
from latlab.harness.search.limits import Constraints, Measured
from latlab.harness.search.looking import Follow
from latlab.harness.search.notes import Look
from latlab.harness.search.result import Finalist, Found, SearchCosts, SearchResult
from latlab.harness.search.scoring import Genes, Predict, Scorer, Scores, network_costs
from latlab.harness.search.state import Progress, SearchFolder
from latlab.harness.search.under_limits import under_limits
from latlab.harness.text import count
from latlab.search_spaces import SearchSpace

__all__ = ["Evidence", "Search", "SearchPlan"]

UNLIKELY = 0.02
"""If no candidate keeps the limits with this probability, measuring is in vain."""
WORTH = 0.5
"""A more accurate candidate is worth a measurement if it keeps the limits rather than not."""
SHARE = 3
"""A round measures this share of the budget that is left."""
LEAST = 2
"""Fewest networks of a round: a device waits for the first export of each."""
SESSIONS = 2
"""Sessions in which the answer must have been measured, if the budget permits: one cannot show how they differ."""
FRONT = 300
"""Most networks of the predicted front in a result."""


class Evidence(Protocol):
    """What is known of the targets of a search, in the order of its limits, and the way to know more."""

    def predicts(self) -> Sequence[Predict]:
        """Return a predictor of each target, fitted to all labels there are now."""
        ...

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        """Return the labels of each target, by canonical string."""
        ...

    def spreads(self) -> Sequence[float]:
        """Return the relative deviation from one session to the next of each target."""
        ...

    def failed(self) -> set[str]:
        """Return the networks that cannot be measured."""
        ...

    def measure(self, archs: Sequence[str], again: bool) -> Sequence[TargetFailure]:
        """Measure networks on all targets, those that have labels only if `again`, in a new session.

        Returns:
            The targets that failed, of which there are others that did not.

        Raises:
            LatlabError: all targets failed.
        """
        ...

    def resolve(self, archs: Sequence[str]) -> Sequence[TargetFailure]:
        """Add passes to those networks of which it is not certain on which side of a target's limit they are.

        Returns, raises: as `measure`.
        """
        ...


@dataclass(frozen=True)
class SearchPlan:
    """What is searched for, and how."""

    space: SearchSpace
    constraints: Constraints
    accuracy: AccuracySource
    candidates: Candidates
    scope: str
    """The candidates in words."""
    budget: int
    """Most networks to measure; 0 for none."""
    top: int = 5
    seed: int = 0
    as_written: bool = False
    """Whether networks keep their dead edges."""
    resolve: bool = False
    """Whether passes are added to the best measured networks until it is certain which of them keep the limits."""
    confirm: bool = True
    """Whether the answer is measured in a second session, for which the last network of the budget is kept."""


@dataclass(frozen=True)
class _Known:
    """The measured networks with a known accuracy: m networks, t targets."""

    archs: list[str]
    genes: Genes
    accuracy: NDArray[np.float64]
    labels: list[tuple[Measured, ...]]
    probability: NDArray[np.float64]
    """Shape (m,): that one more session would find all limits kept; 0 for networks with too many MACs or parameters."""


@dataclass(frozen=True)
class _View:
    """What is known after a look."""

    known: _Known
    scores: Scores
    predicts: Sequence[Predict]
    spreads: Sequence[float]
    leader: int | None
    """The row of the best measured network that keeps the limits."""
    population: Genes
    """Where the next look begins."""


class Search:
    """A search in progress.

    Args:
        plan: what is searched for.
        evidence: what is known of the targets.
        folder: where its state is kept.
        follow: called while candidates are looked at.
        announce: called with sentences about what is done next.
        note: called with what is known after each look.
    """

    def __init__(
        self,
        plan: SearchPlan,
        evidence: Evidence,
        folder: SearchFolder,
        follow: Follow | None = None,
        announce: Callable[[str], None] | None = None,
        note: Callable[[Look], None] | None = None,
    ) -> None:
        self.plan, self.evidence, self.folder = plan, evidence, folder
        self._note = note
        self._follow, self._announce = follow, announce
        self._accuracy = plan.accuracy
        if not plan.accuracy.quick:
            self._accuracy = Remembered(plan.accuracy, folder.accuracies, folder.save_accuracies)
        self._start = time.monotonic()
        self._failures: tuple[TargetFailure, ...] = ()
        self._scored = 0
        self._looking_s = 0.0

    def run(self) -> SearchResult:
        """Search until the answer stands or the budget is spent, and return what was found.

        If one of several targets fails, the search ends with what is known. What was measured is stored, and the same
        search goes on later.

        Raises:
            BadInputError: no candidate can keep the limits.
            LatlabError: all targets failed.
        """
        progress = self.folder.progress
        while True:
            if progress.asked:
                self._measure(progress)
            view = self._look(progress)
            if self._failures:
                break
            asked, again = self._next(view, self.plan.budget - progress.spent)
            doubtful = self._doubtful(view) if again or not asked else []
            if doubtful:
                self._resolve(doubtful, progress)
            elif asked:
                progress.asked, progress.again = asked, again
                # Only now: a search that has ended looks the same way when it is run again.
                progress.population = [self.plan.space.from_genes(row).text for row in view.population]
                self.folder.save()
            else:
                break
        self.folder.save()
        self.folder.save_accuracies(always=True)
        return self._result(view)

    def _measure(self, progress: Progress) -> None:
        if self._announce is not None:
            what = "once more in a new session" if progress.again else "the best and the most promising candidates"
            self._announce(f"round {progress.round + 1}: measuring {count(len(progress.asked), 'network')}, {what}")
        start = time.monotonic()
        self._failures = tuple(self.evidence.measure(progress.asked, progress.again))
        progress.measuring_s += time.monotonic() - start
        if self._failures:  # what was asked for is asked for again when the search goes on
            return
        progress.spent += len(progress.asked)
        progress.round += 1
        progress.asked, progress.again = [], False

    def _doubtful(self, view: _View) -> list[str]:
        """Return the best measured networks that may be on either side of a limit, as far as their order matters.

        They are at least as accurate as the best one that keeps the limits, that one included, and passes were not
        added to them before.
        """
        if not self.plan.resolve:
            return []
        known = view.known
        matters = (known.probability >= UNLIKELY) & (known.probability <= 1 - UNLIKELY)
        if view.leader is not None:
            matters &= known.accuracy >= known.accuracy[view.leader]
        rows = np.flatnonzero(matters)
        rows = rows[np.argsort(-known.accuracy[rows], kind="stable")][: self.plan.top]
        done = set(self.folder.progress.resolved)
        return [known.archs[row] for row in rows if known.archs[row] not in done]

    def _resolve(self, archs: list[str], progress: Progress) -> None:
        if self._announce is not None:
            self._announce(f"adding passes where it is not certain that {count(len(archs), 'network')} keep the limit")
        start = time.monotonic()
        self._failures = tuple(self.evidence.resolve(archs))
        progress.measuring_s += time.monotonic() - start
        if not self._failures:
            progress.resolved += archs
        self.folder.save()

    def _look(self, progress: Progress) -> _View:
        """Fit the predictors to what is known, and look at the candidates."""
        plan, start = self.plan, time.monotonic()
        predicts, spreads = self.evidence.predicts(), self.evidence.spreads()
        scorer = Scorer(plan.space, self._accuracy, predicts, plan.constraints, plan.as_written)
        seed = int(np.random.SeedSequence([plan.seed % 2**64, progress.round]).generate_state(1)[0])
        first = plan.space.genes([plan.space.parse(text) for text in progress.population])
        scores, population = plan.candidates.look(scorer, seed, first, self._follow)
        self._scored += scorer.scored
        if not len(scores):
            raise scorer.impossible(scores, plan.candidates.extent, plan.candidates.advice)
        known = self._known(scorer, spreads)
        good = np.flatnonzero(known.probability >= plan.constraints.confidence)
        # Of equally accurate networks the one that keeps the limits more surely is the better one.
        good = good[np.lexsort((-known.probability[good], -known.accuracy[good]))]
        leader = int(good[0]) if len(good) else None
        likely = scores.probability.max()
        if leader is None and likely < (UNLIKELY if plan.budget else plan.constraints.confidence):
            raise scorer.impossible(scores, plan.candidates.extent, plan.candidates.advice)
        self._looking_s += time.monotonic() - start
        if self._note is not None:
            front = scores.at(scores.front())
            self._note(
                Look(progress.round, progress.spent, front.ratio, front.accuracy, known.archs, known.labels,
                     known.accuracy, leader)
            )  # fmt: skip
        return _View(known, scores, predicts, spreads, leader, population)

    def _known(self, scorer: Scorer, spreads: Sequence[float]) -> _Known:
        """Return the measured networks that may be the answer."""
        plan, labels = self.plan, self.evidence.labels()
        archs = [arch for arch in labels[0] if all(arch in other for other in labels[1:])]
        genes = plan.space.genes([plan.space.parse(arch) for arch in archs])
        allowed = plan.candidates.admits(genes)
        accuracy = np.full(len(archs), np.nan)
        if allowed.any():
            accuracy[allowed] = self._accuracy(genes[allowed])
        rows = np.flatnonzero(np.isfinite(accuracy))
        archs = [archs[row] for row in rows]
        genes = genes[rows]
        both = [tuple(each[arch] for each in labels) for arch in archs]
        limits = plan.constraints.limits
        kept = [
            np.prod([one.kept(limit.max_ms, spread) for one, limit, spread in zip(row, limits, spreads, strict=True)])
            for row in both
        ]
        probability = np.where(scorer.excess(genes) > 0, 0.0, np.array(kept, dtype=np.float64))
        return _Known(archs, genes, accuracy[rows], both, probability)

    def _next(self, view: _View, left: int) -> tuple[list[str], bool]:
        """Return which networks to measure next, and whether in a new session; none if the search is over."""
        if left <= 0:
            return [], False
        known, confidence = view.known, self.plan.constraints.confidence
        best = None if view.leader is None else float(known.accuracy[view.leader])
        unmeasured = self._unmeasured(view)
        better = unmeasured.probability >= min(confidence, WORTH)
        if view.leader is not None and best is not None:
            best += abs(best) * self.plan.candidates.tie
            better &= unmeasured.accuracy > best
            sessions = min(one.sessions for one in known.labels[view.leader])
            unconfirmed = self.plan.confirm and sessions < SESSIONS
            if unconfirmed and (left == 1 or not better.any()):
                return [known.archs[view.leader]], True
            if not better.any():
                return [], False
        size = min(left - (self.plan.confirm and left > 1), max(LEAST, -(-left // SHARE)))
        rows = finalists_to_measure(unmeasured, confidence, best, size)
        return [self.plan.space.from_genes(unmeasured.genes[row]).text for row in rows], False

    def _unmeasured(self, view: _View) -> Scores:
        done = {row.tobytes() for row in np.ascontiguousarray(view.known.genes)}
        failed = [self.plan.space.parse(arch) for arch in self.evidence.failed()]
        done |= {row.tobytes() for row in self.plan.space.genes(failed)}
        genes = np.ascontiguousarray(view.scores.genes)
        return view.scores.at(np.array([row.tobytes() not in done for row in genes], dtype=bool))

    def _result(self, view: _View) -> SearchResult:
        plan, known = self.plan, view.known
        confidence = plan.constraints.confidence
        measured = self._described(view, known.genes, known.accuracy, known.probability, known.labels)
        ranked = sorted(measured, key=_rank)
        unmeasured = self._unmeasured(view)
        progress = self.folder.progress
        if plan.budget:
            winner = ranked[0] if ranked and ranked[0].keeps else None
            best = -np.inf if winner is None else winner.accuracy + abs(winner.accuracy) * plan.candidates.tie
            better = (unmeasured.probability >= min(confidence, WORTH)) & (unmeasured.accuracy > best)
            found = Found.NOTHING if winner is None else Found.BUDGET if better.any() else Found.STANDS
        else:
            good = np.flatnonzero(view.scores.probability >= confidence)
            good = good[np.lexsort((view.scores.ratio[good], -view.scores.accuracy[good]))][: plan.top]
            chosen = view.scores.at(good)
            ranked = self._described(view, chosen.genes, chosen.accuracy, chosen.probability)
            winner, found = (ranked[0] if ranked else None), Found.UNMEASURED
        if self._failures:
            found = Found.FAILED
        front = view.scores.at(view.scores.front())
        if len(front) > FRONT:
            front = front.at(np.unique(np.linspace(0, len(front) - 1, FRONT).round().astype(int)))
        return SearchResult(
            space=plan.space.name,
            constraints=plan.constraints,
            accuracy=plan.accuracy.name,
            candidates=plan.scope,
            found=found,
            winner=winner,
            finalists=tuple([one for one in ranked if one.probability >= UNLIKELY or winner is None][: plan.top]),
            measured=tuple(measured),
            front=tuple(self._described(view, front.genes, front.accuracy, front.probability)),
            spread_percent=tuple(100 * one for one in view.spreads),
            remarks=(),
            costs=SearchCosts(
                measured=progress.spent - progress.onboarded,
                onboarded=progress.onboarded,
                resolved=len(progress.resolved),
                rounds=progress.round,
                scored=self._scored,
                looking_s=self._looking_s,
                measuring_s=progress.measuring_s,
                wall_s=time.monotonic() - self._start,
            ),
            seed=plan.seed,
            failures=self._failures,
        )

    def _described(
        self,
        view: _View,
        genes: Genes,
        accuracy: NDArray[np.float64],
        probability: NDArray[np.float64],
        labels: Sequence[tuple[Measured, ...]] | None = None,
    ) -> list[Finalist]:
        plan = self.plan
        costs = network_costs(plan.space, genes, plan.as_written)
        limits = under_limits(plan.constraints, genes, view.predicts, view.spreads, labels)
        return [
            Finalist(
                plan.space.from_genes(genes[row]).text,
                float(accuracy[row]),
                float(probability[row]),
                bool(probability[row] >= plan.constraints.confidence),
                int(costs[row, 0]),
                int(costs[row, 1]),
                latencies,
            )
            for row, latencies in enumerate(limits)
        ]


def _rank(one: Finalist) -> tuple[bool, float, float]:
    """Return what finalists are sorted by: those that keep the limits by accuracy, the others by probability."""
    return not one.keeps, -one.accuracy if one.keeps else 0.0, -one.probability
