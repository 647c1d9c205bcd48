"""Export of a user's own module, which belongs to no search space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.exporters.base import Artifact, get_exporter
from latlab.harness.exporters.cache import ArtifactCache

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_module"]


def export_module(module: nn.Module, format: str, input_shape: Sequence[int], folder: Path) -> Artifact:
    """Export `module` into a cache in `folder`, and compare the file with eager PyTorch as for every artifact.

    This exports every time, because nothing shows whether the module has changed since. The file's hash is its key.

    Args:
        module: takes one float32 tensor, and returns one tensor or several. It is put into eval mode.
        format: the exporter's name.
        input_shape: the module's input shape, batch first.
        folder: the cache's folder.

    Raises:
        ExportError: it cannot be exported, or the file disagrees with eager PyTorch.
        CacheError: the folder cannot be written.
        UnknownFormatError: there is no such format.
    """
    from latlab.harness.exporters.pipeline import export_and_compare

    exporter = get_exporter(format)
    cache = ArtifactCache(folder)
    module.eval()
    with cache.temporary(exporter) as path:
        product = export_and_compare(module, exporter, input_shape, path, 0.0, constant=False, rows_independent=False)
        return cache.keep(path, product, exporter, None, input_shape[0])
