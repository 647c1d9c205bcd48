"""The parts of telemetry: the device's files, each of which may be missing, and the base class of sensors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from glob import glob
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from latlab.agents.system.nvml import GPU

__all__ = ["Files", "Knob", "by_number", "gpus", "parse"]

T = TypeVar("T")
_LIMIT = 1 << 63


class Files:
    """The files of a device. Each of them may be missing.

    Args:
        root: path at which the device's file system begins.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def find(self, pattern: str) -> list[str]:
        """Return the files and folders that match `pattern`, which begins at the root without a slash.

        Numbers sort by value: cpu10 comes after cpu9.
        """
        return sorted(glob(os.path.join(self.root, pattern)), key=by_number)

    def text(self, path: str) -> str | None:
        """Return the stripped content of a file, or None.

        `path` comes from `find`, or begins at the root, without a slash.
        """
        try:
            with open(os.path.join(self.root, path), encoding="ascii", errors="replace") as file:
                return file.read(1 << 16).strip()
        except OSError:  # missing, or refused, or a sensor that answers with an I/O error
            return None

    def refuses(self, path: str) -> bool:
        """Return whether the file exists but this user may not read it."""
        full = os.path.join(self.root, path)
        return os.path.exists(full) and not os.access(full, os.R_OK)

    def number(self, path: str) -> int | None:
        """Return the whole number in a file, or None if there is none or it takes more than 64 bits."""
        value = parse(self.text(path), int)
        return value if value is not None and -_LIMIT <= value < _LIMIT else None


class Knob(ABC):
    """A sensor: one reading of the device that bears on latency."""

    name: str
    """The key of the reading in telemetry."""

    def __init__(self, files: Files) -> None:
        self._device = files

    @abstractmethod
    def read(self) -> Any:
        """Return the present value, which JSON can hold, or None if the device does not report it."""


def gpus() -> list[GPU]:
    """Return the NVIDIA GPUs of this machine.

    The import waits for the first call, because most machines have no such GPU.
    """
    try:
        from latlab.agents.system import nvml
    except ImportError:  # ctypes is missing in a Python that was built without libffi
        return []
    return nvml.gpus()


def parse(text: str | None, convert: Callable[[str], T]) -> T | None:
    """Return `convert(text)`, or None for an empty or malformed text."""
    try:
        return convert(text) if text else None
    except ValueError:
        return None


def by_number(path: str) -> list[Any]:
    """Return a sort key that puts cpu10 after cpu9."""
    digits = "".join(c if c.isdigit() else " " for c in path).split()
    return [int(digit) for digit in digits]
