"""The whole comparison: every task with every predictor, seeds in parallel; finished records are stored at once."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from latlab.harness.bench.evaluate import Score, Unit, evaluate
from latlab.harness.bench.results import Record, ResultFile, records
from latlab.harness.distributed.engines import in_parallel
from latlab.harness.errors import BadInputError, LatlabError

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison."""

    records: list[Record]
    failures: list[str]
    """One text for each task and predictor that raised an error: which, the message, and where it was raised."""


@dataclass(frozen=True)
class Failure:
    """An error that a unit raised, as data: not every exception can be sent between processes."""

    message: str
    hint: str | None = None
    is_input: bool = False
    """True if the user's input is wrong. Then the whole comparison ends."""


def compare(
    units: Sequence[Unit],
    seeds: int,
    *,
    engine: str = "local",
    jobs: int = 1,
    results: ResultFile | None = None,
    finished: Callable[[Unit, list[Record] | None], None] = lambda unit, found: None,
) -> Comparison:
    """Evaluate each of `units` with seeds 0, 1, ...

    Args:
        units: what to evaluate. Their own seed is ignored.
        seeds: the number of seeds.
        engine: where units are evaluated, as `in_parallel`; each node needs the tables at the same place.
        jobs: the number of processes. With 1 the work is done in this process.
        results: known records, which are not computed again. New ones are added.
        finished: called with a unit and None after each seed, and with its records after all seeds.

    Raises:
        BadInputError: parts of the user's input do not fit together.
    """
    results = results or ResultFile(None)
    done: dict[int, list[Record]] = {}
    failures: dict[int, str] = {}
    scores: dict[int, list[list[Score]]] = {}
    work = []
    for i, unit in enumerate(units):
        known = results.of(unit, seeds)
        if known:
            done[i] = known
            finished(unit, known)
        else:
            work += [(i, replace(unit, seed=seed)) for seed in range(seeds)]
            scores[i] = []
    for place, own in in_parallel(_attempt, [unit for _, unit in work], engine=engine, jobs=jobs):
        i = work[place][0]
        if isinstance(own, Failure):
            if own.is_input:
                raise BadInputError(own.message, own.hint)
            failures.setdefault(i, f"{units[i].predictor.text} on {units[i].task.name}: {own.message}")
            own = []
        scores[i].append(own)
        finished(units[i], None)
        if len(scores[i]) == seeds and i not in failures:
            done[i] = records(units[i], seeds, [score for part in scores[i] for score in part])
            results.add(done[i])
            finished(units[i], done[i])
    return Comparison([record for i in sorted(done) for record in done[i]], list(failures.values()))


def _attempt(unit: Unit) -> list[Score] | Failure:
    """Evaluate a unit.

    A predictor's exception becomes a `Failure`, so that a faulty plug-in does not stop the others.
    """
    try:
        return evaluate(unit)
    except LatlabError as error:
        return Failure(error.message, error.hint, is_input=True)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Failure(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})")
