"""Targets: a device together with the settings that change how long a network takes on it; the table of runtimes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from latlab.harness.errors import BadInputError

if TYPE_CHECKING:
    from latlab.search_spaces import SearchSpace

__all__ = [
    "ACCELERATORS",
    "AUTOREGRESSIVE",
    "BENCHMARK_MODEL",
    "DEFAULT_RUNTIME",
    "PRECISIONS",
    "RUNTIMES",
    "USUAL_RUNTIMES",
    "Devices",
    "RuntimeSpec",
    "Target",
]


class RuntimeSpec(NamedTuple):
    """An inference runtime, as the controller knows it."""

    format: str
    """The file format that it takes; the exporter of that name (entry points `latlab.exporters`) writes it."""
    accelerators: tuple[str, ...]
    """Accelerators that it can run networks on; not every device has all of them."""
    precisions: tuple[str, ...] = ("fp32",)
    """Precisions in which networks of search spaces are exported for it. A model of one's own may have any other."""
    profiler: bool = False
    """True if it has a profiler that `latlab profile` can read."""
    autoregressive: bool = False
    """True if networks that generate a sequence, such as HAT's decoders, run on it."""
    in_worker: bool = True
    """True if the worker runs it, from a Python package (`agents/runtimes`) that `latlab setup` can install."""


BENCHMARK_MODEL = "benchmark_model"
"""The one runtime that is not the worker's: TFLite's own program on phones. It runs the same kernels as `tflite`, but
in another program, whose times are not the Python interpreter's."""
RUNTIMES = {
    "onnxruntime": RuntimeSpec("onnx", ("cpu", "cuda"), ("fp32", "fp16", "int8"), profiler=True, autoregressive=True),
    "tflite": RuntimeSpec("tflite", ("cpu",), ("fp32", "fp16", "int8"), profiler=True),
    "torchscript": RuntimeSpec(
        "torchscript", ("cpu", "cuda"), ("fp32", "fp16", "bf16"), profiler=True, autoregressive=True
    ),
    "openvino": RuntimeSpec("onnx", ("cpu", "gpu"), ("fp32", "int8")),
    "executorch": RuntimeSpec("pte", ("cpu",)),
    BENCHMARK_MODEL: RuntimeSpec(
        "tflite", ("cpu", "gpu", "nnapi"), ("fp32", "fp16", "int8"), profiler=True, in_worker=False
    ),
}
"""The runtimes: the one table from which the command line, the inventory, `latlab setup` and targets take them.

The first runtime of a format is the usual one for a user's own file of that format."""
AUTOREGRESSIVE = tuple(name for name, runtime in RUNTIMES.items() if runtime.autoregressive)
"""The runtimes of networks that generate a sequence. The others' formats have no loop, or take minutes to write thirty
steps one after the other; OpenVINO 2026.4 reads the loop of the ONNX files, but computes NaN."""
DEFAULT_RUNTIME = "onnxruntime"
USUAL_RUNTIMES = ("onnxruntime", "tflite")
"""The runtimes that a device without targets in the inventory should have: small ones, for most networks."""
ACCELERATORS = tuple(dict.fromkeys(name for runtime in RUNTIMES.values() for name in runtime.accelerators))
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""Number formats in which most of a network's arithmetic is done. A model file of one's own may have any of them."""

_FORM = "DEVICE/RUNTIME/ACCELERATOR/PRECISION/tTHREADS/bBATCH, for example local/onnxruntime/cpu/fp32/t1/b1"


@dataclass(frozen=True, slots=True)
class Target:
    """A device, a runtime and its settings: what a latency belongs to.

    The same phone at batch 1 and at batch 32 is two targets.

    >>> str(Target("local", "onnxruntime"))
    'local/onnxruntime/cpu/fp32/t1/b1'
    """

    device: str
    runtime: str
    accelerator: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise BadInputError(f"unknown runtime {self.runtime!r}", f"Choose one of: {', '.join(RUNTIMES)}.")
        if self.accelerator not in ACCELERATORS:
            raise BadInputError(
                f"unknown accelerator {self.accelerator!r}", f"Choose one of: {', '.join(ACCELERATORS)}."
            )
        if self.accelerator not in (offered := RUNTIMES[self.runtime].accelerators):
            able = [name for name, runtime in RUNTIMES.items() if self.accelerator in runtime.accelerators]
            raise BadInputError(
                f"{self.runtime} does not run on {self.accelerator}, only on {' and '.join(offered)}",
                f"With {self.accelerator}, choose the runtime {' or '.join(able)}.",
            )
        if self.precision not in PRECISIONS:
            raise BadInputError(
                f"unknown precision {self.precision!r}",
                f"Choose one of: {', '.join(PRECISIONS)}. A target reads {_FORM}.",
            )
        if not 1 <= self.threads <= 1024:
            raise BadInputError(f"threads must be between 1 and 1024, not {self.threads}")
        if not 1 <= self.batch_size <= 65536:
            raise BadInputError(f"batch size must be between 1 and 65536, not {self.batch_size}")

    def __str__(self) -> str:
        return f"{self.device}/{self.runtime}/{self.accelerator}/{self.precision}/t{self.threads}/b{self.batch_size}"

    def check_exported(self, space: SearchSpace | None = None) -> None:
        """Check that networks of search spaces, or of one space, are exported for this runtime in this precision.

        Raises:
            BadInputError: they are not; the error names the precisions and the runtimes that can be had.
        """
        if space is not None and space.autoregressive and self.runtime not in AUTOREGRESSIVE:
            raise BadInputError(
                f"{self.runtime} does not run networks of {space.name}, which generate a sequence step by step; "
                f"runtimes that do: {', '.join(AUTOREGRESSIVE)}"
            )
        offered = RUNTIMES[self.runtime].precisions
        if self.precision in offered:
            return
        able = [name for name, runtime in RUNTIMES.items() if self.precision in runtime.precisions]
        raise BadInputError(
            f"{self.runtime} has no {self.precision}: choose {', '.join(offered[:-1])} or {offered[-1]}"
            if len(offered) > 1
            else f"{self.runtime} has {offered[0]} only",
            f"{self.precision} can be had with the runtime {' or '.join(able)}." if able else None,
        )

    def check_profiler(self) -> None:
        """Check that the runtime has a profiler that latlab can read.

        Raises:
            BadInputError: it has none; the hint names those that have one.
        """
        if not RUNTIMES[self.runtime].profiler:
            able = [name for name, runtime in RUNTIMES.items() if runtime.profiler]
            raise BadInputError(
                f"{self.runtime} has no profiler that latlab can read",
                f"Choose another with --runtime: {', '.join(able)}.",
            )

    @property
    def format(self) -> str:
        """The file format that the runtime takes."""
        return RUNTIMES[self.runtime].format

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that a text such as `local/onnxruntime/cpu/fp32/t1/b1` names.

        Raises:
            BadInputError: if `text` is not a target.
        """
        parts = text.strip().split("/")
        match = re.fullmatch(r"t(\d{1,4})/b(\d{1,5})", "/".join(parts[4:]))
        if len(parts) != 6 or match is None or not all(parts):
            raise BadInputError(f"{text!r} is not a target", f"A target reads {_FORM}.")
        device, runtime, accelerator, precision = parts[:4]
        return cls(device, runtime, accelerator, precision, int(match[1]), int(match[2]))


Devices: TypeAlias = str | Target | Sequence[str | Target]
"""What a caller names devices by: a device of the inventory, a full target, `all`, or several of these."""
