"""The networks in a worker's folder. Each is named by its content's hash, and used only if the content matches.

Wheels for the device's private environment come the same way, and are removed once they are unpacked.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress

from latlab.agents.protocol.errors import AgentError
from latlab.agents.workspace.verified_files import SeenWhole, Signature, signature_of

__all__ = ["WHEEL", "ModelFolder"]

WHEEL = ".whl"
"""The file name suffix of a wheel."""
_CHUNK = 1 << 20
SPARE_BYTES = 1 << 20
"""Bytes that stay free on the disk, besides the room for an arriving network."""
STALE_S = 86400.0
"""Age in seconds at which a partial file in `incoming`, or a wheel that was not installed, is removed."""


class ModelFolder:
    """The folder of pushed networks: arriving files in `incoming/<sha256>`, checked ones in `models/<sha256><suffix>`.

    A file is hashed when it moves to `models`, and again if it has changed since its last check (`verified_files`).

    Args:
        root: the work folder.
        max_bytes: if all networks together take more, the least recently used ones are removed. Wheels do not count.
    """

    def __init__(self, root: str, max_bytes: int) -> None:
        self._incoming = os.path.join(root, "incoming")
        self._models = os.path.join(root, "models")
        self._max_bytes = max_bytes
        self._seen_whole = SeenWhole(root)
        self._last_use: dict[str, int] = {}
        self._uses = 0
        os.makedirs(self._incoming, exist_ok=True)
        os.makedirs(self._models, exist_ok=True)
        self._sweep()

    def put(self, sha256: str, size: int, suffix: str) -> bool:
        """Return whether the network is here, after moving it to `models` if it has arrived in `incoming`.

        False means that it must be transferred. To make room for that on the disk, the least recently used networks are
        removed first.

        Raises:
            AgentError: "corrupt_artifact" if the arrived file does not match its hash or size; it is removed.
        """
        name = sha256 + suffix
        path = os.path.join(self._models, name)
        if os.path.isfile(path):
            if self._is_whole(path, sha256):
                self._touch(name)
                return True
            os.unlink(path)
        arrived = os.path.join(self._incoming, sha256)
        length = os.path.getsize(arrived) if os.path.isfile(arrived) else -1
        if length < size:
            self._evict(room=size + SPARE_BYTES)
            return False
        digest = _sha256(arrived)
        if length != size or digest != sha256:
            os.unlink(arrived)
            raise AgentError(
                "corrupt_artifact",
                f"the file arrived as {length} bytes with hash {digest[:12]}..., "
                f"not {size} bytes with hash {sha256[:12]}...",
            )
        os.replace(arrived, path)
        self._seen_whole.add(path, signature_of(path))
        self._touch(name)
        self._evict(keep=name)
        return True

    def path(self, sha256: str, suffix: str) -> str:
        """Return the path of the network's file.

        Raises:
            AgentError: "missing_artifact" if it was never put, or has been removed; "corrupt_artifact" if its content
                is no longer the same.
        """
        name = sha256 + suffix
        path = os.path.join(self._models, name)
        if not os.path.isfile(path):
            raise AgentError("missing_artifact", f"the network {sha256[:12]}... is not on the device: put it first")
        if not self._is_whole(path, sha256):
            os.unlink(path)
            raise AgentError("corrupt_artifact", f"the network {sha256[:12]}... has changed on the device")
        self._touch(name)
        return path

    def signature(self, sha256: str, suffix: str) -> Signature | None:
        """Return the signature of the network's file, or None if it is gone.

        A missing file does not harm a runtime that has it open already.
        """
        try:
            return signature_of(os.path.join(self._models, sha256 + suffix))
        except FileNotFoundError:
            return None

    def remove(self, sha256: str, suffix: str) -> None:
        """Remove a file that is no longer needed."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._models, sha256 + suffix))

    def arriving(self) -> list[tuple[str, int]]:
        """Return names and sizes in bytes of the files in `incoming`. They change while a transfer is under way."""
        sizes = []
        with os.scandir(self._incoming) as found:
            for entry in found:
                with suppress(OSError):  # it has just been renamed
                    sizes.append((entry.name, entry.stat(follow_symlinks=False).st_size))
        return sorted(sizes)

    def _is_whole(self, path: str, sha256: str) -> bool:
        signature = signature_of(path)
        if self._seen_whole.knows(path, signature):
            return True
        whole = _sha256(path) == sha256
        if whole:
            self._seen_whole.add(path, signature)
        return whole

    def _touch(self, name: str) -> None:
        # Not kept in the file's own times, because a hard link shares those with the controller's cache.
        self._uses += 1
        self._last_use[name] = self._uses

    def _sweep(self) -> None:
        """Remove what interrupted transfers and installations left behind long ago."""
        for folder, suffix in ((self._incoming, ""), (self._models, WHEEL)):
            with os.scandir(folder) as found:
                for entry in found:
                    with suppress(OSError):
                        age_s = time.time() - entry.stat(follow_symlinks=False).st_ctime
                        if entry.name.endswith(suffix) and age_s > STALE_S:
                            os.unlink(entry.path)

    def _evict(self, keep: str = "", room: int = 0) -> None:
        """Remove the least recently used networks until they fit `max_bytes` and the disk has `room` bytes free."""
        entries = []
        with os.scandir(self._models) as found:
            for entry in found:
                if entry.name.endswith(WHEEL):
                    continue
                status = entry.stat(follow_symlinks=False)
                entries.append((self._last_use.get(entry.name, 0), status.st_mtime_ns, entry.name, status.st_size))
        total = sum(size for *_, size in entries)
        disk = os.statvfs(self._models)
        free = disk.f_bavail * disk.f_frsize
        for _, _, name, size in sorted(entries):
            if total <= self._max_bytes and free >= room:
                return
            if name != keep:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._models, name))
                total -= size
                free += size


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)
