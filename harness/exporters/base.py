"""The exporter's contract, its requests and its results. Nothing here imports torch.

An exporter turns an eval-mode `nn.Module` into one file that one runtime executes. All exporters share the rest of
this folder: `pipeline.py` builds, exports and compares, `cache.py` stores files, `pool.py` exports ahead.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.targets import PRECISIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "FILES_SINCE",
    "Artifact",
    "CacheError",
    "ExportError",
    "ExportRequest",
    "Exporter",
    "InputData",
    "LayerParity",
    "Parity",
    "UnknownFormatError",
    "get_exporter",
    "names",
]

FILES_SINCE = "0.1.0"
"""The version of latlab since which exporters write the same bytes. Raise it when a file changes: earlier files stay
out of the cache then, and a command begins a new campaign. An update that changes no file continues its campaigns."""


class ExportError(Exception):
    """A network could not be exported. That is a result, too: the network gets a row with this `kind`.

    Kinds: `unsupported_op` (the format or its writer lacks an operator, which the message names),
    `export_mismatch` (the file disagrees with eager PyTorch), `crash`, `out_of_memory`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def message(self) -> str:
        """The message as text."""
        return str(self)


class CacheError(Exception):
    """The cache folder cannot be used: it is not writable, or the disk is full. That says nothing about a network."""


class UnknownFormatError(ValueError):
    """No exporter of that name is installed. The message lists those that are."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request for one network in one format."""

    space: str
    arch: str
    format: str
    batch_size: int = 1
    precision: str = "fp32"
    seed: int = 0
    """Seed of the random weights."""
    as_written: bool = False
    """If true, dead edges stay, and activations and means keep their published form."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch size must be at least 1, not {self.batch_size}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; choose one of: {', '.join(PRECISIONS)}")

    def key(self, version: str) -> str:
        """Return a hash of all fields and of `version`, as 40 hex digits.

        Args:
            version: the versions of all software that shapes the file.
        """
        text = json.dumps({**asdict(self), "version": version}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class LayerParity:
    """The comparison of each layer of a file in low precision with the fp32 network (`layers/comparison.py`)."""

    layers: int
    """Number of layers."""
    worst: str
    """The name of the output with the largest error."""
    steps: float
    """That error: the root of the mean square, in steps of the output."""
    tolerance: float
    """The largest error of a layer that passes."""
    saturated: float
    """The largest share of a layer's outputs that lie outside the range of its int8 output."""
    sqnr_db: float | None
    """The ratio of signal to quantisation noise of the whole network's outputs, in dB; None if they do not change.

    The signal is the outputs' change between the images. It is reported and not judged: see `layers/comparison.py`.
    """


@dataclass(frozen=True, slots=True)
class Parity:
    """The comparison of the file's outputs with eager PyTorch's. The rule is in `parity.py`."""

    inputs: int
    """Number of different images in the comparison."""
    max_abs_diff: float
    """Largest absolute difference of any output element."""
    output_change: float
    """Largest change of any output element between two of the images, in eager PyTorch."""
    tolerance: float
    """The largest `max_abs_diff` that passes in fp32. In other precisions the layers decide."""
    passed: bool
    exempt: str | None = None
    """The reason why the output does not depend on the input, or None if it does.

    If it does not, its constant is compared.
    """
    contrast: float = 1.0
    """The images' contrast was raised by this factor until eager PyTorch agreed with itself; 1 if it did at once."""
    layers: LayerParity | None = None
    """The comparison of the layers of a file in another precision than fp32."""


