"""How much memory this process takes at its peak while it does something."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import Any

__all__ = ["PeakMemory"]

_STATUS = "/proc/self/status"
_CLEAR_REFS = "/proc/self/clear_refs"


class PeakMemory:
    """Watches how far the resident memory of this process grows, from now on.

    Linux keeps the most that it ever was (VmHWM of proc(5)), and forgets it when "5" is written to `clear_refs`. Where
    that is refused there is `ru_maxrss`, which grows only where it was never that much before: a lower bound.
    """

    def __init__(self, status: str = _STATUS, clear_refs: str = _CLEAR_REFS) -> None:
        self._status = status
        _give_back_what_is_free()
        self._how, self._before_kib = "maxrss", _most_kib()
        try:
            with open(clear_refs, "w", encoding="ascii") as file:
                file.write("5")
        except OSError:  # not Linux, or one without CONFIG_PROC_PAGE_MONITOR
            return
        resident = self._read("VmRSS")
        if resident is not None:
            self._how, self._before_kib = "VmHWM", resident

    def grown(self) -> dict[str, Any] | None:
        """`peak_mb`: megabytes of 10^6 bytes beyond what was there at the start, and `how` they were found.

        None where that is not known.
        """
        most = self._read("VmHWM") if self._how == "VmHWM" else _most_kib()
        if most is None or (most <= self._before_kib and self._how == "maxrss"):
            return None
        return {"peak_mb": max(0, most - self._before_kib) * 1024 / 1e6, "how": self._how}

    def _read(self, field: str) -> int | None:
        """KiB in a line of `status`."""
        with suppress(OSError, ValueError, IndexError), open(self._status, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(f"{field}:"):
                    return int(line.split()[1])
        return None


def _most_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _give_back_what_is_free() -> None:
    """Memory that an earlier network was given, and that waits to be used again, would hide what the next one takes."""
    with suppress(ImportError, OSError, AttributeError):  # no ctypes, or a C library that is not glibc
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)
