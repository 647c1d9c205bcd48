"""The targets that a command means, by its words (devices, full targets, `all`) and its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latlab.harness.errors import BadInputError
from latlab.harness.inventory.inventory import Inventory
from latlab.harness.targets import Target

__all__ = ["TargetOptions", "select_targets"]


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
            raise BadInputError(f"{target} says it all: leave out --runtime, --accelerator, --threads, --batch-size")
        if target is not None:
            chosen.append(target)
        elif options.are_given:
            chosen.append(options.on(name, config.default_runtime))
        else:
            chosen += config.all_targets(name)
    if not chosen:
        raise BadInputError("say which devices")
    return list(dict.fromkeys(chosen))
