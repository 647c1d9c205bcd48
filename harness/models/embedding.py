"""Joins an ONNX model and the files with its weights into one file, which a device can be sent."""

from __future__ import annotations

from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, Parity, get_exporter
from latlab.harness.exporters.pipeline import Product
from latlab.harness.models.onnx_model import embedded

__all__ = ["embedded_artifact"]


def embedded_artifact(path: Path, folder: Path) -> Artifact:
    """Return the artifact of a model with all its weights in one file, in a cache in `folder`.

    The file's hash is that of the model and its weights.

    Raises:
        BadInputError: if the weights cannot be read, or one file cannot hold them, or the cache cannot be written.
    """
    content = embedded(path)
    assert content is not None
    exporter = get_exporter("onnx")
    reason = "a file of the user's own, joined with its weights: there is nothing to compare it with"
    product = Product((), Parity(0, 0.0, 0.0, 0.0, True, reason), 0.0, 0.0, 0.0, {})
    try:
        cache = ArtifactCache(folder)
        with cache.temporary(exporter) as unfinished:
            unfinished.write_bytes(content)
            return cache.keep(unfinished, product, exporter, None, 1)
    except CacheError as error:
        raise BadInputError(str(error)) from error
    except OSError as error:
        raise BadInputError(f"cannot write {path.name} with its weights to {folder}: {error.strerror}") from error
