"""CUDA's driver through ctypes: the GPU's address, and a stream with events for a runtime that has none of its own.

Names and numbers are those of the "CUDA Driver API" manual.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from latlab.agents.protocol.errors import AgentError

__all__ = ["Driver", "EventClock", "event_clock", "pci_bus_id"]

LIBRARY = "libcuda.so.1"
_STREAM_NON_BLOCKING = 1
"""A flag: the stream does not wait for the default stream, nor the default stream for it."""
_OUT_OF_MEMORY = 2
_FIRST_DEVICE = 0
"""The first GPU that CUDA_VISIBLE_DEVICES leaves visible."""


class Driver:
    """CUDA's driver, and the first GPU that it shows.

    Raises:
        AgentError: "runtime_missing" if there is no driver or no GPU.
    """

    def __init__(self, path: str) -> None:
        try:
            self._library = ctypes.CDLL(path)
            self.call("cuInit", 0)
            self._device = ctypes.c_int()
            self.call("cuDeviceGet", ctypes.byref(self._device), _FIRST_DEVICE)
        except (OSError, AgentError) as error:
            raise AgentError(
                "runtime_missing",
                f"CUDA finds no GPU ({error}): install NVIDIA's driver, until nvidia-smi lists the GPU",
            ) from error

    def use_primary_context(self) -> None:
        """Make the GPU's primary context current on this thread. Runtimes use that context, too."""
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self.call("cuCtxSetCurrent", context)

    def pci_bus_id(self) -> str:
        """Return the GPU's address on the PCI bus, e.g. `0000:17:00.0`."""
        text = ctypes.create_string_buffer(32)
        self.call("cuDeviceGetPCIBusId", text, len(text), self._device)
        return text.value.decode("ascii")

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            AgentError: "out_of_memory" or "crash", naming the function, if it fails.
        """
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            name = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(name))
            kind = "out_of_memory" if status == _OUT_OF_MEMORY else "crash"
            raise AgentError(kind, f"{function} answers {(name.value or b'unknown error').decode()} ({status})")


class EventClock:
    """A `DeviceClock` for work queued on `stream`: the GPU stamps two events when it reaches them (to 0.5 us)."""

    def __init__(self, driver: Driver) -> None:
        self._call = driver.call
        driver.use_primary_context()
        self._stream, self._begin, self._end = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), _STREAM_NON_BLOCKING)
        for event in (self._begin, self._end):
            self._call("cuEventCreate", ctypes.byref(event), 0)

    @property
    def stream(self) -> int:
        """The stream's address, as runtimes take it."""
        return self._stream.value or 0

    def start(self) -> None:
        """Record the first event."""
        self._call("cuEventRecord", self._begin, self._stream)

    def stop(self) -> None:
        """Record the second event."""
        self._call("cuEventRecord", self._end, self._stream)

    def wait(self) -> None:
        """Return when all streams of the GPU have finished."""
        self._call("cuCtxSynchronize")

    def elapsed_ns(self) -> int:
        """Return the nanoseconds between the two events."""
        milliseconds = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), self._begin, self._end)
        return round(milliseconds.value * 1e6)


@cache
def event_clock() -> EventClock:
    """Return the process's one clock: networks run one at a time, and a stream must outlive all that use it."""
    return EventClock(Driver(LIBRARY))


@cache
def pci_bus_id() -> str | None:
    """Return the PCI bus address of the GPU that runtimes use, e.g. `0000:17:00.0`, or None without a GPU."""
    try:
        return Driver(LIBRARY).pci_bus_id()
    except AgentError:
        return None
