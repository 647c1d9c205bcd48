"""Unpacking of wheels into a folder.

Wheels come from registries, so no path in them is trusted and nothing in them is run.

All entries are checked before the first is written. Refused are names that lead out of the folder, links, devices, and
entries that are larger than they declare or than the disk has room for. The error names the wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from latlab.agents.protocol.errors import AgentError

__all__ = ["Wheel", "unpack"]

MAX_FILE = 8 << 30
"""The most bytes that one unpacked file may have. CUDA's largest library has about one GiB."""
MAX_FILES = 200_000
"""The most entries that one wheel may have. torch has about 15,000."""
MAX_TOTAL = 24 << 30
"""The most bytes that all wheels together may unpack to: torch with all of CUDA takes 7 GB."""
_CHUNK = 1 << 20
_DATA = re.compile(r"[^/]+\.data")
_PLACED = ("purelib", "platlib")
"""The parts of a wheel's `.data` folder that belong to the packages; the rest are scripts, headers and the like."""
_MARGIN = 64 << 20
"""Bytes of the disk that stay free."""


class Wheel(NamedTuple):
    """A wheel on the device."""

    name: str
    """The name that messages show."""
    path: str


class _Entry(NamedTuple):
    info: zipfile.ZipInfo
    target: str
    """The path to write to, relative to the environment, with `/`."""


def unpack(wheels: Sequence[Wheel], folder: str) -> None:
    """Unpack the packages of all `wheels` into the one empty folder `folder`.

    Args:
        wheels: the wheels to unpack.
        folder: an empty folder.

    Raises:
        AgentError: "corrupt_artifact" for a file that is not a wheel, or for an entry that is refused; "no_space" if
            the packages do not fit on the disk.
        OSError: if the disk refuses to write.
    """
    with ExitStack() as stack:
        archives = [stack.enter_context(_open(wheel)) for wheel in wheels]
        plans = [_plan(wheel, archive) for wheel, archive in zip(wheels, archives)]
        needed = sum(entry.info.file_size for plan in plans for entry in plan)
        if needed > MAX_TOTAL:
            raise AgentError("corrupt_artifact", f"the wheels are refused: they would unpack to {needed} bytes")
        free = shutil.disk_usage(folder).free
        if needed + _MARGIN > free:
            raise AgentError(
                "no_space",
                f"the packages take {needed / 1e6:.0f} MB unpacked, and the device has {free / 1e6:.0f} MB free",
            )
        for wheel, archive, plan in zip(wheels, archives, plans):
            for entry in plan:
                _extract(wheel, archive, entry, folder)


def _open(wheel: Wheel) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel.path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise _refuse(wheel, f"it is no zip archive ({error})") from None


def _plan(wheel: Wheel, archive: zipfile.ZipFile) -> list[_Entry]:
    """Return where each of a wheel's entries goes. Raise `AgentError` if a single entry is refused."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise _refuse(wheel, f"it has {len(infos)} files")
    plan: list[_Entry] = []
    seen: set[str] = set()
    for info in infos:
        parts = _parts(wheel, info)
        if info.is_dir():
            continue
        if info.file_size > MAX_FILE:
            raise _refuse(wheel, f"{info.filename!r:.100} has {info.file_size} bytes")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refuse(wheel, f"{info.filename!r:.100} is encrypted, or packed as no wheel is")
        if _DATA.fullmatch(parts[0]):
            if len(parts) < 3 or parts[1] not in _PLACED:
                continue
            parts = parts[2:]
        target = "/".join(parts)
        if target in seen:
            raise _refuse(wheel, f"it has {target!r:.100} twice")
        seen.add(target)
        plan.append(_Entry(info, target))
    return plan


def _parts(wheel: Wheel, info: zipfile.ZipInfo) -> list[str]:
    """Return the names in an entry's path. Raise `AgentError` if the path leads out of the folder."""
    name = info.orig_filename  # the raw name in the archive: zipfile has cleaned up `filename`
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refuse(wheel, f"{name!r:.100} is neither a file nor a folder (a link, perhaps)")
    parts = name.rstrip("/").split("/")
    bad = not name or name.startswith("/") or any(c in name for c in "\\\0:")
    if bad or any(part in ("", ".", "..") for part in parts) or any(len(os.fsencode(part)) > 255 for part in parts):
        raise _refuse(wheel, f"{name!r:.100} is not a name below the folder that it is unpacked into")
    return parts


def _extract(wheel: Wheel, archive: zipfile.ZipFile, entry: _Entry, folder: str) -> None:
    path = os.path.join(folder, *entry.target.split("/"))
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as sink:
            for chunk in _content(wheel, archive, entry):
                sink.write(chunk)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _refuse(wheel, f"{entry.target!r:.100} is a file and a folder at once") from None


def _content(wheel: Wheel, archive: zipfile.ZipFile, entry: _Entry) -> Iterator[bytes]:
    """Yield the entry's bytes, never more than it declares: the check of the disk's room relied on that number."""
    left = entry.info.file_size
    try:
        with archive.open(entry.info) as source:
            while True:
                chunk = source.read(_CHUNK)
                left -= len(chunk)
                if left < 0 or (left and not chunk):
                    raise ValueError(f"it is not of the {entry.info.file_size} bytes that it says")
                if not chunk:
                    return
                yield chunk
    except Exception as error:  # zipfile, and the files and codecs below it, fail in a dozen ways
        raise _refuse(wheel, f"{entry.target!r:.100} is damaged ({error})") from None


def _refuse(wheel: Wheel, why: str) -> AgentError:
    return AgentError("corrupt_artifact", f"the wheel {wheel.name} is refused: {why}")
