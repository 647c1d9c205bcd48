"""The contestants of comparisons: the networks that are asked for, on each target, with their sessions in the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latlab.harness.compare.result import Question
from latlab.harness.compare.run import ComparisonRun, Contestant, close_earlier, policy_of
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.measurement.session import MeasurementSession
from latlab.harness.models.factory import is_factory
from latlab.harness.models.read import MODEL_SUFFIXES
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import Selection
from latlab.harness.targets import Target

__all__ = ["Candidate", "comparison_runs", "named_apart", "split_words", "unique_names"]

_SLASHES_OF_TARGET = 5


@dataclass(frozen=True)
class Candidate:
    """A network that is to be compared, before it is known where."""

    name: str
    space: str
    """Its search space, or `USER_MODEL_SPACE`."""
    on: Callable[[Target], Target]
    """Returns its target on a device, for a target of that device."""
    artifact: Callable[[Target], Artifact]
    """Returns its file for a target."""
    options: Callable[[Target], dict[str, Any]] = lambda _: {}
    """Returns the options of its campaign (`Store.campaign`), for a target."""


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names, the second of the same name with ` (2)` behind it, and so on."""
    found: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in found:
            number += 1
            candidate = f"{name} ({number})"
        found.append(candidate)
    return found


def named_apart(words: Sequence[str], candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with names that tell different files apart: `v1/net.onnx` and `v2/net.onnx`.

    Args:
        words: the path or factory of each, as the user wrote it.
        candidates: named after the last part of the path.
    """
    wrote: dict[str, set[str]] = {}
    for word, one in zip(words, candidates, strict=True):
        wrote.setdefault(one.name, set()).add(word)
    return [
        replace(one, name=one.name.replace(Path(word).name, word, 1)) if len(wrote[one.name]) > 1 else one
        for word, one in zip(words, candidates, strict=True)
    ]


def comparison_runs(
    store: Store,
    inventory: Inventory,
    targets: Sequence[Target],
    candidates: Sequence[Candidate],
    question: Question,
    seed: int,
) -> list[ComparisonRun]:
    """Return a comparison for each target, each in a new session of its own.

    Args:
        targets: one for each comparison; networks that run in another runtime replace its runtime.

    Raises:
        BadInputError: if the networks cannot take turns in one session on a device.
        LatlabError: if a network cannot be exported.
    """
    names = unique_names([one.name for one in candidates])
    wanted = [tuple(one.on(target) for one in candidates) for target in targets]
    runs = []
    for own in dict.fromkeys(wanted):
        _check_transports(inventory, own)
        sessions: dict[str, MeasurementSession] = {}
        contestants = []
        for name, one, target in zip(names, candidates, own, strict=True):
            campaign = store.campaign(
                target, one.space, policy_of(target), seed, Selection.COMPARE, one.options(target)
            )
            if campaign.id not in sessions:
                with store.writing():
                    close_earlier(store, campaign)
                sessions[campaign.id] = MeasurementSession(store, campaign, store.latest_session(campaign) + 1)
            label = f"{one.space}/{one.name}"
            contestants.append(Contestant(name, label, target, one.artifact(target), sessions[campaign.id]))
        runs.append(ComparisonRun(contestants, question, seed))
    return runs


def _check_transports(inventory: Inventory, targets: Sequence[Target]) -> None:
    """Raise `BadInputError` if the targets' runtimes are reached in different ways, so that one worker has not all."""
    config = inventory.device(targets[0].device)
    ways = {config.runtime_transports.get(one.runtime, config.transport_factory) for one in targets}
    if len(ways) > 1:
        runtimes = " and ".join(dict.fromkeys(one.runtime for one in targets))
        raise BadInputError(
            f"{runtimes} cannot take turns on {targets[0].device}, which runs them in different programs",
            "Choose one with --runtime, or compare their labels with --targets.",
        )


def split_words(words: Sequence[str], inventory: Inventory) -> tuple[list[str], list[str]]:
    """Return which words name models, and which devices, in the order in which they were given.

    A device of the inventory, a full target of one, or `all` is a device. A file, a name that ends like
    a model's file, and `package.module:factory`, are models.

    Raises:
        BadInputError: for a word that is neither.
    """
    known = inventory.names
    models: list[str] = []
    devices: list[str] = []
    for word in words:
        if word == "all" or word in known:
            devices.append(word)
        elif word.lower().endswith(MODEL_SUFFIXES) or is_factory(word) or Path(word).is_file():
            models.append(word)
        elif word.partition("/")[0] in known or word.count("/") == _SLASHES_OF_TARGET:
            devices.append(word)
        else:
            raise BadInputError(
                f"{word!r} is neither a model nor a device",
                f"Models are files that end in {', '.join(MODEL_SUFFIXES)}, and package.module:factory. "
                f"Devices: {', '.join(known)}.",
            )
    return models, devices
