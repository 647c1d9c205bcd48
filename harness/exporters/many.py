"""Many exports into one folder, which may be in object storage, by any engine.

The folder is laid out as the cache of exported networks (`cache.py`): `files/` with names by content, and an entry per
request that is written after its file. So a killed export leaves no half network, nothing is exported twice, and a
local folder can serve as a cache.
"""

from __future__ import annotations

import csv
import errno
import fcntl
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from latlab.harness.distributed.engines import in_parallel
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters.base import Artifact, CacheError, ExportError, ExportRequest
from latlab.harness.exporters.cache import ArtifactCache
from latlab.harness.paths import FULL, whole_file

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

    def read(self, name: str) -> str | None:
        """Return the text of a file of the folder; None if it has none."""
        try:
            return (self.folder / name).read_text(errors="replace")
        except OSError:
            return None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from this block."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def write(self, name: str, content: str) -> None:
        """Write a file of the folder, whole or not at all."""
        with whole_file(self.folder / name) as part:
            part.write_text(content)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except CacheError as error:
            cause = error.__cause__
            reason, where, hint = str(error), self.folder, "Name another folder."
            if isinstance(cause, OSError):
                reason, where = cause.strerror or reason, Path(cause.filename2 or cause.filename or where)
                hint = "Free space there, or name another folder." if cause.errno in FULL else hint
                if cause.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTDIR):
                    hint = "Something else is in its place: remove it, or name another folder."
            raise LatlabError(f"cannot write {where}: {reason}", hint) from error


class RemoteFolder:
    """A folder in a file system of fsspec."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec

            found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise BadInputError(f"cannot open {_scheme(url)}: {error}", "Install that package.") from error
        except Exception as error:  # each file system has errors of its own
            raise BadInputError(
                f"cannot open {_scheme(url)}: {error!s:.200}", "Look at the address, and whether it can be reached."
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

    def read(self, name: str) -> str | None:
        """Return the text of a file of the folder; None if it has none."""
        try:
            with self._using():
                return str(self._files.cat_file(f"{self._root}/{name}").decode(errors="replace"))
        except FileNotFoundError:
            return None

    def alone(self) -> AbstractContextManager[None]:
        """Object storage has no locks: of two commands that end at the same time, one index may win."""
        return nullcontext()

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
    """Write `index.csv` into a folder of exports: a row per network and format, those of earlier calls among them."""
    destination = open_destination(to)
    with destination.alone():
        known = _rows(destination.read(INDEX) or "")
        for one in found:
            values = {name: "" if value is None else str(value) for name, value in asdict(one).items()}
            known[tuple(values[name] for name in _REQUESTED)] = values
        text = io.StringIO()
        rows = csv.DictWriter(text, _COLUMNS, lineterminator="\n", extrasaction="ignore")
        rows.writeheader()
        rows.writerows(known[key] for key in sorted(known))
        destination.write(INDEX, text.getvalue())


_REQUESTED = ("space", "format", "arch", "precision", "batch_size", "seed")
_COLUMNS = [one.name for one in fields(ExportedNetwork) if one.name != "new"]


def _rows(text: str) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the rows of an index by what they are of; none where it is no index."""
    found = csv.DictReader(io.StringIO(text))
    try:
        if found.fieldnames != _COLUMNS:
            return {}
        return {tuple(row[name] for name in _REQUESTED): row for row in found if None not in row.values()}
    except csv.Error:
        return {}
