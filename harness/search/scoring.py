"""The scores of candidates: accuracy, predicted latencies, and the probability that they keep the limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from latlab.harness.errors import BadInputError
from latlab.harness.search.accuracy import AccuracySource
from latlab.harness.search.limits import Constraints, kept, kept_jointly, unit_symbol
from latlab.predictors import Prediction
from latlab.predictors.common.cost_totals import totals
from latlab.search_spaces import SearchSpace

__all__ = ["Genes", "Predict", "Scorer", "Scores", "network_costs"]

Genes = NDArray[np.int64]
Floats = NDArray[np.float64]
Predict = Callable[[Genes], Prediction]
"""A fitted predictor of one target: genes (n, genes) -> n latencies with intervals."""

CHUNK = 20_000
"""Most candidates that are scored at once."""


@dataclass(frozen=True)
class Scores:
    """The scores of n candidates; each array has the candidate as its first axis."""

    genes: Genes
    accuracy: Floats
    latency_ms: Floats
    """Shape (n, targets)."""
    probability: Floats
    """Probability that all limits are kept; 0 for networks with too many MACs or parameters."""
    ratio: Floats
    """Greatest of latency / limit over the targets."""
    excess: Floats
    """Logarithm of how many times too many MACs and parameters there are, summed; 0 for networks with few enough."""

    def __len__(self) -> int:
        return len(self.genes)

    def at(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Scores:
        """Return the scores of some candidates."""
        return Scores(*(getattr(self, one.name)[rows] for one in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Return the scores of all parts."""
        return Scores(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Scores)))

    def front(self) -> NDArray[np.intp]:
        """Return the Pareto front: candidates than which none is as fast and more accurate, the fastest first."""
        order = np.lexsort((-self.accuracy, self.ratio))
        order = order[self.excess[order] == 0]
        best = np.maximum.accumulate(self.accuracy[order])
        rises = np.concatenate([[True], best[1:] > best[:-1]]) if len(order) else np.zeros(0, bool)
        return np.asarray(order[rises])


def network_costs(space: SearchSpace, genes: Genes, as_written: bool) -> Floats:
    """Return multiply-accumulates and parameters of the networks that are timed: shape (n, 2).

    Args:
        as_written: whether networks keep their dead edges; else these cost nothing.
    """
    return totals(space)(genes if as_written else space.canonical_genes(genes), "macs", "params")


class Scorer:
    """Scores candidates.

    Args:
        space: the search space.
        accuracy: the source of accuracies.
        predicts: a fitted predictor for each of the limits.
        constraints: the limits.
        as_written: whether networks keep their dead edges.
    """

    def __init__(
        self,
        space: SearchSpace,
        accuracy: AccuracySource,
        predicts: Sequence[Predict],
        constraints: Constraints,
        as_written: bool = False,
    ) -> None:
        self.space, self.constraints, self.accuracy, self._as_written = space, constraints, accuracy, as_written
        self._predicts = predicts
        self.scored = 0
        """Number of candidates that were scored."""

    def __call__(self, genes: Genes) -> Scores:
        """Return the scores of those candidates whose accuracy is known."""
        parts = [self._part(genes[start : start + CHUNK]) for start in range(0, len(genes), CHUNK)]
        found = Scores.joined(parts) if parts else self._part(genes)
        self.scored += len(genes)
        return found

    def _part(self, genes: Genes) -> Scores:
        accuracy = self.accuracy(genes)
        known = np.isfinite(accuracy)
        if not known.all():
            genes, accuracy = genes[known], accuracy[known]
        predictions = [predict(genes) for predict in self._predicts]
        limits = [limit.max_ms for limit in self.constraints.limits]
        latency = np.stack([one.mean_ms for one in predictions], axis=1)
        probability = kept_jointly([kept(one, most) for one, most in zip(predictions, limits, strict=True)])
        ratio = np.asarray((latency / limits).max(axis=1))
        excess = self.excess(genes)
        return Scores(genes, accuracy, latency, np.where(excess > 0, 0.0, probability), ratio, excess)

    def excess(self, genes: Genes) -> Floats:
        """Return how far networks are above the most MACs and parameters (`Scores.excess`): shape (n,)."""
        found = np.zeros(len(genes))
        most = (self.constraints.max_macs, self.constraints.max_params)
        if any(most) and len(genes):
            costs = network_costs(self.space, genes, self._as_written)
            for place, allowed in enumerate(most):
                if allowed is not None:
                    found += np.log(np.maximum(costs[:, place] / allowed, 1.0))
        return found

    def impossible(self, scores: Scores, extent: str, advice: str = "") -> BadInputError:
        """Return the error that no candidate keeps the limits, which says what is possible.

        Args:
            scores: of the candidates.
            extent: of what they are all, such as `of the space`.
            advice: what else helps, a sentence.
        """
        limits = self.constraints.limits
        if not len(scores):
            return BadInputError("no candidate has a known accuracy", "The source must know networks of this space.")
        if (scores.excess > 0).all():
            costs = network_costs(self.space, scores.genes, self._as_written).min(axis=0)
            return BadInputError(
                f"no candidate of {self.space.name} has so few MACs and parameters",
                f"The smallest {extent} have {costs[0]:,.0f} MACs and {costs[1]:,.0f} parameters. {advice}".strip(),
            )
        scores = scores.at(scores.excess == 0)
        fastest = scores.latency_ms[np.argmin(scores.ratio)]
        takes = " and ".join(
            f"{one:.3g} {unit_symbol(limit.metric)} on {limit.target}, where {limit.max_ms:.3g} "
            f"{unit_symbol(limit.metric)} are allowed"
            for one, limit in zip(fastest, limits, strict=True)
        )
        best = float(scores.probability.max())
        return BadInputError(
            f"no candidate of {self.space.name} keeps the limit with a probability of {self.constraints.confidence:g}: "
            f"the fastest {extent} takes {takes} (predicted)",
            f"The best probability is {f'{best:.2f}' if best >= 0.01 else 'below 0.01'}. Raise the limit"
            f"{', or lower --confidence' if best >= 0.01 else ''}. {advice}".strip(),
        )
