"""Export of a user's own module, which belongs to no search space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.agents.protocol.load_request import InputRequest
from latlab.harness.exporters.base import Artifact, get_exporter
from latlab.harness.exporters.cache import ArtifactCache

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_module"]


def export_module(module: nn.Module, format: str, inputs: Sequence[InputRequest], folder: Path) -> Artifact:
    """Export `module` into a cache in `folder`, and compare the file with eager PyTorch as for every artifact.

    This exports every time, because nothing shows whether the module has changed since. The file's hash is its key.

    Args:
        module: takes tensors, and returns one tensor or several. It is put into eval mode.
        format: the exporter's name.
        inputs: name, shape (batch first), type and range of each input.
        folder: the cache's folder.

    Raises:
        ExportError: it cannot be exported, or the file disagrees with eager PyTorch.
        CacheError: the folder cannot be written.
        UnknownFormatError: there is no such format.
    """
    from latlab.harness.exporters.pipeline import export_and_compare, export_with_inputs

    exporter = get_exporter(format)
    cache = ArtifactCache(folder)
    with suppress(NotImplementedError):  # a program of torch.export has no modes
        module.eval()
    shape = inputs[0].shape or ()
    one_image = len(inputs) == 1 and len(shape) > 1 and inputs[0].dtype in (None, "float32")
    with cache.temporary(exporter) as path, _without_fast_path():
        if one_image:
            product = export_and_compare(module, exporter, shape, path, 0.0, constant=False, rows_independent=False)
        else:
            product = export_with_inputs(module, exporter, inputs, path)
        return cache.keep(path, product, exporter, None, shape[0] if len(shape) > 1 else 1)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Let attention be computed from operators that every format has, not by torch's one operator for inference."""
    import torch

    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
