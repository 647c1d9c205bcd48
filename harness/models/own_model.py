"""A user's own model: from the file or the factory that `--model` names to what a device runs."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, CacheError, ExportError, Parity, export_module
from latlab.harness.models.description import ModelDescription
from latlab.harness.models.embedding import portable_artifact
from latlab.harness.models.factory import (
    call_factory,
    describe_factory,
    first_of_module,
    is_factory,
    likely_shapes,
    running_user_code,
    tables_of,
)
from latlab.harness.models.input_options import InputOptions
from latlab.harness.models.inputs import SettledInputs, UnsettledInputsError, settle
from latlab.harness.models.read import read_model
from latlab.harness.models.trial import first_that_runs, propose
from latlab.harness.targets import DEFAULT_RUNTIME, RUNTIMES, Target

__all__ = ["OwnModel", "locate", "own_model", "runtimes_for"]

NO_COMPARISON = Parity(0, 0.0, 0.0, 0.0, True, "a file of the user's own: there is nothing to compare it with")
"""The parity of a file that the user brings: there is no PyTorch module to compare it with."""
EXPORTED_TO = {"pt2": "torchscript", "module": DEFAULT_RUNTIME}
"""Formats that no runtime takes as they are, and the runtime that they are exported for."""


@dataclass(frozen=True)
class OwnModel:
    """The model that `--model` names."""

    name: str
    """The file or factory, followed by the shapes of its inputs."""
    format: str
    """The format that the device gets."""
    runtime: str
    """The runtime for that format, unless a device's own targets name another."""
    precision: str
    inputs: SettledInputs
    artifact: Callable[[Path], Artifact]
    """Returns the file to push, for a cache folder. A factory's module is exported first."""
    options: InputOptions = InputOptions()
    """What the user said of its inputs."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its campaign from those of other inputs, beside the file's hash and the model's name."""
        data = self.inputs.data
        ranges = {one.name: [one.low, one.high] for one in self.inputs.inputs if one.low is not None}
        shapes = {one.name: one.shape for one in self.inputs.inputs} if len(self.inputs.inputs) > 4 else None
        known = {"data": data.sha256 if data else None, "ranges": ranges or None, "shapes": shapes}
        return {name: value for name, value in known.items() if value is not None}

    def check_precisions(self, asked: str | Sequence[str] | None) -> None:
        """Raise `BadInputError` if another precision is asked for than the model has."""
        for one in (asked,) if isinstance(asked, str) else asked or ():
            if one != self.precision:
                raise BadInputError(
                    f"{self.name} is {self.precision}: --precision {one} cannot be had",
                    "The file decides: leave --precision out.",
                )

    def target(self, usual: Target, *, named_in_full: bool) -> Target | None:
        """Return `usual` with this model's precision and batch size; None if its runtime does not take the model.

        Args:
            usual: a target of a device.
            named_in_full: whether the user wrote the whole target; then it must agree with the model.

        Raises:
            BadInputError: if a target named in full contradicts the model.
        """
        fits = usual.format == self.format
        wanted = replace(usual, precision=self.precision, batch_size=self.inputs.batch_size)
        if not named_in_full:
            return wanted if fits else None
        if not fits:
            raise BadInputError(
                f"{usual} runs {usual.format} files, and {self.name} is {_article(self.format)} {self.format} file",
                f"Name {replace(wanted, runtime=self.runtime, accelerator='cpu')}, or only the device: {usual.device}.",
            )
        if wanted != usual:
            raise BadInputError(
                f"{usual} contradicts {self.name}, which is {self.precision} and runs at batch "
                f"{self.inputs.batch_size}",
                f"Name {wanted}, or only the device: {usual.device}.",
            )
        return usual


