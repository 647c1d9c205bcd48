"""Unpacks wheels into a folder. They come from registries: nothing in them is trusted with a path, and nothing is run.

Every entry is looked at before the first is written: names that lead anywhere but down, links, devices, entries
larger than they say or than the disk has room for are refused, each with the wheel's name.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from latlab.agents.protocol.errors import AgentError

__all__ = ["Wheel", "unpack"]

MAX_FILE = 8 << 30
"""Bytes of one unpacked file. The largest library of CUDA's has about one GiB."""
MAX_FILES = 200_000
"""Entries of one wheel. torch has about 15,000."""
MAX_TOTAL = 24 << 30
"""Bytes of all together: torch with all of CUDA takes 7 GB."""
_CHUNK = 1 << 20
_DATA = re.compile(r"[^/]+\.data")
_PLACED = ("purelib", "platlib")
"""What of a wheel's `.data` folder belongs to the packages; the rest are scripts, headers and the like."""
_MARGIN = 64 << 20
"""Bytes of the disk that stay free."""


class Wheel(NamedTuple):
    """A wheel on the device."""

    name: str
    """For messages."""
    path: str


class _Entry(NamedTuple):
    info: zipfile.ZipInfo
    target: str
    """Where it goes, relative to the environment, with `/`."""


def unpack(wheels: Sequence[Wheel], folder: str, between: Callable[[], object] | None = None) -> None:
    """Puts the packages of `wheels` side by side into `folder`, an empty one.

    Args:
        between: called before each file.

    Raises:
        AgentError: "corrupt_artifact" for a wheel that is none, or that reaches for what is not its own;
            "no_space" when they do not fit on the disk.
        OSError: for what the disk refuses.
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
                if between is not None:
                    between()
                _extract(wheel, archive, entry, folder)


def _open(wheel: Wheel) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel.path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise _refuse(wheel, f"it is no zip archive ({error})") from None


def _plan(wheel: Wheel, archive: zipfile.ZipFile) -> list[_Entry]:
    """What of a wheel goes where. Raises `AgentError` when a single entry is not as it should be."""
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
    """The names in an entry's path, none of which leads anywhere but down."""
    name = info.orig_filename  # as it is in the archive: `filename` has been tidied up
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
    """Never more than was announced, which is what the disk was found to have room for."""
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
