"""The targets that a command means, by its words (devices, full targets, `all`) and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.models.own_model import OwnModel
from latlab.harness.targets import RUNTIMES, Devices, Target

__all__ = ["SingleOptions", "TargetOptions", "select_targets", "target_of_model", "targets_of_model"]


@dataclass(frozen=True)
class TargetOptions:
    """A caller's choices of how networks run, one value or several of each. None leaves it to the device's own targets.

    Several values mean several targets of a device, every combination of them: `TargetOptions(threads=(1, 4))`.

    Raises:
        BadInputError: if a choice is an empty list.
    """

    runtime: str | Sequence[str] | None = None
    accelerator: str | Sequence[str] | None = None
    precision: str | Sequence[str] | None = None
    threads: int | Sequence[int] | None = None
    batch_size: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            if value is not None and not isinstance(value, str) and isinstance(value, Sequence):
                if not value:
                    raise BadInputError(f"{name} is an empty list", "Name at least one, or leave it out.")
                object.__setattr__(self, name, value[0] if len(value) == 1 else tuple(value))

    @property
    def are_given(self) -> bool:
        """True if the caller has chosen anything."""
        return any(value is not None for value in vars(self).values())

    def combinations(self) -> list[SingleOptions]:
        """Return every combination of the choices."""
        return [SingleOptions(*values) for values in product(*map(_several, vars(self).values()))]

    def by_runtime(self) -> list[TargetOptions]:
        """Return these options once for each runtime that they name: a model of one's own is made for each alone."""
        return [replace(self, runtime=one) for one in _several(self.runtime)]

    def single(self) -> SingleOptions:
        """Return these choices, if they are one value each. Raises `BadInputError` if there are several of any."""
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                option = f"--{name.replace('_', '-')}"
                named = ", ".join(map(str, value))
                raise BadInputError(f"{option} can have one value here, and names {len(value)}: {named}", "Choose one.")
        return SingleOptions(**vars(self))

    def one_runtime(self) -> str | None:
        """Return the runtime. Raises `BadInputError` if there are several."""
        return TargetOptions(runtime=self.runtime).single().runtime

    def one_batch_size(self) -> int | None:
        """Return the batch size. Raises `BadInputError` if there are several: a model's file has one."""
        return TargetOptions(batch_size=self.batch_size).single().batch_size


class SingleOptions(NamedTuple):
    """A caller's choices of how networks run, one value each."""

    runtime: str | None
    accelerator: str | None
    precision: str | None
    threads: int | None
    batch_size: int | None

    def on(self, device: str, default_runtime: str) -> Target:
        """Return the target that these options mean on a device.

        Args:
            default_runtime: the runtime to take if the options name none.
        """
        return Target(
            device,
            self.runtime or default_runtime,
            self.accelerator or "cpu",
            self.precision or "fp32",
            1 if self.threads is None else self.threads,
            1 if self.batch_size is None else self.batch_size,
        )


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def select_targets(inventory: Inventory, devices: Devices, options: TargetOptions = TargetOptions()) -> list[Target]:
    """Return the targets that are meant, each once, in the order in which they are named.

    Args:
        devices: names of the inventory, full targets (`pi4/tflite/cpu/fp32/t4/b1`), or `all`.
        options: if none is given, a device stands for all its own targets.

    Raises:
        BadInputError: for an unknown device, a full target together with options, or no device at all.
    """
    words = _words(devices)
    chosen: list[Target] = []
    for name, target in inventory.select(words):
        config = inventory.device(name)
        if target is not None and options.are_given:
            raise BadInputError(
                f"{target} says it all: leave out --runtime, --accelerator, --precision, --threads, --batch-size"
            )
        if target is not None:
            chosen.append(target)
        elif options.are_given:
            chosen += [one.on(name, config.default_runtime) for one in options.combinations()]
        else:
            chosen += config.all_targets(name)
    if not chosen:
        raise BadInputError("say which devices")
    return list(dict.fromkeys(chosen))


def targets_of_model(
    inventory: Inventory, devices: Devices, options: TargetOptions, model: OwnModel
) -> tuple[list[Target], list[str]]:
    """Return the targets that can run a user's own model, and the devices' targets that are skipped, in words.

    The model's file decides about precision and batch size. Of a device's own targets, those are taken whose runtime
    takes the file; if there is none, the usual runtime of its format.

    Args:
        devices, options: as for `select_targets`, with one runtime; `options.batch_size` is part of the model already.

    Raises:
        BadInputError: as `select_targets`; or if a target or an option contradicts the model.
    """
    model.check_precisions(options.precision)
    options = replace(options, precision=None, batch_size=None)
    words = _words(devices)
    full = {target for _, target in inventory.select(words) if target is not None}
    usual = select_targets(inventory, devices, options)
    chosen: list[Target] = []
    skipped: list[str] = []
    for device in dict.fromkeys(target.device for target in usual):
        own = [target for target in usual if target.device == device]
        found = [(one, model.target(one, named_in_full=one in full)) for one in own]
        fitting = [target for _, target in found if target is not None]
        if not fitting:
            fitting = [target_of_model(model, own[0])]
        else:
            skipped += [f"{one} is skipped: it takes no {model.format} file" for one, target in found if target is None]
        chosen += fitting
    return list(dict.fromkeys(chosen)), skipped


def target_of_model(model: OwnModel, usual: Target) -> Target:
    """Return the target that runs a user's own model on a device: `usual`, in a runtime that takes the model."""
    target = model.target(usual, named_in_full=False)
    if target is None:
        able = RUNTIMES[model.runtime].accelerators
        accelerator = usual.accelerator if usual.accelerator in able else able[0]
        target = model.target(replace(usual, runtime=model.runtime, accelerator=accelerator), named_in_full=False)
        assert target is not None
    return target


def _words(devices: Devices) -> list[str]:
    return [str(one) for one in ([devices] if isinstance(devices, str | Target) else devices)]
