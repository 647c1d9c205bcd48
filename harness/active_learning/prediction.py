"""Prediction of networks that were not measured, from what the store holds of a target and of other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.fitted_predictor import FittedPredictor, card_of
from latlab.harness.active_learning.kept_fits import KeptFits
from latlab.harness.active_learning.latency_table import measured_latencies, scope_in_words
from latlab.harness.active_learning.loop import ClosedLoop, refitted
from latlab.harness.active_learning.other_spaces import other_spaces, spaces_of
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.remarks import label_remarks
from latlab.harness.active_learning.session_spread import ComparedSessions
from latlab.harness.active_learning.source_devices import (
    ALL,
    ENOUGH_LABELS,
    NONE,
    SourceFilter,
    source_devices,
)
from latlab.harness.active_learning.target_labels import LATENCY, MEMORY, target_labels
from latlab.harness.architectures import is_block_space, space_named
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Selection
from latlab.harness.targets import Target
from latlab.predictors import Predictor, SourceDevice
from latlab.search_spaces import Architecture, SearchSpace

__all__ = [
    "KeptPredictors",
    "Predictions",
    "nothing_measured",
    "predict",
    "prior_sources",
    "source_filter_of",
    "sources_of",
    "stored_target",
    "trained_predictor",
]


@dataclass(frozen=True)
class Predictions:
    """Predicted latencies, and the data that they were learnt from."""

    table: pd.DataFrame
    """The latency table (`latency_table.COLUMNS`)."""
    sources: tuple[str, ...]
    """Names of the devices that the predictor was pre-trained on."""
    support: int
    """Number of measurements of the target that the predictor was fitted to."""
    scope: str
    """What part of the space the table holds, in words; empty where the networks were named."""
    other_spaces: Mapping[str, int] = field(default_factory=dict)
    """Number of the target's labels in other spaces that were used, by the space's name."""
    remarks: tuple[str, ...] = ()
    """What has to be said about these measurements: provisional labels, sessions that disagree."""


def predict(predictor: FittedPredictor, archs: Sequence[str | Architecture] | None) -> Predictions:
    """Return predictions as a table. Arguments: `Lab.predict`. Raises `BadInputError` for what is no network."""
    table = predictor.table(archs)
    names = tuple(str(source["name"]) for source in predictor.card.sources)
    scope = scope_in_words(predictor.space, table) if archs is None else ""
    return Predictions(table, names, predictor.card.labels, scope, predictor.card.other_spaces, predictor.remarks)


class KeptPredictors(KeptFits[FittedPredictor]):
    """The predictors that were fitted to a store's labels."""

    def get(
        self,
        inventory: Inventory,
        target: str,
        space: str | None,
        options: PredictorOptions,
        seed: int,
        metric: str = LATENCY,
    ) -> FittedPredictor:
        """Return a predictor that is fitted to the labels that the store holds now. Arguments: `Lab.predictor`.

        Args:
            inventory: says which names are of one device.

        Raises:
            BadInputError: as `Lab.predictor`.
        """

        def spaces(fitted: FittedPredictor) -> list[str]:
            own = fitted.card.space
            others = [] if options.spaces_from == NONE else spaces_of(self._store, fitted.card.target)
            return [own, *(name for name in others if name != own)]

        def make() -> FittedPredictor:
            return fitted_to_store(self._store, inventory, target, space, options, seed, metric)

        return self.kept_or_made(repr((target, space, options, seed, metric)), make, spaces)


def fitted_to_store(
    store: Store,
    inventory: Inventory,
    target: str,
    space: str | None,
    options: PredictorOptions,
    seed: int,
    metric: str,
) -> FittedPredictor:
    """Return a predictor that is fitted to what a store holds of a target. Arguments and errors: `Lab.predictor`."""
    target = stored_target(store, target)
    if "/" in target:
        Target.parse(target)
    labels = target_labels(store, target, metric, ["fingerprint_id"])
    labels = labels[labels["space"] != USER_MODEL_SPACE]
    raw = labels[labels["role"] != Role.HOLDOUT]
    sessions = ComparedSessions(store, target, raw)
    every = sessions.on_one_level(raw) if metric == LATENCY else raw
    spaces = [name for name in dict.fromkeys(every["space"]) if not is_block_space(name)]
    if space is None:
        if len(spaces) > 1:
            raise BadInputError(f"{target} has measurements of several spaces", f"Name one: {', '.join(spaces)}.")
        space = spaces[0] if spaces else ""
    table = every[every["space"] == space]
    nothing = table.empty
    device = target.split("/")[0]
    if nothing and not space:
        way_out = f"(latlab onboard {device}), or name a space, to be predicted from other devices alone"
        raise nothing_measured(store, target, way_out)
    chosen_space = space_named(space)
    fresh, others = trained_predictor(store, inventory, target, chosen_space, table, (), options, seed, every, metric)
    loop = refitted(chosen_space, table, fresh) or ClosedLoop(chosen_space, fresh, budget=0, seed=seed)
    if nothing:
        try:
            fresh.predict(chosen_space.genes(chosen_space.references()[:1]))
        except ValueError as error:
            raise BadInputError(
                f"the store {store.path} has no measurements of {target} in {space}, and the predictor {fresh.name} "
                "needs some",
                f"Measure some first (latlab onboard {device}), or choose another with --predictor.",
            ) from error
    # Imported labels know nothing of the device.
    prints = table["fingerprint_id"][table["selection"] != Selection.IMPORTED].dropna()
    facts = store.facts(str(prints.iloc[-1])) if len(prints) else {}
    card = card_of(
        target,
        fresh,
        labels=loop.measured,
        as_written=loop.as_written,
        sources=others,
        facts=facts | {"simulated": bool(table["simulated"].any())},
        options=options,
        seed=seed,
        metric=metric,
        # Sessions that differ in speed differ in energy, too, but not in memory.
        session_variance=0.0 if metric == MEMORY else sessions.variance(table),
    )
    fitted = FittedPredictor(loop.predictor, card, measured_latencies(labels[labels["space"] == space]))
    fitted.remarks = (*label_remarks(raw[raw["space"] == space]), *fitted.remarks)
    return fitted


