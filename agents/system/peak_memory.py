"""The peak memory that this process takes while it does something."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Any

__all__ = ["PeakMemory"]

_STATUS = "/proc/self/status"
_CLEAR_REFS = "/proc/self/clear_refs"


class PeakMemory:
    """Watches how far this process's resident memory grows from the object's creation on.

    Linux keeps the highest value so far (VmHWM of proc(5)) and resets it when "5" is written to `clear_refs`. If Linux
    refuses that, `ru_maxrss` is the substitute. Without the reset it only grows, so the result is a lower bound, and
    unknown unless the process takes more than ever before.
    """

    def __init__(self, status: str = _STATUS, clear_refs: str = _CLEAR_REFS) -> None:
        self._status = status
        _give_back_what_is_free()
        self._how, self._before_kib = "maxrss", _most_kib()
        try:
            with open(clear_refs, "w", encoding="ascii") as file:
                file.write("5")
        except OSError:  # not Linux, or a kernel without CONFIG_PROC_PAGE_MONITOR
            return
        resident = self._read("VmRSS")
        if resident is not None:
            self._how, self._before_kib = "VmHWM", resident

    def grown(self) -> dict[str, Any] | None:
        """Return `peak_mb`, the growth in megabytes (10^6 bytes), and `how` it was found; None if it is unknown."""
        most = self._read("VmHWM") if self._how == "VmHWM" else _most_kib()
        if most is None or (most <= self._before_kib and self._how == "maxrss"):
            return None
        return {"peak_mb": max(0, most - self._before_kib) * 1024 / 1e6, "how": self._how}

    def _read(self, field: str) -> int | None:
        """Return the KiB in one line of `status`, or None."""
        with suppress(OSError, ValueError, IndexError), open(self._status, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1])
        return None


def _most_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _give_back_what_is_free() -> None:
    """Return freed memory to the system: if the next network reused it, that part of its memory would not show."""
    with suppress(ImportError, OSError, AttributeError):  # no ctypes, or a C library that is not glibc
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