class InputData(NamedTuple):
    """An `.npz` file with the values of a model's inputs, by name."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported file that passed the comparison with eager PyTorch.

    Fields that end in `_s` are durations in seconds.
    """

    key: str
    path: Path
    sha256: str
    size_bytes: int
    format: str
    batch_size: int
    input_shape: tuple[int, ...]
    """The input's shape in the file's layout, batch first: NCHW for ONNX and TorchScript, NHWC for TFLite."""
    parity: Parity
    build_s: float
    export_s: float
    parity_s: float
    exporter: str
    exporter_version: str
    operators: dict[str, int]
    """The number of each operator in the file, by the format's own operator names."""
    inputs: tuple[InputRequest, ...] = ()
    """How the inputs of a user's own model are to be filled; empty for one float32 input of `input_shape`."""
    data: InputData | None = None
    """The values of the inputs of a user's own model; None for random ones."""
    remarks: tuple[str, ...] = ()
    """What a reader of the latency of a user's own model should know about its inputs."""
    kernels: tuple[Mapping[str, Any], ...] = ()
    """What a user's own model executes (`predictors.graph.Work.to_json`), which its row keeps: the store has no file of
    it to read again. Empty for networks of search spaces, which can be built again, and where it is not known."""

    @property
    def suffix(self) -> str:
        """Suffix of the file's name on the device, which the format decides: a user's file may have another."""
        return get_exporter(self.format).suffix

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON types."""
        values = asdict(self)
        del values["inputs"], values["data"]  # the worker reports the inputs as it runs them
        if not self.kernels:
            del values["kernels"]
        return {**values, "path": str(self.path)}

    def facts(self) -> dict[str, Any]:
        """Return the fields that go into a result row's `artifact` column, as JSON types.

        Path, hash and durations are left out: they differ between runs, or rows have columns of their own for them.
        """
        elsewhere = ("path", "sha256", "build_s", "export_s", "parity_s")
        return {name: value for name, value in self.to_json().items() if name not in elsewhere}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Artifact:
        """Return the artifact that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: `data` describes no artifact.
        """
        values = {
            field.name: data[field.name]
            for field in fields(cls)
            if field.name not in ("inputs", "data", "remarks", "kernels")
        }
        values["path"] = Path(values["path"])
        values["input_shape"] = tuple(values["input_shape"])
        values["parity"] = Parity(**values["parity"])
        if isinstance(values["parity"].layers, dict):
            values["parity"] = replace(values["parity"], layers=LayerParity(**values["parity"].layers))
        return cls(**values)


class Exporter(ABC):
    """A writer of one format.

    A user's own exporter is a subclass, registered as an entry point of the group `latlab.exporters`. Its module must
    not import torch at the top (import it inside `export`), because a controller that only needs `suffix` or `version`
    must start quickly.
    """

    name: ClassVar[str]
    """The format's name, equal to the name of the entry point."""
    suffix: ClassVar[str]
    """The suffix of its files, with the dot."""
    runtime: ClassVar[str]
    """The runtime that executes its files; one of `latlab.agents.runtimes.NAMES`."""
    channels_last: ClassVar[bool] = False
    """True if the file's 4-D inputs and outputs are NHWC; the module's are NCHW."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """The precisions in which it writes networks, of `latlab.harness.targets.PRECISIONS`."""
    layered: ClassVar[str] = ""
    """The class that takes its files apart, to check other precisions than fp32 layer by layer, as `module:class`: a
    `latlab.harness.exporters.layers.base.LayeredFile`."""
    autoregressive: ClassVar[bool] = False
    """True if it writes networks that generate a sequence (`SearchSpace.autoregressive`), in fp32."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Versions and options of everything that shapes the bytes of the file."""

    def version_in(self, precision: str) -> str:
        """Return the versions of everything that shapes the bytes of a file in a precision."""
        return self.version

    @abstractmethod
    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        """Write `module` (in eval mode), for inputs of exactly the shape and type of `example`, to `path`.

        An exporter is deterministic: the same module gives the same bytes.

        Returns:
            The number of each operator in the file.

        Raises:
            ExportError: `unsupported_op`, naming the operator.
        """

    def export_in(self, precision: str, module: nn.Module, example: Tensor, path: Path) -> dict[str, int]:
        """Write `module` as `export` does, in another precision than fp32.

        The scales of a network do not depend on the batch size.

        Args:
            precision: one of `precisions`, but fp32.
            module: takes and returns float32, whatever the precision.
            example: its input.
            path: the file.

        Raises:
            ExportError: `unsupported_op`, naming the operator that the precision lacks.
        """
        raise ExportError("unsupported_op", f"{self.name} is not written in {precision}")

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's shape in the file, for the module's input `shape`."""
        return (shape[0], *shape[2:], shape[1]) if self.channels_last and len(shape) == 4 else shape


def names() -> tuple[str, ...]:
    """Return the names of the installed formats (entry points of the group `latlab.exporters`)."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.exporters")}))


@cache
def get_exporter(name: str) -> Exporter:
    """Return the exporter of format `name`.

    Raises:
        UnknownFormatError: no such exporter is installed.
    """
    for point in entry_points(group="latlab.exporters", name=name):
        exporter: Exporter = point.load()()
        return exporter
    raise UnknownFormatError(f"unknown format {name!r}; installed are: {', '.join(names())}")