def trained_predictor(
    store: Store,
    inventory: Inventory,
    target: str,
    space: SearchSpace,
    rows: pd.DataFrame,
    holdout: Sequence[Architecture],
    options: PredictorOptions,
    seed: int,
    every: pd.DataFrame | None = None,
    metric: str = LATENCY,
) -> tuple[Predictor, list[SourceDevice]]:
    """Return a predictor for a stored target, pre-trained on its source devices, and these devices.

    It is told the target's labels in other spaces, too.

    Args:
        rows: the target's rows of the store in this space.
        holdout: architectures whose labels on the target's device must not be among the sources.
        every: the target's labels in all spaces, on one level; None to read them.
        metric: what these labels are.
    """
    if metric == LATENCY:
        others = prior_sources(store, space, source_filter_of(inventory, target, rows, holdout), options)
    elif options.sources in (ALL, NONE):
        others = []
    else:
        raise BadInputError(f"source devices have latencies and no {metric}", "Leave out --sources.")
    blocks = block_latencies(store, target, space, every)
    elsewhere = other_spaces(store, target, space, options.spaces_from, every)
    fitted = predictor_for(options, space, seed=seed, sources=others, blocks=blocks, others=elsewhere)
    return fitted, others


def sources_of(
    store: Store, space: SearchSpace, source_filter: SourceFilter, which: str | Sequence[str]
) -> list[SourceDevice]:
    """Return the sources, chosen by `which`, that commands pre-train on, each with at most `ENOUGH_LABELS` labels."""
    return source_devices(store, space, source_filter, which, ENOUGH_LABELS)


def prior_sources(
    store: Store, space: SearchSpace, source_filter: SourceFilter, options: PredictorOptions
) -> list[SourceDevice]:
    """Return the sources that a predictor is to be pre-trained on: none if it is pre-trained already.

    Raises:
        BadInputError: it is pre-trained on labels of the target's device; or as `sources_of`.
    """
    if options.folder is None:
        return sources_of(store, space, source_filter, options.sources)
    options.folder.check_target(source_filter.target or "", source_filter.same_device)
    return []


def source_filter_of(
    inventory: Inventory,
    target: str | None,
    rows: pd.DataFrame | None = None,
    holdout: Sequence[Architecture] = (),
) -> SourceFilter:
    """Return the filter that decides which sources a target may have.

    Args:
        target: None for any sources.
        rows: the target's rows of the store, or None if there are none yet.
        holdout: architectures whose labels on the target's device stay unseen.
    """
    if target is None:
        return SourceFilter()
    device = target.partition("/")[0]
    config = inventory.devices.get(device)
    simulated = bool(config and config.transport == "simulated") or (rows is not None and rows["simulated"].any())
    return SourceFilter(target, _same_device(inventory, device), bool(simulated), holdout)


def _same_device(inventory: Inventory, device: str) -> Callable[[str], bool]:
    address = _address(inventory, device)
    return lambda name: _address(inventory, name) == address


def _address(inventory: Inventory, device: str) -> tuple[object, ...]:
    """Return the address of a device, to recognise two names of one device; an unknown name is its own address."""
    config = inventory.devices.get(device)
    if config is None or config.transport == "simulated":
        return ("local", None, None, None) if device == "local" else (device,)
    return (config.transport, *(getattr(config, field, None) for field in ("host", "port", "serial")))


def nothing_measured(store: Store, target: str, way_out: str) -> BadInputError:
    """Return the error that a store has no measurements of a target.

    Args:
        way_out: how to get some, after "Measure some first".
    """
    if not store.exists():
        return BadInputError(f"there is no store {store.path}", "Measure something first, or name another store.")
    known = ", ".join(sorted({one for one, _ in store.labelled()})) or "none yet"
    return BadInputError(
        f"the store {store.path} has no measurements of {target}", f"It has: {known}. Measure some first {way_out}."
    )


def stored_target(store: Store, word: str) -> str:
    """Return the only target that the store has of a device, given the device's name; return any other word unchanged.

    Raises:
        BadInputError: if the store has several targets of the device.
    """
    own = sorted({target for target, _ in store.labelled() if target.split("/")[0] == word})
    if len(own) > 1:
        raise BadInputError(f"the store has several targets of {word}", f"Name one: {', '.join(own)}.")
    return own[0] if own else word
