"""What the user names, looked up: spaces, architectures, policies, predictors; else a `BadInputError`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from latlab import predictors
from latlab.agents.policy import PRESETS, TimingPolicy
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import get_exporter
from latlab.harness.inventory import Inventory
from latlab.harness.targets import Target
from latlab.search_spaces import Architecture, ArchitectureError, SearchSpace, UnknownSpaceError, get, names

__all__ = [
    "campaign_options",
    "parse_archs",
    "parse_facts",
    "policy_named",
    "predictor_for",
    "read_archs",
    "sample_space",
    "space_named",
    "space_to_measure",
]


def space_named(name: str) -> SearchSpace:
    try:
        return get(name)
    except UnknownSpaceError as error:
        raise BadInputError(str(error), "`latlab spaces` describes them.") from error


def space_to_measure(name: str) -> SearchSpace:
    space = space_named(name)
    if not space.buildable:
        raise BadInputError(
            f"{name} cannot be measured: it has no networks to build, only architectures to predict",
            f"Compare or use predictions from published tables, or measure one of: {', '.join(names(buildable=True))}.",
        )
    return space


def parse_archs(space: SearchSpace, texts: Iterable[str]) -> list[Architecture]:
    """Architectures from their strings. Raises `BadInputError` naming the one that is wrong."""
    try:
        return [space.parse(text) for text in texts]
    except ArchitectureError as error:
        raise BadInputError(str(error)) from error


def read_archs(space: SearchSpace, path: Path) -> list[Architecture]:
    """Architectures from a file: one string per line, `#` begins a comment line. Raises `BadInputError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInputError(f"cannot read {path}: {reason}") from error
    archs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            archs.append(space.parse(line))
        except ArchitectureError as error:
            raise BadInputError(f"{path}, line {number}: {error}") from error
    if not archs:
        raise BadInputError(f"{path} holds no architecture", "Write one architecture's string per line.")
    return archs


def policy_named(name: str, inventory: Inventory | None = None) -> TimingPolicy:
    """A preset, or one of the inventory's."""
    known = {**PRESETS, **(inventory.policies if inventory else {})}
    if name not in known:
        own = f" Your own belong into {inventory.path}, under `policies:`." if inventory else ""
        raise BadInputError(f"unknown policy {name!r:.60}", f"Choose one of: {', '.join(known)}.{own}")
    return known[name]


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


def sample_space(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """`count` random architectures; a longer sample begins with the shorter."""
    if not 1 <= count <= space.size:
        raise BadInputError(f"{space.name} has {space.size} architectures: the count must be between 1 and that")
    return space.sample(count, seed)


def campaign_options(target: Target, as_written: bool) -> dict[str, Any]:
    """What else makes labels differ, so that it belongs to a campaign's identity: how the files were made."""
    return {"as_written": as_written, "exporter": get_exporter(target.format).version}
