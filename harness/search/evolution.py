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
from pymoo.core.evaluator import Evaluator
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem

from latlab.harness.search.looking import REACH, Follow, Looked, best_of
from latlab.harness.search.scoring import Genes, Scorer, Scores
from latlab.search_spaces import SearchSpace

__all__ = ["evolve"]

FOLLOW_EVERY = 5
"""Generations between two reports."""
CROSSED, MUTATED = 0.9, 0.9
"""Probabilities that a child has two parents, and that one of its choices is changed."""
TRIES = 20
"""Attempts to fill a generation with new networks; in a small space there are none left."""
_ORDER = ("CV", "rank", "crowding")
"""What decides a tournament, in this order; infeasible networks have a violation only."""


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
        mating=_SpaceMating(space),
        eliminate_duplicates=False,  # by the mating
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


class _SpaceMating(InfillCriterion):  # type: ignore[misc]
    """Children by the space's own crossover and mutation, for a whole population at once; none is there already."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self._space = space

    def do(self, problem: Any, pop: Any, n_offsprings: int, *args: Any, random_state: Any = None, **more: Any) -> Any:
        genes = pop.get("X").astype(np.int64)
        known = {row.tobytes() for row in np.ascontiguousarray(genes)}
        violation, rank, crowding = (pop.get(name).astype(float).reshape(len(pop)) for name in _ORDER)
        place = np.empty(len(pop), np.int64)
        place[np.lexsort((-crowding, rank, violation))] = np.arange(len(pop))
        children: list[NDArray[np.int64]] = []
        for _ in range(TRIES):
            missing = n_offsprings - len(children)
            if not missing:
                break
            # The better of two random ones becomes a parent (binary tournament).
            drawn = random_state.integers(len(pop), size=(2, missing, 2))
            a, b = np.take_along_axis(drawn, place[drawn].argmin(axis=2)[..., None], axis=2)[..., 0]
            crossed = random_state.random((missing, 1)) < CROSSED
            new = np.where(crossed, self._space.crossover_genes(genes[a], genes[b], random_state), genes[a])
            mutated = random_state.random((missing, 1)) < MUTATED
            new = np.ascontiguousarray(np.where(mutated, self._space.mutate_genes(new, random_state), new))
            for row in new:
                key = row.tobytes()
                if key not in known:
                    known.add(key)
                    children.append(row)
        return Population.new(X=np.array(children, np.int64).reshape(len(children), self._space.num_genes))
