"""A predictor from its name, for a space and a target."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence

from latlab import predictors
from latlab.harness.errors import BadInputError
from latlab.search_spaces import SearchSpace

__all__ = ["parse_facts", "predictor_for"]


def predictor_for(
    name: str | None,
    space: SearchSpace,
    *,
    seed: int = 0,
    sources: Sequence[predictors.SourceDevice] | None = None,
    facts: Mapping[str, float] | None = None,
    blocks: Mapping[str, float] | None = None,
) -> predictors.Predictor:
    """A predictor (None: the default), pre-trained where `sources` are given, be they none.

    Args:
        facts: what is known of the target's hardware, for predictors that take it.
        blocks: milliseconds of single blocks on the target, by name, for predictors that use them.
    """
    try:
        predictor = predictors.create(name or predictors.DEFAULT, space, seed=seed)
        if facts:
            if "facts" not in inspect.signature(type(predictor)).parameters:
                raise BadInputError(
                    f"the predictor {predictor.name} takes no facts of the hardware",
                    "Leave out --fact, or choose another with --predictor.",
                )
            predictor = predictors.create(predictor.name, space, seed=seed, facts=dict(facts))
    except predictors.UnknownPredictorError as error:
        raise BadInputError(str(error)) from error
    except ValueError as error:
        raise BadInputError(f"the predictor {name or predictors.DEFAULT}: {error}") from error
    if sources is not None:
        try:
            predictor.pretrain(sources)
        except ValueError as error:
            raise BadInputError(
                f"the predictor {predictor.name} cannot learn from {len(sources)} source devices: {error}",
                "`latlab sources` lists what there is, --sources chooses, `latlab import` adds more.",
            ) from error
    if blocks:
        predictor.use_blocks(blocks)
    return predictor


def parse_facts(words: Iterable[str]) -> dict[str, float]:
    """`cores=4` and the like. Raises `BadInputError`."""
    facts = {}
    for word in words:
        key, _, value = word.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not key.strip().isidentifier() or not (math.isfinite(number) and number > 0):
            raise BadInputError(f"{word!r:.60} is no fact", "Write a name and a positive number, such as cores=4.")
        facts[key.strip()] = number
    return facts
