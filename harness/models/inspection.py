"""Everything that can be said of a model before a device is touched."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.models.delegates import delegates_of
from latlab.harness.models.description import ModelDescription
from latlab.harness.models.factory import call_factory, describe_factory, is_factory
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.inputs import SettledInputs, UnsettledInputsError, settle
from latlab.harness.models.own_model import runtimes_for
from latlab.harness.models.read import read_model

__all__ = ["Inspection", "inspect_model"]


@dataclass(frozen=True)
class Inspection:
    """A model's description, how its inputs would be run, and what would run it."""

    description: ModelDescription
    inputs: SettledInputs | None
    """The inputs as `measure` would run them; None if something of them is open."""
    open: str | None
    """What is open, in words."""
    runtimes: tuple[str, ...]
    """Runtimes that take the model."""
    delegates: tuple[str, ...]
    """Delegates and accelerators with what is known of whether they take the model, in words."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        settled = self.inputs and {
            "inputs": [asdict(one) for one in self.inputs.inputs],
            "batch_size": self.inputs.batch_size,
            "remarks": list(self.inputs.remarks),
        }
        return {
            **self.description.to_json(),
            "settled": settled,
            "open": self.open,
            "runtimes": list(self.runtimes),
            "delegates": list(self.delegates),
        }


def inspect_model(model: str, options: InputOptions = InputOptions(), batch_size: int | None = None) -> Inspection:
    """Return what a model file or a factory's module is.

    Args:
        model: a path, or `package.module:factory`, whose code is run.
        options: what the user says of its inputs; multiplications are counted for these.
        batch_size: the batch size, where the model leaves it open.

    Raises:
        BadInputError: if there is no such model, it cannot be read, or `options` contradict it.
    """
    description = describe_factory(model, call_factory(model)) if is_factory(model) else read_model(Path(model))
    settled: SettledInputs | None = None
    left_open: str | None = None
    try:
        settled = settle(description, options, batch_size)
    except UnsettledInputsError as error:
        left_open = error.message
    except BadInputError as error:
        if options != InputOptions() or batch_size is not None:
            raise
        left_open = error.message
    if settled is not None and description.format == "onnx" and description.macs is None:
        shapes = {one.name: one.shape for one in settled.inputs if one.name is not None and one.shape is not None}
        counted = read_model(Path(model), shapes)
        description = replace(counted, inputs=description.inputs, outputs=description.outputs)
    return Inspection(
        description, settled, left_open, tuple(runtimes_for(description)), tuple(delegates_of(description))
    )
