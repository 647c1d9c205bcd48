"""What telemetry is made of: a device's files, each of which may be missing, and knobs that read them."""

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
    """The files of a device, of which each may be missing.

    Args:
        root: where the device's file system begins.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root

    def find(self, pattern: str) -> list[str]:
        """Files and folders; the pattern begins at the root, without a slash."""
        return sorted(glob(os.path.join(self.root, pattern)), key=by_number)

    def text(self, path: str) -> str | None:
        """What is in a file: one that was found, or one named from the root."""
        try:
            with open(os.path.join(self.root, path), encoding="ascii", errors="replace") as file:
                return file.read(1 << 16).strip()
        except OSError:  # missing, or refused, or a sensor that answers with an I/O error
            return None

    def refuses(self, path: str) -> bool:
        """Whether the file is there, and somebody else's."""
        full = os.path.join(self.root, path)
        return os.path.exists(full) and not os.access(full, os.R_OK)

    def number(self, path: str) -> int | None:
        """The whole number that is in a file, of at most 64 bits."""
        value = parse(self.text(path), int)
        return value if value is not None and -_LIMIT <= value < _LIMIT else None


class Knob(ABC):
    """Something about the device that bears on latency."""

    name: str

    def __init__(self, files: Files) -> None:
        self._device = files

    @abstractmethod
    def read(self) -> Any:
        """The value now, or None."""


def gpus() -> list[GPU]:
    """The NVIDIA GPUs of this machine. Most have none, and need not load what asks for them before it is asked."""
    try:
        from latlab.agents.system import nvml
    except ImportError:  # ctypes is missing in a Python that was built without libffi
        return []
    return nvml.gpus()


def parse(text: str | None, convert: Callable[[str], T]) -> T | None:
    try:
        return convert(text) if text else None
    except ValueError:
        return None


def by_number(path: str) -> list[Any]:
    """cpu10 after cpu9."""
    digits = "".join(c if c.isdigit() else " " for c in path).split()
    return [int(digit) for digit in digits]
