"""Makes one file, which a device can be sent, of an ONNX model and the files with its weights."""

from __future__ import annotations

from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, Parity, get_exporter
from latlab.harness.exporters.pipeline import Product
from latlab.harness.models.onnx_model import portable

__all__ = ["portable_artifact"]


def portable_artifact(path: Path, folder: Path) -> Artifact | None:
    """Return the artifact of an ONNX model that does not run anywhere as it is, made portable, in a cache in `folder`.

    The file's hash is that of the model and all its weights. The result is None if the model is portable.

    Raises:
        BadInputError: if the weights cannot be read, or one file cannot hold them, or the cache cannot be written.
    """
    content = portable(path)
    if content is None:
        return None
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
