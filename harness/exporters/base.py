"""What an exporter is, what it is asked for and what comes out; nothing here imports torch.

An exporter turns an eval-mode `nn.Module` into one file that one runtime executes. The rest of this folder is
the same for all of them: `pipeline.py` builds, exports and compares, `cache.py` keeps, `pool.py` works ahead.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Artifact",
    "CacheError",
    "ExportError",
    "ExportRequest",
    "Exporter",
    "Parity",
    "UnknownFormatError",
    "get_exporter",
    "names",
]


class ExportError(Exception):
    """A network could not be exported. That is data too: it becomes a row of this `kind`.

    Kinds: `unsupported_op` (the format or its writer lacks an operator, which the message names),
    `export_mismatch` (the file disagrees with eager PyTorch), `crash`, `out_of_memory`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def message(self) -> str:
        return str(self)


class CacheError(Exception):
    """The folder of artifacts cannot be used: not writable, disk full. No network's fault, never a row."""


class UnknownFormatError(ValueError):
    """No exporter of that name is installed; the message lists those that are."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One network in one format."""

    space: str
    arch: str
    format: str
    batch_size: int = 1
    precision: str = "fp32"
    seed: int = 0
    """Of the weights."""
    as_written: bool = False
    """Keep dead edges and the published forms of activations and means."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch size must be at least 1, not {self.batch_size}")
        if self.precision != "fp32":
            raise ValueError(f"unknown precision {self.precision!r}; exporters write fp32")

    def key(self, version: str) -> str:
        """Content address in hex: covers every field, and `version` of all software that shapes the file."""
        text = json.dumps({**asdict(self), "version": version}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Parity:
    """How the file's outputs compare with eager PyTorch's (the rule is in `parity.py`)."""

    inputs: int
    """Different images that both were given."""
    max_abs_diff: float
    output_change: float
    """Largest change of any output element between two of the images, in eager PyTorch."""
    tolerance: float
    """`max_abs_diff` may not exceed this."""
    passed: bool
    exempt: str | None = None
    """Why the output does not depend on the input, where it does not; then the constant is compared."""
    contrast: float = 1.0
    """More than 1 where the images had to be enlarged before eager PyTorch agreed with itself."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An exported and compared file."""

    key: str
    path: Path
    sha256: str
    size_bytes: int
    format: str
    batch_size: int
    input_shape: tuple[int, ...]
    """As the file takes it, batch first: NCHW for ONNX and TorchScript, NHWC for TFLite."""
    parity: Parity
    build_s: float
    export_s: float
    parity_s: float
    exporter: str
    exporter_version: str
    operators: dict[str, int]
    """How many of each operator the file holds, in the format's own names."""

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON types."""
        return {**asdict(self), "path": str(self.path)}

    def facts(self) -> dict[str, Any]:
        """What of it goes into rows."""
        elsewhere = ("path", "sha256", "build_s", "export_s", "parity_s")
        return {name: value for name, value in self.to_json().items() if name not in elsewhere}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Artifact:
        """The reverse of `to_json`. Raises `KeyError`, `TypeError` or `ValueError` if it is none."""
        values = {field.name: data[field.name] for field in fields(cls)}
        values["path"] = Path(values["path"])
        values["input_shape"] = tuple(values["input_shape"])
        values["parity"] = Parity(**values["parity"])
        return cls(**values)


class Exporter(ABC):
    """Writes one format. A user's own is a subclass, registered as entry point of group `latlab.exporters`.

    Its module must be importable without torch (import it inside `export`), because a controller that
    only asks for `suffix` or `version` must start quickly.
    """

    name: ClassVar[str]
    """The format, equal to the name of the entry point."""
    suffix: ClassVar[str]
    """Of its files, with the dot."""
    runtime: ClassVar[str]
    """What executes its files (`latlab.agents.runtimes`)."""
    channels_last: ClassVar[bool] = False
    """Whether 4-D inputs and outputs of the file are NHWC where the module's are NCHW."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Versions and options of whatever shapes the bytes of the file."""

    @abstractmethod
    def export(self, module: nn.Module, example: Tensor, path: Path) -> dict[str, int]:
        """Writes `module` (in eval mode), for inputs of exactly `example`'s shape, to `path`.

        Deterministic: the same module gives the same bytes.

        Returns:
            How many of each operator the file holds.

        Raises:
            ExportError: `unsupported_op`, naming it.
        """

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the file takes where the module takes `shape`."""
        return (shape[0], *shape[2:], shape[1]) if self.channels_last and len(shape) == 4 else shape


def names() -> tuple[str, ...]:
    """The installed formats (entry points of the group `latlab.exporters`)."""
    return tuple(sorted({point.name for point in entry_points(group="latlab.exporters")}))


@cache
def get_exporter(name: str) -> Exporter:
    """The exporter of format `name`. Raises `UnknownFormatError`."""
    for point in entry_points(group="latlab.exporters", name=name):
        exporter: Exporter = point.load()()
        return exporter
    raise UnknownFormatError(f"unknown format {name!r}; installed are: {', '.join(names())}")
