"""Many exports into one folder, which may be in object storage, by any engine.

The folder is laid out as the cache of exported networks (`cache.py`): `files/` with names by content, and an entry per
request that is written after its file. So a killed export leaves no half network, nothing is exported twice, and a
local folder can serve as a cache.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlab.harness.distributed.engines import in_parallel
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters.base import Artifact, CacheError, ExportError, ExportRequest
from latlab.harness.exporters.cache import ArtifactCache
from latlab.harness.paths import whole_file

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = ["INDEX", "ExportedNetwork", "export_many", "open_destination", "write_index"]

AT_A_TIME = 4
"""Networks that are sent to a process together; each is kept as soon as it is done."""
UNLIMITED = 1 << 62
"""Bytes: what was asked for is never evicted."""
INDEX = "index.csv"


@dataclass(frozen=True)
class ExportedNetwork:
    """One network in one format: a row of `index.csv`."""

    space: str
    arch: str
    format: str
    precision: str
    batch_size: int
    seed: int
    """Seed of the random weights."""
    status: str
    """`ok`, or the kind of failure."""
    file: str = ""
    """Path in the folder; networks with the same graph share one file."""
    sha256: str = ""
    size_bytes: int = 0
    max_abs_diff: float | None = None
    """Largest difference from eager PyTorch's outputs."""
    new: bool = False
    """Whether it was exported now, and not by an earlier call."""
    error: str = ""


def export_many(
    requests: Iterable[ExportRequest], to: str, *, engine: str = "local", jobs: int = 1
) -> Iterator[ExportedNetwork]:
    """Yield networks as they are exported into a folder; what is there already is only looked at.

    Args:
        requests: the networks, in any order.
        to: a folder, or a URL of one that fsspec knows (`s3://bucket/folder`). On a cluster every node must reach it.
        engine: as `in_parallel`.
        jobs: number of processes of `local`.

    Raises:
        BadInputError: the engine or the folder cannot be used.
        LatlabError: the folder cannot be written, its disk is full, or processes died again and again.
    """
    left = iter(requests)
    parts = iter(lambda: list(islice(left, AT_A_TIME)), [])
    for _, found in in_parallel(partial(_export, to), parts, engine=engine, jobs=jobs):
        yield from found


def _export(to: str, requests: list[ExportRequest]) -> list[ExportedNetwork]:
    destination = open_destination(to)
    return [_exported(destination, request) for request in requests]


def _exported(destination: LocalFolder | RemoteFolder, request: ExportRequest) -> ExportedNetwork:
    shared = asdict(request)
    del shared["as_written"]
    try:
        artifact = destination.get(request)
        new = artifact is None
        if artifact is None:
            artifact = destination.export(request)
    except ExportError as error:
        return ExportedNetwork(**shared, status=error.kind, error=" ".join(str(error).split()))
    return ExportedNetwork(
        **shared,
        status="ok",
        file=f"files/{artifact.path.name}",
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        max_abs_diff=artifact.parity.max_abs_diff,
        new=new,
    )


def open_destination(to: str) -> LocalFolder | RemoteFolder:
    """Return a folder for exports, which is made if it is not there.

    Raises:
        BadInputError: it is a URL that cannot be opened.
        LatlabError: it is a local folder that cannot be made or written.
    """
    if "://" not in to or to.startswith("file://"):
        return LocalFolder(Path(to.removeprefix("file://")))
    return RemoteFolder(to)


class LocalFolder:
    """A folder of this machine, or one that all nodes have mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with self._writing():
            self._cache = ArtifactCache(folder, UNLIMITED)

    def get(self, request: ExportRequest) -> Artifact | None:
        """Return what is there, byte for byte as it was exported; else None."""
        return self._cache.get(request)

    def export(self, request: ExportRequest) -> Artifact:
        """Export a network.

        Raises:
            ExportError: it cannot be exported.
            LatlabError: the folder cannot be written, or its disk is full.
        """
        with self._writing():
            return self._cache.ensure(request)

    def write(self, name: str, content: str) -> None:
        """Write a file of the folder, whole or not at all."""
        with whole_file(self.folder / name) as part:
            part.write_text(content)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except CacheError as error:
            reason = getattr(error.__cause__, "strerror", None) or error
            raise LatlabError(f"cannot write {self.folder}: {reason}", "Free space there, or name another.") from error


class RemoteFolder:
    """A folder in a file system of fsspec."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec

            found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise BadInputError(
                f"cannot open {_scheme(url)}: {error}", "It needs the package of fsspec for that kind of storage."
            ) from error
        self._files, self._root = found[0], found[1].rstrip("/")

    def get(self, request: ExportRequest) -> Artifact | None:
        """Return what is there; None where the entry or its file is missing, or has another size."""
        with self._using():
            try:
                artifact = Artifact.from_json(json.loads(self._files.cat_file(self._entry(ArtifactCache.key(request)))))
                size = self._files.size(self._file(artifact.path.name))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
        return artifact if size == artifact.size_bytes else None

    def export(self, request: ExportRequest) -> Artifact:
        """Export a network here and upload it.

        Raises:
            ExportError: it cannot be exported.
            LatlabError: it cannot be uploaded.
        """
        with tempfile.TemporaryDirectory(prefix="latlab-") as folder:
            artifact = ArtifactCache(Path(folder), UNLIMITED).ensure(request)
            with self._using():
                self._files.makedirs(f"{self._root}/files", exist_ok=True)
                self._files.makedirs(f"{self._root}/entries", exist_ok=True)
                self._files.put_file(str(artifact.path), self._file(artifact.path.name))
                self._files.pipe_file(self._entry(artifact.key), json.dumps(artifact.to_json()).encode())
        return artifact

    def write(self, name: str, content: str) -> None:
        """Write a file of the folder."""
        with self._using():
            self._files.pipe_file(f"{self._root}/{name}", content.encode())

    def _entry(self, key: str) -> str:
        return f"{self._root}/entries/{key}.json"

    def _file(self, name: str) -> str:
        return f"{self._root}/files/{name}"

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Say of an error of the storage what it concerns; its URL may hold a password."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise LatlabError(f"{_scheme(self.url)} failed: {type(error).__name__}: {error!s:.200}") from error


def _scheme(url: str) -> str:
    return f"the storage {url.partition('://')[0]}://..."


def write_index(to: str, found: Iterable[ExportedNetwork]) -> None:
    """Write `index.csv` into a folder of exports: one row per network and format."""
    text = io.StringIO()
    rows = csv.DictWriter(text, [one.name for one in fields(ExportedNetwork) if one.name != "new"], lineterminator="\n")
    rows.writeheader()
    for one in sorted(found, key=lambda one: (one.space, one.format, one.arch)):
        values: dict[str, Any] = asdict(one)
        del values["new"]
        rows.writerow(values)
    open_destination(to).write(INDEX, text.getvalue())