def locate(
    model: str, options: InputOptions, runtime: str | None, batch_size: int | None, *, one_of_several: bool = False
) -> OwnModel:
    """Return the model that a file or `package.module:factory` names.

    Args:
        model: a path or a factory. A file's content decides about its format, not its name.
        options: what the user says of its inputs.
        runtime: the runtime; None for the usual one of the file's format, and `onnxruntime` for a factory.
        batch_size: the batch size, where the model leaves it open.
        one_of_several: whether options that name nothing of this model are meant for another, and left out here.

    Raises:
        BadInputError: naming the model, all its inputs, and a command that works.
    """
    if runtime is not None and runtime not in RUNTIMES:
        raise BadInputError(f"unknown runtime {runtime!r}", f"Choose one of: {', '.join(RUNTIMES)}.")
    options.check()  # before a factory's code is run
    if is_factory(model):
        module = call_factory(model)
        description = describe_factory(model, module)
        chosen_options = options.of(description) if one_of_several else options
        return _from_factory(model, module, description, chosen_options, runtime, batch_size)
    path = Path(model)
    if not path.suffix and len(model) < 256 and not path.exists():
        raise BadInputError(
            f"{model!r} is not a model",
            "Give a model file (net.onnx, net.tflite, net.pt, ...) or package.module:factory.",
        )
    description = read_model(path)
    chosen_options = options.of(description) if one_of_several else options
    return _from_file(path, description, chosen_options, runtime, batch_size)


def own_model(model: Any, options: InputOptions, target: Target) -> OwnModel:
    """Return a model as a target runs it, in the target's runtime and batch size.

    Args:
        model: a path, a factory, or a `torch.nn.Module`.
        options: what the user says of its inputs.
        target: a full target, whose precision the model must have.

    Raises:
        BadInputError: naming the model, all its inputs, and a way out.
    """
    if isinstance(model, str | Path):
        own = locate(str(model), options, target.runtime, None)
    else:
        name = type(model).__name__
        own = _from_factory(name, model, describe_factory(name, model), options, target.runtime, None)
    own.check_precisions(target.precision)
    if own.inputs.batch_size != target.batch_size:
        raise BadInputError(
            f"{own.name} runs at batch {own.inputs.batch_size}, and {target} at {target.batch_size}",
            "Say the shape of its input with --input, or name a target of that batch size.",
        )
    return own


def _from_file(
    path: Path, description: ModelDescription, options: InputOptions, runtime: str | None, batch_size: int | None
) -> OwnModel:
    kind = description.format
    able = runtimes_for(description)
    if not able:
        raise BadInputError(f"{path} is a {kind} file, which no runtime of this latlab takes")
    if runtime not in (None, *able):
        raise BadInputError(
            f"{path} is {_article(kind)} {kind} file: it runs in {' and '.join(able)}, not in {runtime}",
            f"Leave --runtime out, or name a target of {able[0]}.",
        )
    chosen = runtime or able[0]
    settled = _settle(str(path), description, runtime, options, batch_size)
    if kind in EXPORTED_TO:
        return _from_program(path, description, settled, chosen, options)

    def artifact(cache: Path) -> Artifact:
        made = portable_artifact(path, cache / "own") if kind == "onnx" else None
        if made is not None:
            return replace(made, **_fields(settled))
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        return replace(plain_artifact(path, digest, len(content), RUNTIMES[chosen].format), **_fields(settled))

    return _own(path.name, chosen, description, settled, artifact, options)


def _own(
    name: str,
    runtime: str,
    description: ModelDescription,
    settled: SettledInputs,
    artifact: Callable[[Path], Artifact],
    options: InputOptions,
) -> OwnModel:
    text = f"{name} {settled.text}".strip()
    return OwnModel(text, RUNTIMES[runtime].format, runtime, description.precision, settled, artifact, options)


def runtimes_for(description: ModelDescription) -> list[str]:
    """Return the runtimes that take a model, the usual one first; it may have to be exported for them."""
    kind = description.format
    if kind in EXPORTED_TO:
        usual = EXPORTED_TO[kind]
        return [usual, *(name for name, one in RUNTIMES.items() if one.in_worker and name != usual)]
    return [name for name, one in RUNTIMES.items() if one.format == kind]


def plain_artifact(path: Path, sha256: str, size_bytes: int, format: str) -> Artifact:
    """Return the artifact of a file that is pushed as it is."""
    return Artifact(
        key=sha256,
        path=path,
        sha256=sha256,
        size_bytes=size_bytes,
        format=format,
        batch_size=1,
        input_shape=(),
        parity=NO_COMPARISON,
        build_s=0.0,
        export_s=0.0,
        parity_s=0.0,
        exporter="none",
        exporter_version="",
        operators={},
    )


