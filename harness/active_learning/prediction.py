"""Prediction of networks that were not measured, from what the store holds of a target and of other devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.latency_table import latency_table, whole_space
from latlab.harness.active_learning.loop import ClosedLoop, refitted
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.source_devices import ENOUGH_LABELS, SourceFilter, source_devices, thinned
from latlab.harness.architectures import is_block_space, parse_archs, space_named
from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.store.store import Store
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Status
from latlab.harness.targets import Target
from latlab.predictors import Predictor, SourceDevice
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Predictions", "predict", "source_filter_of", "sources_of", "stored_target", "trained_predictor"]


@dataclass(frozen=True)
class Predictions:
    """Predicted latencies, and the data that they were learnt from."""

    table: pd.DataFrame
    """Columns arch, latency_ms, std_ms, lower_ms, upper_ms (90 %), measured (whether the network was)."""
    sources: tuple[str, ...]
    """Names of the devices that the predictor was pre-trained on."""
    support: int
    """Number of measurements of the target that the predictor was fitted to."""


def predict(
    store: Store,
    inventory: Inventory,
    target: str,
    space: str | None,
    archs: Sequence[str] | None,
    predictor: PredictorOptions,
    seed: int,
) -> Predictions:
    """Predict latencies on a target. Arguments and errors: `Lab.predict`."""
    target = stored_target(store, target)
    if "/" in target or space is None:
        Target.parse(target)
    table = store.table(target=target)
    usable = (table["status"] == Status.OK) & (table["role"] != Role.HOLDOUT) & (table["space"] != USER_MODEL_SPACE)
    table = table[usable]
    spaces = [name for name in dict.fromkeys(table["space"]) if not is_block_space(name)]
    if space is None:
        if len(spaces) > 1:
            raise BadInputError(f"{target} has measurements of several spaces", f"Name one: {', '.join(spaces)}.")
        space = spaces[0] if spaces else ""
    table = table[table["space"] == space]
    nothing = table.empty
    device = target.split("/")[0]
    if nothing and not space:
        known = ", ".join(sorted(set(store.table()["target"]))) or "none yet"
        raise BadInputError(
            f"the store {store.path} has no measurements of {target}",
            f"It has: {known}. Measure some first (latlab onboard {device}), "
            "or name a space, to be predicted from other devices alone.",
        )
    chosen_space = space_named(space)
    wanted = parse_archs(chosen_space, archs) if archs is not None else whole_space(chosen_space)
    fitted, sources = trained_predictor(store, inventory, target, chosen_space, table, (), predictor, seed)
    loop = refitted(chosen_space, table, fitted) or ClosedLoop(chosen_space, fitted, budget=0, seed=seed)
    try:
        prediction = loop.predict(wanted)
    except ValueError as error:
        if not nothing:
            raise
        raise BadInputError(
            f"the store {store.path} has no measurements of {target} in {space}, and the predictor {fitted.name} "
            "needs some",
            f"Measure some first (latlab onboard {device}), or choose another with --predictor.",
        ) from error
    return Predictions(latency_table(wanted, prediction, set(table["arch"])), sources, loop.measured)


def trained_predictor(
    store: Store,
    inventory: Inventory,
    target: str,
    space: SearchSpace,
    rows: pd.DataFrame,
    holdout: Sequence[Architecture],
    options: PredictorOptions,
    seed: int,
) -> tuple[Predictor, tuple[str, ...]]:
    """Return a predictor for a stored target, pre-trained on its source devices, and the names of these devices.

    Args:
        rows: the target's rows of the store.
        holdout: architectures whose labels on the target's device must not be among the sources.
    """
    others = sources_of(store, space, source_filter_of(inventory, target, rows, holdout), options.sources)
    blocks = block_latencies(store, target, space)
    fitted = predictor_for(options, space, seed=seed, sources=others, blocks=blocks)
    return fitted, tuple(source.name for source in others)


def sources_of(
    store: Store, space: SearchSpace, source_filter: SourceFilter, which: str | Sequence[str]
) -> list[SourceDevice]:
    """Return the sources, chosen by `which`, that commands pre-train on, each with at most `ENOUGH_LABELS` labels."""
    return [thinned(source, ENOUGH_LABELS) for source in source_devices(store, space, source_filter, which)]


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


def stored_target(store: Store, word: str) -> str:
    """Return the only target that the store has of a device, given the device's name; return any other word unchanged.

    Raises:
        BadInputError: if the store has several targets of the device.
    """
    own = sorted({target for target in store.table()["target"] if target.split("/")[0] == word})
    if len(own) > 1:
        raise BadInputError(f"the store has several targets of {word}", f"Name one: {', '.join(own)}.")
    return own[0] if own else word
