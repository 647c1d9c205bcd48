"""Kernels of files that were read before, kept in a folder: a file is read in seconds, its kernels in microseconds."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from latlab.harness.errors import BadInputError
from latlab.harness.paths import replaced_file
from latlab.predictors.graph import Work

__all__ = ["KeptKernels"]

READ_BY = ("onnx", "onnxruntime", "torch")
"""Packages whose versions decide what is read: they fuse operators."""


class KeptKernels:
    """The kernels of model files by what identifies a file. Processes may share the folder.

    Args:
        folder: made once something is kept. Where it cannot be written, nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, *identity: object) -> Work | None:
        """Return the kernels of a file that was read by this code, or None.

        Args:
            identity: its hash, and all that its kernels depend on besides: shapes, the network that it holds.
        """
        try:
            return Work.from_json(json.loads(self._path(identity).read_bytes()))
        except (OSError, ValueError, RecursionError):
            return None

    def keep(self, work: Work, *identity: object) -> None:
        """Keep the kernels of a file. `identity` is as for `get`."""
        with suppress(OSError, BadInputError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with replaced_file(self._path(identity)) as part:
                part.write_text(json.dumps(work.to_json()), encoding="utf-8")

    def _path(self, identity: tuple[object, ...]) -> Path:
        text = json.dumps([_reader(), *map(repr, identity)])
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.json"


@cache
def _reader() -> str:
    """Return a digest of the code that reads kernels, and the versions of the packages under it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    versions = []
    for name in READ_BY:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return f"{digest.hexdigest()} {versions}"
