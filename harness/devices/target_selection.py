"""The targets that a command means, by its words (devices, full targets, `all`) and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.models.own_model import OwnModel
from latlab.harness.targets import RUNTIMES, Target

__all__ = ["TargetOptions", "select_targets", "target_of_model", "targets_of_model"]


@dataclass(frozen=True)
class TargetOptions:
    """A caller's choices of how networks run; what is None is left to the device's own targets."""

    runtime: str | None = None
    accelerator: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch_size: int | None = None

    @property
    def are_given(self) -> bool:
        """True if the caller has chosen anything."""
        return any(value is not None for value in vars(self).values())

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
            self.threads or 1,
            self.batch_size or 1,
        )


def select_targets(
    inventory: Inventory, devices: str | Sequence[str], options: TargetOptions = TargetOptions()
) -> list[Target]:
    """Return the targets that are meant, each once, in the order in which they are named.

    Args:
        devices: names of the inventory, full targets (`pi4/tflite/cpu/fp32/t4/b1`), or `all`.
        options: if none is given, a device stands for all its own targets.

    Raises:
        BadInputError: for an unknown device, a full target together with options, or no device at all.
    """
    words = [devices] if isinstance(devices, str) else list(devices)
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
            chosen.append(options.on(name, config.default_runtime))
        else:
            chosen += config.all_targets(name)
    if not chosen:
        raise BadInputError("say which devices")
    return list(dict.fromkeys(chosen))


def targets_of_model(
    inventory: Inventory, devices: str | Sequence[str], options: TargetOptions, model: OwnModel
) -> tuple[list[Target], list[str]]:
    """Return the targets that can run a user's own model, and the devices' targets that are skipped, in words.

    The model's file decides about precision and batch size. Of a device's own targets, those are taken whose runtime
    takes the file; if there is none, the usual runtime of its format.

    Args:
        devices, options: as for `select_targets`; `options.batch_size` is part of the model already.

    Raises:
        BadInputError: as `select_targets`; or if a target or an option contradicts the model.
    """
    model.check_precision(options.precision)
    options = replace(options, precision=None, batch_size=None)
    words = [devices] if isinstance(devices, str) else list(devices)
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
