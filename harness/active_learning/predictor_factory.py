"""The making of a predictor from its name and options, for a space and a target."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from latlab import predictors
from latlab.harness.active_learning.source_devices import ALL
from latlab.harness.errors import BadInputError
from latlab.harness.paths import cache_folder
from latlab.search_spaces import SearchSpace

__all__ = ["PredictorOptions", "parse_facts", "predictor_for", "predictor_options"]

predictors.keep_in(cache_folder)  # what takes them seconds to make


@dataclass(frozen=True)
class PredictorOptions:
    """The choice of a predictor, and of what it learns from before it sees the target."""

    name: str | None = None
    """The predictor's name; None for the default (`predictors.DEFAULT`)."""
    sources: str | Sequence[str] = ALL
    """Source devices that it is pre-trained on: `all`, `none`, or names of sources, targets or devices."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Facts about the target's hardware (cores, clock_ghz, bandwidth_gbs, tops), for predictors that take them."""
    spaces_from: str | Sequence[str] = ALL
    """Other search spaces whose labels of the target it uses: `all`, `none`, or names of spaces."""


def predictor_options(given: PredictorOptions | str) -> PredictorOptions:
    """Return the options that are meant by them or by a predictor's name."""
    return PredictorOptions(given) if isinstance(given, str) else given


def predictor_for(
    options: PredictorOptions,
    space: SearchSpace,
    *,
    seed: int = 0,
    sources: Sequence[predictors.SourceDevice] | None = None,
    blocks: Mapping[str, float] | None = None,
    others: Sequence[predictors.OtherSpace] = (),
) -> predictors.Predictor:
    """Return a predictor, pre-trained on `sources` if they are given.

    Args:
        seed: seed of the predictor's own random choices.
        sources: the source devices that `options.sources` stands for, maybe none; None for no pre-training.
        blocks: latencies in ms of single blocks on the target, by name, for predictors that use them.
        others: labels of the target in other spaces, for predictors that use them.

    Raises:
        BadInputError: if the predictor is unknown, takes no facts, or cannot learn from these sources.
    """
    name = options.name or predictors.DEFAULT
    try:
        predictor = predictors.create(name, space, seed=seed)
        if options.facts:
            if "facts" not in inspect.signature(type(predictor)).parameters:
                raise BadInputError(
                    f"the predictor {predictor.name} takes no facts of the hardware",
                    "Leave out --fact, or choose another with --predictor.",
                )
            predictor = predictors.create(predictor.name, space, seed=seed, facts=dict(options.facts))
    except predictors.UnknownPredictorError as error:
        raise BadInputError(str(error)) from error
    except ValueError as error:
        raise BadInputError(f"the predictor {name}: {error}") from error
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
    if others:
        predictor.use_other_spaces(others)
        if options.spaces_from != ALL and not predictor.other_spaces:
            raise BadInputError(
                f"the predictor {predictor.name} can learn nothing for {space.name} from labels of "
                f"{', '.join(one.space.name for one in others)}",
                "Leave out --spaces-from.",
            )
    return predictor


def parse_facts(words: Iterable[str]) -> dict[str, float]:
    """Return hardware facts from words such as `cores=4`. Raises `BadInputError` for anything else."""
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
