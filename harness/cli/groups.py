"""Groups of options that several commands share: a parameter whose type is a group stands for all of its options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, get_type_hints

from latlab.harness.cli.options import (
    STORE,
    AcceleratorOption,
    BatchOption,
    DimOption,
    FactOption,
    InputDataOption,
    InputOption,
    InventoryOption,
    OneRuntimeOption,
    OneThreadsOption,
    PrecisionOption,
    PredictorOption,
    PretrainedOption,
    RangeOption,
    RuntimeOption,
    SourcesOption,
    SpacesFromOption,
    StoreOption,
    ThreadsOption,
    several,
    whole_numbers,
)
from latlab.harness.errors import BadInputError
from latlab.harness.store.place import StorePath

if TYPE_CHECKING:
    from latlab.harness.active_learning.predictor_factory import PredictorOptions
    from latlab.harness.devices.target_selection import TargetOptions
    from latlab.harness.lab import Lab
    from latlab.harness.models.input_options import InputOptions

__all__ = ["InputGroup", "LabGroup", "OneTargetGroup", "PredictorGroup", "TargetGroup", "existing", "grouped"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of its groups as parameters of its own, which is what typer reads.

    The function itself gets each group as one value.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, one in signature.parameters.items():
        parameters += _options(groups[name]) if name in groups else [one.replace(kind=one.KEYWORD_ONLY)]

    @wraps(command)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _options(group: Any) -> list[inspect.Parameter]:
    """Return the options of a group as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


class _Group:
    """What groups have in common."""

    @property
    def are_given(self) -> bool:
        """True if any of its options is given."""
        return any(value is not None for value in vars(self).values())


@dataclass(frozen=True)
class TargetGroup(_Group):
    """How networks run on a device. Several values of an option are several targets."""

    runtime: RuntimeOption = None
    accelerator: AcceleratorOption = None
    precision: PrecisionOption = None
    threads: ThreadsOption = None
    batch_size: BatchOption = None

    def options(self) -> TargetOptions:
        """Return them as Python takes them. Raises `BadInputError` if one is empty, or no number where it must be."""
        from latlab.harness.devices.target_selection import TargetOptions

        return TargetOptions(
            several("--runtime", self.runtime),
            several("--accelerator", self.accelerator),
            several("--precision", self.precision),
            whole_numbers("--threads", self.threads),
            whole_numbers("--batch-size", self.batch_size),
        )


@dataclass(frozen=True)
class OneTargetGroup(TargetGroup):
    """How one network runs on one device: one value each."""

    runtime: OneRuntimeOption = None
    threads: OneThreadsOption = None

    def options(self) -> TargetOptions:
        """Return them as Python takes them. Raises `BadInputError` also if one has several values."""
        found = super().options()
        found.single()
        return found


@dataclass(frozen=True)
class InputGroup(_Group):
    """What a model of one's own leaves open of its inputs."""

    inputs: InputOption = None
    dims: DimOption = None
    ranges: RangeOption = None
    data: InputDataOption = None

    def options(self) -> InputOptions:
        """Return them as Python takes them."""
        from latlab.harness.models.input_options import InputOptions

        return InputOptions(tuple(self.inputs or ()), tuple(self.dims or ()), tuple(self.ranges or ()), self.data)

    def of(self, model: list[str] | None) -> tuple[str | None, InputOptions]:
        """Return the model of one's own and what is said of its inputs.

        Raises:
            BadInputError: there are several models, or inputs without a model.
        """
        if model is not None and len(model) > 1:
            raise BadInputError(
                f"--model is given {len(model)} times: {', '.join(model)}",
                f"Measure one after the other, or compare them side by side: latlab compare {' '.join(model)}",
            )
        if model is None and self.are_given:
            raise BadInputError("--input, --dim, --range and --input-data are options of --model", "Add --model FILE.")
        return (model[0] if model else None), self.options()


@dataclass(frozen=True)
class PredictorGroup:
    """Which predictor is fitted, and what it learns from."""

    predictor: PredictorOption = None
    sources: SourcesOption = "all"
    spaces_from: SpacesFromOption = "all"
    fact: FactOption = None
    pretrained: PretrainedOption = None

    def options(self) -> PredictorOptions:
        """Return them as Python takes them. Raises `BadInputError`."""
        from latlab.harness.active_learning.predictor_factory import PredictorOptions, parse_facts, predictor_options

        if self.predictor is not None and not self.predictor.strip():
            raise BadInputError("--predictor is empty", "Name a predictor, or leave it out.")
        facts = parse_facts(self.fact or ())
        return predictor_options(
            PredictorOptions(self.predictor, self.sources, facts, self.spaces_from, self.pretrained)
        )


@dataclass(frozen=True)
class LabGroup:
    """The store that is worked on, and the devices."""

    store: StoreOption = STORE
    inventory: InventoryOption = None

    def open(self) -> Lab:
        """Return a `Lab` on them."""
        from latlab.harness.lab import Lab

        return Lab(self.store, inventory=self.inventory)

    def check_store(self) -> None:
        """Raise `StoreError` if the store does not exist."""
        existing(self.store)


def existing(store: StorePath) -> None:
    """Raise `StoreError` if a store does not exist: a command that reads must not make one."""
    from latlab.harness.store.store import Store

    Store(store, must_exist=True).close()
