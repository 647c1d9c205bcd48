"""Exporting a module of the user's own, which belongs to no search space."""

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
    """Exports `module` into a cache in `folder`, compared with eager PyTorch as every artifact is.

    Always exports: nothing says whether the module is the one of the last time. The key is the file's hash.

    Args:
        module: takes one float32 tensor, gives one tensor or several. Put into eval mode.
        input_shape: as the module takes it, batch first.

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
