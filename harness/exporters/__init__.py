"""Exports of networks: from an architecture to a file that a runtime executes and that agrees with eager PyTorch.

Files are cached, and exported ahead of the device.

>>> from latlab.harness.exporters import ArtifactCache, ExportPool, ExportRequest
>>> with ExportPool(ArtifactCache(folder), workers=2) as pool:                        # doctest: +SKIP
...     artifact = pool.submit(ExportRequest("fbnet", text, "tflite")).result()

Importing this package does not import torch; exporting does.
"""

from latlab.harness.exporters.base import (
    Artifact,
    CacheError,
    Exporter,
    ExportError,
    ExportRequest,
    InputData,
    Parity,
    UnknownFormatError,
    get_exporter,
    names,
)
from latlab.harness.exporters.cache import ArtifactCache
from latlab.harness.exporters.export_module import export_module
from latlab.harness.exporters.pool import ExportPool

__all__ = [
    "Artifact",
    "ArtifactCache",
    "CacheError",
    "ExportError",
    "ExportPool",
    "ExportRequest",
    "Exporter",
    "InputData",
    "Parity",
    "UnknownFormatError",
    "export_module",
    "get_exporter",
    "names",
]
