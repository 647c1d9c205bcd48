"""A cache of exported networks: a folder of files named by content, with a description of each.

    files/<sha256>.onnx     the networks; two requests that give the same graph share one
    entries/<key>.json      one `Artifact` per request, written after its file

Each file is written under a temporary name, flushed to the disk and renamed, so a file with its final name is complete.
`get` verifies size and hash nevertheless, because disks fail and people edit files. Processes may share the folder.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from latlab import search_spaces
from latlab.harness.exporters.base import Artifact, CacheError, Exporter, ExportRequest, get_exporter
from latlab.harness.paths import FULL

if TYPE_CHECKING:
    from latlab.harness.exporters.pipeline import Product

__all__ = ["ArtifactCache"]

GIBIBYTE = 2**30
KEEP_S = 3600.0
"""A file used within so many seconds is not evicted: it may be on its way to a device."""

SCAN_SHARE = 64
"""The folder's size is measured again after each 1/64 of the limit written, so it may exceed the limit by that."""

EVICT_TO = 0.9
"""Eviction reduces the folder to this share of the limit, so that the next eviction is not due at once."""


class ArtifactCache:
    """A cache of artifacts by request, of at most `max_bytes`; the least recently used ones are evicted first.

    Args:
        folder: a writable folder. It is made if it does not exist.
        max_bytes: the limit of the files' total size.

    Raises:
        CacheError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, max_bytes: int = 8 * GIBIBYTE) -> None:
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes
        self._files = self.folder / "files"
        self._entries = self.folder / "entries"
        self._written: int | None = None  # bytes since the folder's size was last measured; None: never measured
        with self._writing():
            self._files.mkdir(parents=True, exist_ok=True)
            self._entries.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self._files):
                pass

    def get(self, request: ExportRequest) -> Artifact | None:
        """Return the artifact of `request`, or None.

        A file that is not byte for byte what was exported is never returned.
        """
        return self._read(self.key(request))

    def ensure(self, request: ExportRequest) -> Artifact:
        """Return the artifact of `request`; export it if the cache lacks it.

        Raises:
            ExportError: the network cannot be exported, or the file disagrees with eager PyTorch.
            CacheError: the folder cannot be written, or the disk is full.
        """
        from latlab.harness.exporters.pipeline import produce

        artifact = self.get(request)
        if artifact is not None:
            return artifact
        exporter = get_exporter(request.format)
        with self._writing(), self.temporary(exporter) as path:
            return self.keep(path, produce(request, path), exporter, self.key(request), request.batch_size)

    @staticmethod
    def key(request: ExportRequest) -> str:
        """Return the key of `request` with the software that is installed now."""
        return request.key(_version(request.space, request.format, request.precision))

    @contextmanager
    def temporary(self, exporter: Exporter) -> Iterator[Path]:
        """Yield a path in the cache's folder for a file to write and then `keep`. It is removed afterwards."""
        handle, name = tempfile.mkstemp(dir=self._files, prefix="tmp-", suffix=exporter.suffix)
        os.close(handle)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, temporary: Path, product: Product, exporter: Exporter, key: str | None, batch_size: int) -> Artifact:
        """Move a written file to its place, write its entry and return the artifact.

        Args:
            temporary: the written file.
            product: what is known about it.
            exporter: the exporter that wrote it.
            key: the entry's name; None for the file's own hash.
            batch_size: the batch size of its input.

        Raises:
            CacheError: the folder cannot be written, or the disk is full.
        """
        with self._writing():
            content = temporary.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            _flush(temporary)
            artifact = Artifact(
                key=key or sha256,
                path=self._path(sha256, exporter.suffix),
                sha256=sha256,
                size_bytes=len(content),
                format=exporter.name,
                batch_size=batch_size,
                input_shape=product.input_shape,
                parity=product.parity,
                build_s=product.build_s,
                export_s=product.export_s,
                parity_s=product.parity_s,
                exporter=exporter.name,
                exporter_version=exporter.version,
                operators=product.operators,
            )
            os.replace(temporary, artifact.path)
            self._write_entry(artifact)
            self._make_room(len(content))
        return artifact

    def _path(self, sha256: str, suffix: str) -> Path:
        return self._files / f"{sha256}{suffix}"

    def _write_entry(self, artifact: Artifact) -> None:
        entry = self._entries / f"{artifact.key}.json"
        handle, name = tempfile.mkstemp(dir=self._entries, prefix="tmp-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(artifact.to_json(), file)
            _flush(Path(name))
            os.replace(name, entry)
        finally:
            Path(name).unlink(missing_ok=True)

    def _read(self, key: str) -> Artifact | None:
        entry = self._entries / f"{key}.json"
        try:
            artifact = Artifact.from_json(json.loads(entry.read_bytes()))
            # Not the entry's own path: the folder may have moved since.
            path = self._path(artifact.sha256, get_exporter(artifact.format).suffix)
            content = path.read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if len(content) != artifact.size_bytes or hashlib.sha256(content).hexdigest() != artifact.sha256:
            return None
        for used in (path, entry):
            with suppress(OSError):  # a folder that belongs to another user may be readable only
                os.utime(used)
        return replace(artifact, path=path)

    def _make_room(self, written: int) -> None:
        """Evict the least recently used files if the folder has grown larger than `max_bytes`."""
        if self._written is not None and self._written + written < self.max_bytes / SCAN_SHARE:
            self._written += written
            return
        self._written = 0
        files = sorted(_stats(self._files), key=lambda item: item[1].st_mtime)
        total = sum(stat.st_size for _, stat in files)
        target = self.max_bytes if total <= self.max_bytes else EVICT_TO * self.max_bytes
        oldest_kept = time.time() - KEEP_S
        evicted = False
        for path, stat in files:
            abandoned = path.name.startswith("tmp-")  # a worker was killed while it wrote
            if stat.st_mtime < oldest_kept and (abandoned or total > target):
                path.unlink(missing_ok=True)
                total -= stat.st_size
                evicted = True
        if evicted:
            self._drop_orphans(oldest_kept)

    def _drop_orphans(self, oldest_kept: float) -> None:
        """Remove entries whose file is gone. Young ones stay, because their file may still be about to appear."""
        files = {path.stem for path, _ in _stats(self._files)}
        for path, stat in _stats(self._entries):
            if stat.st_mtime >= oldest_kept:
                continue
            try:
                sha256 = json.loads(path.read_bytes())["sha256"]
            except (OSError, ValueError, KeyError, TypeError):
                sha256 = None
            if sha256 not in files:
                path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            hint = "Free space there, or name" if error.errno in FULL else "Name"
            raise CacheError(
                f"cannot keep exported networks in {self.folder}: {reason}. {hint} another folder in LATLAB_CACHE."
            ) from error


def _stats(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the files of a folder; files that vanish meanwhile are left out."""
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            yield Path(entry.path), entry.stat()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@cache
def _version(space: str, file_format: str, precision: str) -> str:
    """Return the exporter's version with a digest of all source code that shapes the file.

    A version number changes with a release, code changes with every edit: without the digest, a developer of a space or
    an exporter would get files that older code wrote.
    """
    exporter = get_exporter(file_format)
    folders = [Path(__file__).parent, Path(inspect.getfile(search_spaces)).parent]
    sources = {path for folder in folders for path in folder.rglob("*.py")}
    sources |= {Path(inspect.getfile(type(part))) for part in (exporter, search_spaces.get(space))}
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return f"{exporter.version_in(precision)}; sources {digest.hexdigest()}"