def _fields(settled: SettledInputs) -> dict[str, Any]:
    """Return the fields of an artifact that say how its inputs are filled."""
    shape = settled.inputs[0].shape if len(settled.inputs) == 1 else None
    return {
        "batch_size": settled.batch_size,
        "input_shape": tuple(shape or ()),
        "inputs": settled.inputs,
        "data": settled.data,
        "remarks": settled.remarks,
    }


def _settle(
    model: str, description: ModelDescription, runtime: str | None, options: InputOptions, batch_size: int | None
) -> SettledInputs:
    """Return the inputs of a file; an error says a command that works."""
    try:
        return settle(description, options, batch_size)
    except UnsettledInputsError as error:
        chosen = runtime or runtimes_for(description)[0]
        proposed = propose(description, options, error, partial(first_that_runs, chosen, description.path))
        raise _with_command(error, model, runtime, options, batch_size, *proposed) from None


def _with_command(
    error: BadInputError,
    model: str,
    runtime: str | None,
    options: InputOptions,
    batch_size: int | None,
    words: Sequence[str],
    works: bool,
) -> BadInputError:
    """Return the error with a command that says what is missing."""
    rest = [] if batch_size is None else ["--batch-size", str(batch_size)]
    rest += [] if runtime is None else ["--runtime", runtime]
    command = shlex.join(["latlab", "measure", "local", "--model", model, *options.words(), *words, *rest])
    form = "Say it, for example" if works else "latlab has found no shape that it runs with. The form is"
    return BadInputError(error.message, f"{form}: {command}")


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeio" else "a"


def _from_program(
    path: Path, description: ModelDescription, settled: SettledInputs, runtime: str, options: InputOptions
) -> OwnModel:
    """Return a program of `torch.export`, which is exported again for a runtime."""

    def artifact(cache: Path) -> Artifact:
        from latlab.harness.models.torch_model import load_exported_program

        module = load_exported_program(path).module()
        module.train = lambda mode=True: module  # exporters set the mode, and a program has none
        return _exported(str(path), module, runtime, settled, cache)

    return _own(path.name, runtime, description, settled, artifact, options)


def _from_factory(
    model: str,
    module: Any,
    description: ModelDescription,
    options: InputOptions,
    runtime: str | None,
    batch_size: int | None,
) -> OwnModel:
    chosen = runtime or DEFAULT_RUNTIME
    with running_user_code(model, "when it was run"):
        settled = _settle_factory(model, module, description, runtime, options, batch_size)

    def artifact(cache: Path) -> Artifact:
        return _exported(model, module, chosen, settled, cache)

    return _own(model, chosen, description, settled, artifact, options)


def _settle_factory(
    model: str,
    module: Any,
    description: ModelDescription,
    runtime: str | None,
    options: InputOptions,
    batch_size: int | None,
) -> SettledInputs:
    """Return the inputs of a factory's module; integers are spread over the tables that they index when it runs."""
    try:
        settled = settle(description, options, batch_size)
    except UnsettledInputsError as error:
        tries = partial(first_of_module, module)
        proposed = propose(description, options, error, tries, likely_shapes(module))
        raise _with_command(error, model, runtime, options, batch_size, *proposed) from None
    tables = tables_of(module, settled.inputs)
    if not tables:
        return settled
    inputs = tuple(replace(one, high=tables.get(one.name)) for one in description.inputs)
    return settle(replace(description, inputs=inputs), options, batch_size)


def _exported(model: str, module: Any, runtime: str, settled: SettledInputs, cache: Path) -> Artifact:
    try:
        with running_user_code(model, "when it was run"):
            made = export_module(module, RUNTIMES[runtime].format, settled.inputs, cache / "own")
    except ExportError as error:
        others = [name for name, one in RUNTIMES.items() if one.in_worker and name != runtime]
        raise BadInputError(
            f"{model} cannot be exported for {runtime}: {error.message} ({error.kind})",
            f"Try another with --runtime ({', '.join(others)}), or export it yourself and give the file.",
        ) from error
    except CacheError as error:
        raise BadInputError(str(error)) from error
    if made.input_shape:  # one image, whose layout in the file may differ
        return replace(made, data=settled.data, remarks=settled.remarks)
    # In the file, the inputs have other names: they go by their places.
    return replace(made, **{**_fields(settled), "inputs": tuple(replace(one, name=None) for one in settled.inputs)})
