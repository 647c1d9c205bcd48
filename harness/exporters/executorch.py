"""The ExecuTorch exporter: torch.export, then XNNPACK for every part of the graph that it takes."""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from latlab.agents.runtimes.pte_file import read_plan
from latlab.harness.errors import BadInputError
from latlab.harness.exporters.base import FILES_SINCE, Exporter, ExportError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ExecuTorchExporter", "operators"]

_UNSUPPORTED = re.compile(r"Operator \S+ is not in Core ATen opset|Missing out variants: [^.]+")
"""What ExecuTorch's exceptions say of an operator that it has no kernel for."""


class ExecuTorchExporter(Exporter):
    """The exporter of `*.pte` files, as ExecuTorch's own guide writes them for CPUs.

    ExecuTorch's passes take seconds for each network (benchmarks/RESULTS.md); the other exporters take some 0.1 s.
    """

    name: ClassVar[str] = "pte"
    suffix: ClassVar[str] = ".pte"
    runtime: ClassVar[str] = "executorch"

    @property
    def version(self) -> str:
        """Versions of everything that shapes the bytes of the file.

        Raises:
            BadInputError: executorch is not installed on this machine.
        """
        try:
            return f"latlab {FILES_SINCE}, torch {version('torch')}, executorch {version('executorch')}"
        except PackageNotFoundError:
            raise BadInputError(
                "this machine has no executorch, which writes the files for the runtime executorch",
                "Install it: pip install 'latlab[executorch]'",
            ) from None

    def export(self, module: nn.Module, example: Tensor | tuple[Tensor, ...], path: Path) -> dict[str, int]:
        import torch

        with torch.no_grad(), _quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            try:
                program = torch.export.export(module, example if isinstance(example, tuple) else (example,))
                lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
                content = bytes(lowered.to_executorch().buffer)
            except Exception as error:
                unsupported = _UNSUPPORTED.search(" ".join(str(error).split()))
                if unsupported:
                    raise ExportError("unsupported_op", unsupported[0][:300]) from error
                raise
        path.write_bytes(content)
        return operators(content)


def operators(content: bytes) -> dict[str, int]:
    """Return the number of each operator in a `.pte` file: XNNPACK's by its names, e.g. XNNConv2d, others by torch's.

    Raises:
        ValueError: the content is no such file.
    """
    plan = read_plan(content, "forward")
    kinds = _xnnpack_names()
    return dict(sorted(Counter([*plan.calls, *(kinds[number] for number in plan.delegated or ())]).items()))


@cache
def _xnnpack_names() -> tuple[str, ...]:
    """Return the names of XNNPACK's operators by their numbers, which the schema of its graphs gives by their order."""
    schema = files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs").read_text()
    union = re.search(r"union XNodeUnion \{(.*?)\}", schema, re.DOTALL)
    return ("NONE", *re.findall(r"^\s*(XNN\w+)", union[1] if union else "", re.MULTILINE))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of torch's and ExecuTorch's own code, and log messages, from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
