"""The worker as one file: a zip archive of the package `latlab.agents` that Python can run."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

__all__ = ["WorkerProgram", "worker_program"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can store."""
_MAIN = "from latlab.agents.worker import main\n\nmain()\n"


@dataclass(frozen=True, slots=True)
class WorkerProgram:
    """A runnable archive, and its file name on devices."""

    content: bytes
    name: str


@cache
def worker_program() -> WorkerProgram:
    """Return the worker of this version of latlab. The same sources give the same bytes on every machine."""
    # `latlab` is a regular package in the archive, so that modules of a latlab installed on the device cannot mix in.
    sources = {"__main__.py": _MAIN.encode(), "latlab/__init__.py": b""}
    sources.update(_sources(files("latlab.agents"), "latlab/agents"))
    buffer = io.BytesIO()
    # Stored, not compressed: the output of zlib depends on its version, and the archive is small.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, source in sorted(sources.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # Unix, wherever it is built
            archive.writestr(entry, source)
    content = buffer.getvalue()
    return WorkerProgram(content, f"latlab-worker-{hashlib.sha256(content).hexdigest()[:16]}.pyz")


def _sources(folder: Traversable, prefix: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found.update(_sources(entry, f"{prefix}/{entry.name}"))
        elif entry.name.endswith(".py"):
            found[f"{prefix}/{entry.name}"] = entry.read_bytes()
    return found
