"""The making of a predictor from its name and options, for a space and a target."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from latlab import predictors
from latlab.harness.active_learning.pretrained import Pretrained, read_pretrained
from latlab.harness.active_learning.source_devices import ALL, signature
from latlab.harness.active_learning.training_cache import pretrained_once
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
    pretrained: Pretrained | str | Path | None = None
    """A folder that `latlab pretrain` wrote: its predictor is used instead of one that is trained on `sources`."""

    @property
    def folder(self) -> Pretrained | None:
        """The folder of the pre-trained predictor. Raises `BadInputError` if it holds none, or another predictor."""
        if self.pretrained is None:
            return None
        found = self.pretrained if isinstance(self.pretrained, Pretrained) else read_pretrained(self.pretrained)
        if self.name not in (None, found.card.predictor):
            raise BadInputError(
                f"{found.folder} holds a predictor {found.card.predictor}, not {self.name}", "Leave out --predictor."
            )
        if self.sources != ALL:
            raise BadInputError(
                f"the predictor in {found.folder} is trained already, so its sources cannot be chosen",
                "Leave out --sources, or --pretrained.",
            )
        return found

    def origin(self, sources: Sequence[predictors.SourceDevice]) -> dict[str, Any]:
        """Return what cards say of a predictor's sources: that of the folder, or the `signature` of `sources`."""
        found = self.folder
        if found is None:
            return signature(sources)
        return {"sources": [dict(one) for one in found.card.sources], "sha256": found.card.sources_sha256}

    def source_names(self, sources: Sequence[predictors.SourceDevice]) -> tuple[str, ...]:
        """Return the names of the devices that a predictor has learned from."""
        return tuple(str(one["name"]) for one in self.origin(sources)["sources"])


def predictor_options(given: PredictorOptions | str) -> PredictorOptions:
    """Return the options that are meant by them or by a predictor's name, with the folder's card read.

    Raises:
        BadInputError: the folder of a pre-trained predictor holds none.
    """
    options = PredictorOptions(given) if isinstance(given, str) else given
    return replace(options, pretrained=options.folder)


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
    folder = options.folder
    name = folder.card.predictor if folder else options.name or predictors.DEFAULT
    try:
        predictor = folder.predictor(space) if folder else predictors.create(name, space, seed=seed)
        if options.facts:
            if folder:
                raise BadInputError("a pre-trained predictor takes no facts of the hardware", "Leave out --fact.")
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
    if sources is not None and not folder:
        try:
            if predictor.pretraining_lasts and sources:
                predictor, _, _ = pretrained_once(predictor, options.facts, sources)
            else:
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
