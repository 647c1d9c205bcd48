"""Constrained evolution with pymoo's NSGA-II (Deb et al. 2002), over arrays of the space's own genes.

Both objectives are maximised: the accuracy, and the probability that the limits are kept. So the front spreads over the
networks around the limits, of which some are surely fast enough, and others are worth a measurement. Networks that
keep them with less than `REACH` are infeasible, by so much as they are too slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from latlab.harness.search.candidates import REACH, Follow, Looked, best_of
from latlab.harness.search.scoring import Genes, Scorer, Scores
from latlab.search_spaces import SearchSpace

__all__ = ["evolve"]

FOLLOW_EVERY = 5
"""Generations between two reports."""


def evolve(
    scorer: Scorer, first: Genes, generations: int, seed: int, follow: Follow | None = None
) -> tuple[Scores, Genes]:
    """Return the scores of all distinct networks that evolution came to, and the last population's genes.

    Args:
        scorer: scores the networks; all must have an accuracy.
        first: the first population, which all later ones are as large as.
        generations: number of populations that are scored.
        seed: of all random choices.
        follow: called every few generations.
    """
    space = scorer.space
    problem = Problem(n_var=space.num_genes, n_obj=2, n_ieq_constr=1, vtype=int)
    algorithm = NSGA2(
        len(first),
        sampling=first,
        crossover=_SpaceCrossover(space),
        mutation=_SpaceMutation(space),
        eliminate_duplicates=_Distinct(),
    )
    algorithm.setup(problem, termination=NoTermination(), seed=seed)
    parts: list[Scores] = []
    best: float | None = None
    for generation in range(1, generations + 1):
        asked = algorithm.ask()
        if asked is None or not len(asked):  # every neighbour of a small space is known
            break
        scores = scorer(asked.get("X").astype(np.int64))
        objectives = -np.stack([scores.accuracy, scores.probability], axis=1)
        too_slow = REACH - scores.probability + np.maximum(0.0, np.log(scores.ratio)) + scores.excess
        # Where the limit is kept, being well below it counts no more.
        violation = np.where(scores.probability >= REACH, 0.0, too_slow)
        Evaluator().eval(StaticProblem(problem, F=objectives, G=violation[:, None]), asked)
        algorithm.tell(infills=asked)
        parts.append(scores)
        now = best_of(scores, scorer)
        best = now if best is None or (now is not None and now > best) else best
        if follow is not None and (generation % FOLLOW_EVERY == 0 or generation == generations):
            follow(Looked(generation, generations, "generations", scorer.scored, best))
    found = Scores.joined(parts)
    _, once = np.unique(found.genes, axis=0, return_index=True)
    return found.at(np.sort(once)), algorithm.pop.get("X").astype(np.int64)


class _SpaceCrossover(Crossover):  # type: ignore[misc]
    """Two children of two parents, by the space's own crossover."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(2, 2, prob=0.9)
        self._space = space

    def _do(self, problem: Any, genes: Genes, *args: Any, random_state: Any = None, **more: Any) -> Genes:
        a, b = genes.astype(np.int64)
        cross = self._space.crossover_genes
        return np.stack([cross(a, b, random_state), cross(b, a, random_state)])


class _SpaceMutation(Mutation):  # type: ignore[misc]
    """A change of one choice, by the space's own mutation."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(prob=0.9)
        self._space = space

    def _do(self, problem: Any, genes: Genes, *args: Any, random_state: Any = None, **more: Any) -> Genes:
        return self._space.mutate_genes(genes.astype(np.int64), random_state)


class _Distinct(DuplicateElimination):  # type: ignore[misc]
    """Leaves out networks that are there already."""

    def _do(self, pop: Any, other: Any, is_duplicate: NDArray[np.bool_]) -> NDArray[np.bool_]:
        seen = set() if other is None else {row.tobytes() for row in _rows(other)}
        for place, row in enumerate(_rows(pop)):
            key = row.tobytes()
            is_duplicate[place] |= key in seen
            if other is None:
                seen.add(key)
        return is_duplicate


def _rows(pop: Any) -> Genes:
    return np.ascontiguousarray(pop.get("X").astype(np.int64))
