"""GPUs as NVIDIA's management library (NVML) sees them, through ctypes: clocks, heat, and who else computes there.

Names, numbers and structures are those of NVIDIA's "NVML API Reference Guide". A driver too old to know a
function, or a GPU that refuses it, answers None: NVML is a witness here, nothing depends on it.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

__all__ = ["GPU", "NVML", "find", "gpus", "load"]

LIBRARY = "libnvidia-ml.so.1"
_CLOCK_GRAPHICS, _CLOCK_SM = 0, 1
_SENSOR_GPU = 0
_INSUFFICIENT_SIZE = 7
_TEXT = 96
"""Bytes of the longest text that NVML gives: a device's name."""
_MEGABYTE = 1 << 20
IDLE = "idle"
_REASONS = {
    0x01: IDLE,
    0x02: "applications clocks",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Bits of nvmlClocksEventReasons."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t since CUDA 11."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class GPU:
    """One GPU. What is asked once stands in attributes; what changes is a method."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle
        self.name = self._text("nvmlDeviceGetName")
        self.index = self._number("nvmlDeviceGetIndex")
        """NVML's number of it, which is not CUDA's."""
        # SM and graphics clock are one on every GPU that still has a driver; defaults are known for the latter
        # alone, and for data-centre GPUs alone.
        self.max_sm_mhz = self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_SM)
        self.default_sm_mhz = self._number("nvmlDeviceGetDefaultApplicationsClock", _CLOCK_GRAPHICS) or self.max_sm_mhz

    def sm_mhz(self) -> int | None:
        """Clock of the multiprocessors now."""
        return self._number("nvmlDeviceGetClockInfo", _CLOCK_SM)

    def power_mw(self) -> int | None:
        """Of the whole board, over the last second on most GPUs."""
        return self._number("nvmlDeviceGetPowerUsage")

    def energy_mj(self) -> int | None:
        """Of the whole board since the driver was loaded; Volta and later."""
        value = ctypes.c_ulonglong()
        return value.value if self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(value)) == 0 else None

    def throttle_reasons(self) -> list[str] | None:
        """What holds the clocks below their maximum now."""
        bits = ctypes.c_ulonglong()
        # The second name is what drivers before 535 call it.
        for function in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if self._ask(function, ctypes.byref(bits)) == 0:
                return [reason for bit, reason in _REASONS.items() if bits.value & bit]
        return None

    def idle(self) -> bool:
        """Whether the clocks are down because nothing has run lately: running something brings them up."""
        return IDLE in (self.throttle_reasons() or ())

    def compute_pids(self) -> list[int] | None:
        """Processes that compute on the GPU. In a container they may be missing, or have the host's numbers."""
        for function in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            room = 64
            for _ in range(3):  # processes may come while the list is made
                processes, count = (_Process * room)(), ctypes.c_uint(room)
                status = self._ask(function, ctypes.byref(count), processes)
                if status == 0:
                    return [process.pid for process in processes[: count.value]]
                if status != _INSUFFICIENT_SIZE:
                    break
                room = count.value + 64
        return None

    def company(self) -> str | None:
        """Who else computes on the GPU that this process computes on, for a person; None for nobody.

        One of the processes is this one, even where a container gives it another number. Programs that only
        draw (a desktop) are no company.
        """
        pids = set(self.compute_pids() or ())
        if len(pids) < 2:
            return None
        others = pids - {os.getpid()}
        if len(others) == len(pids):
            return f"{len(pids) - 1} other processes compute on the GPU"
        return f"other processes compute on the GPU: {', '.join(map(str, sorted(others)[:8]))}"

    def state(self) -> dict[str, Any]:
        """Everything that changes, under names with units; None for what the GPU does not tell."""
        milliwatts, pids = self.power_mw(), self.compute_pids()
        memory = self._memory()
        return {
            "sm_mhz": self.sm_mhz(),
            "temperature_c": self._number("nvmlDeviceGetTemperature", _SENSOR_GPU),
            "power_w": None if milliwatts is None else milliwatts / 1000,
            "throttled_by": self.throttle_reasons(),
            "memory_mb": None if memory is None else memory.used / _MEGABYTE,
            "processes": None if pids is None else len(pids),
        }

    def facts(self) -> dict[str, Any]:
        """Everything that does not change while a worker lives and bears on latency."""
        memory, cuda = self._memory(), ctypes.c_int()
        known = _call(self._library, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda)) == 0
        return {
            "name": self.name,
            "driver": self._driver(),
            "cuda": f"{cuda.value // 1000}.{cuda.value % 1000 // 10}" if known else None,
            "memory_mb": None if memory is None else memory.total // _MEGABYTE,
            "default_sm_mhz": self.default_sm_mhz,
            "max_sm_mhz": self.max_sm_mhz,
        }

    def _driver(self) -> str | None:
        text = ctypes.create_string_buffer(_TEXT)
        return _decode(text) if _call(self._library, "nvmlSystemGetDriverVersion", text, _TEXT) == 0 else None

    def _memory(self) -> _Memory | None:
        memory = _Memory()
        return memory if self._ask("nvmlDeviceGetMemoryInfo", ctypes.byref(memory)) == 0 else None

    def _number(self, function: str, *which: int) -> int | None:
        value = ctypes.c_uint()
        return value.value if self._ask(function, *which, ctypes.byref(value)) == 0 else None

    def _text(self, function: str) -> str | None:
        text = ctypes.create_string_buffer(_TEXT)
        return _decode(text) if self._ask(function, text, _TEXT) == 0 else None

    def _ask(self, function: str, *arguments: Any) -> int:
        return _call(self._library, function, self._handle, *arguments)


class NVML:
    """The loaded library. It stays initialised for the life of the process: setting it up can take a second."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.gpus: list[GPU] = []
        """All of the machine, whatever CUDA_VISIBLE_DEVICES says."""
        count = ctypes.c_uint()
        _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if _call(library, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle)) == 0:
                self.gpus.append(GPU(library, handle))

    def find(self, pci_bus_id: str) -> GPU | None:
        handle = ctypes.c_void_p()
        function = "nvmlDeviceGetHandleByPciBusId_v2"
        if _call(self._library, function, pci_bus_id.encode(), ctypes.byref(handle)) != 0:
            return None
        return GPU(self._library, handle)


def load(path: str) -> NVML | None:
    """NVML, or None where it is not installed, or has no driver to talk to."""
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    return NVML(library) if _call(library, "nvmlInit_v2") == 0 else None


@cache
def shared() -> NVML | None:
    """Return NVML, which all that asks it about this machine shares, or None where there is none."""
    return load(LIBRARY)


def gpus() -> list[GPU]:
    """The GPUs of this machine. Where there is no NVML, that costs a search for its file, once."""
    nvml = shared()
    return [] if nvml is None else nvml.gpus


def find(pci_bus_id: str | None) -> GPU | None:
    """The GPU at an address on the PCI bus, which CUDA and NVML both use; their own numbers differ."""
    nvml = shared()
    return None if nvml is None or pci_bus_id is None else nvml.find(pci_bus_id)


def _call(library: ctypes.CDLL, function: str, *arguments: Any) -> int:
    """NVML's return code, 0 for success; -1 for a function that this driver does not have."""
    try:
        return int(getattr(library, function)(*arguments))
    except AttributeError:
        return -1


def _decode(text: Any) -> str:
    return bytes(text.value).decode("utf-8", "replace")
