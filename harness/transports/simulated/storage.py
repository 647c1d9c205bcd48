"""The disk of a simulated device: a folder, or hashes in memory."""

from __future__ import annotations

import hashlib
import shutil
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace.model_store import ModelFolder

__all__ = ["Folder", "Memory", "ModelFile", "Storage"]

CAPACITY_BYTES = 16 << 30
MAX_BYTES = 2 << 30
"""Most bytes of model files; the oldest are deleted first."""
_HEAD_BYTES = 8


class ModelFile(NamedTuple):
    """A model file, as far as a simulated device needs it."""

    sha256: str
    size: int
    head: bytes
    """Its first 8 bytes, which identify the format."""


class Storage(ABC):
    """The model files on a device. Raises `AgentError` as `latlab.agents.workspace.model_store.ModelFolder` does."""

    @abstractmethod
    def receive(self, path: Path, sha256: str) -> None:
        """Store a file as `incoming/<sha256>`, as a transport does."""

    @abstractmethod
    def put(self, sha256: str, size: int, suffix: str) -> bool:
        """Move a file out of `incoming` if it is there, and return whether the device has the model file."""

    @abstractmethod
    def find(self, sha256: str, suffix: str) -> ModelFile:
        """Return a model file whose hash is right."""

    @abstractmethod
    def check(self, sha256: str, suffix: str) -> None:
        """Raise `AgentError` if a model file has changed; one that is gone harms no loaded network."""

    @abstractmethod
    def damage(self) -> None:
        """Change the content of every model file."""


class Memory(Storage):
    """Hashes in memory. The controller's files are read once per process, however many devices get them."""

    def __init__(self) -> None:
        self._incoming: dict[str, ModelFile] = {}
        self._models: dict[str, ModelFile] = {}
        self._bytes = 0

    def receive(self, path: Path, sha256: str) -> None:
        status = path.stat()
        self._incoming[sha256] = _read(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def put(self, sha256: str, size: int, suffix: str) -> bool:
        name = sha256 + suffix
        if name in self._models:
            if self._models[name].sha256 == sha256:
                return True
            self._forget(name)
        arrived = self._incoming.pop(sha256, None)
        if arrived is None:
            return False
        if (arrived.sha256, arrived.size) != (sha256, size):
            raise AgentError("corrupt_artifact", f"the file arrived with hash {arrived.sha256[:12]}..., not its own")
        while self._models and self._bytes + size > MAX_BYTES:
            self._forget(next(iter(self._models)))
        self._models[name] = arrived
        self._bytes += size
        return True

    def find(self, sha256: str, suffix: str) -> ModelFile:
        file = self._models.get(sha256 + suffix)
        if file is None:
            raise AgentError("missing_artifact", f"the network {sha256[:12]}... is not on the device: put it first")
        if file.sha256 != sha256:
            self._forget(sha256 + suffix)
            raise AgentError("corrupt_artifact", f"the network {sha256[:12]}... has changed on the device")
        return file

    def check(self, sha256: str, suffix: str) -> None:
        if sha256 + suffix in self._models:
            self.find(sha256, suffix)

    def damage(self) -> None:
        self._models = {name: file._replace(sha256="damaged") for name, file in self._models.items()}

    def _forget(self, name: str) -> None:
        self._bytes -= self._models.pop(name).size


class Folder(Storage):
    """A worker's folder, as real devices have it.

    Args:
        root: the work folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._models = ModelFolder(str(root), MAX_BYTES)

    def receive(self, path: Path, sha256: str) -> None:
        part = self._root / "incoming" / f"{sha256}.part"
        shutil.copyfile(path, part)
        part.replace(self._root / "incoming" / sha256)

    def put(self, sha256: str, size: int, suffix: str) -> bool:
        return self._models.put(sha256, size, suffix)

    def find(self, sha256: str, suffix: str) -> ModelFile:
        path = Path(self._models.path(sha256, suffix))
        with path.open("rb") as file:
            return ModelFile(sha256, path.stat().st_size, file.read(_HEAD_BYTES))

    def check(self, sha256: str, suffix: str) -> None:
        if self._models.signature(sha256, suffix) is not None:
            self._models.path(sha256, suffix)

    def damage(self) -> None:
        for path in (self._root / "models").iterdir():
            path.write_bytes(b"junk")


@lru_cache(10_000)
def _read(path: Path, *_signature: int) -> ModelFile:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        return ModelFile(digest.hexdigest(), file.tell(), head)
