"""GPUs as NVIDIA's management library (NVML) reports them, through ctypes: clocks, temperature, other processes.

Names, numbers and structures are those of NVIDIA's "NVML API Reference Guide". The answer is None if the driver is too
old to know a function or the GPU refuses it: latlab runs on without NVML, it only knows less about the GPU.
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
"""Size in bytes of the buffer for a text. NVML's longest text is a device's name."""
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
"""The bits of nvmlClocksEventReasons."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    """NVML's `nvmlProcessInfo_t` since CUDA 11."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class GPU:
    """One GPU. Attributes are read once; methods ask again at each call."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle
        self.name = self._text("nvmlDeviceGetName")
        self.index = self._number("nvmlDeviceGetIndex")
        """The GPU's number in NVML, which may differ from CUDA's."""
        # SM clock and graphics clock are the same on every GPU that still has a driver. Only the graphics clock has
        # a default, and only on data-centre GPUs.
        self.max_sm_mhz = self._number("nvmlDeviceGetMaxClockInfo", _CLOCK_SM)
        self.default_sm_mhz = self._number("nvmlDeviceGetDefaultApplicationsClock", _CLOCK_GRAPHICS) or self.max_sm_mhz

    def sm_mhz(self) -> int | None:
        """Return the present clock of the multiprocessors in MHz."""
        return self._number("nvmlDeviceGetClockInfo", _CLOCK_SM)

    def power_mw(self) -> int | None:
        """Return the whole board's power in milliwatts, on most GPUs averaged over the last second."""
        return self._number("nvmlDeviceGetPowerUsage")

    def energy_mj(self) -> int | None:
        """Return the whole board's energy in millijoules since the driver was loaded. Volta and later count it."""
        value = ctypes.c_ulonglong()
        return value.value if self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.byref(value)) == 0 else None

    def throttle_reasons(self) -> list[str] | None:
        """Return the reasons that hold the clocks below their maximum now."""
        bits = ctypes.c_ulonglong()
        # Drivers before 535 know the second name only.
        for function in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if self._ask(function, ctypes.byref(bits)) == 0:
                return [reason for bit, reason in _REASONS.items() if bits.value & bit]
        return None

    def idle(self) -> bool:
        """Return whether the clocks are low because nothing ran lately. Running something raises them."""
        return IDLE in (self.throttle_reasons() or ())

    def compute_pids(self) -> list[int] | None:
        """Return the ids of the processes that compute on the GPU.

        In a container they may be missing, or be the host's ids.
        """
        for function in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            room = 64
            for _ in range(3):  # processes may start while the list is made
                processes, count = (_Process * room)(), ctypes.c_uint(room)
                status = self._ask(function, ctypes.byref(count), processes)
                if status == 0:
                    return [process.pid for process in processes[: count.value]]
                if status != _INSUFFICIENT_SIZE:
                    break
                room = count.value + 64
        return None

    def other_processes(self) -> str | None:
        """Return a sentence about other processes that compute on this process's GPU, or None if there are none.

        One of the listed processes is this one, even if a container gives it another id. Programs that only draw (a
        desktop) do not count.
        """
        pids = set(self.compute_pids() or ())
        if len(pids) < 2:
            return None
        others = pids - {os.getpid()}
        if len(others) == len(pids):
            return f"{len(pids) - 1} other processes compute on the GPU"
        return f"other processes compute on the GPU: {', '.join(map(str, sorted(others)[:8]))}"

    def state(self) -> dict[str, Any]:
        """Return everything that changes, under names with units; None for what the GPU does not report."""
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
        """Return everything that bears on latency and does not change while a worker lives."""
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
    """The loaded library. It stays initialised until the process ends, because initialising can take a second."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.gpus: list[GPU] = []
        """All GPUs of the machine, whatever CUDA_VISIBLE_DEVICES says."""
        count = ctypes.c_uint()
        _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if _call(library, "nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle)) == 0:
                self.gpus.append(GPU(library, handle))

    def find(self, pci_bus_id: str) -> GPU | None:
        """Return the GPU at an address on the PCI bus, or None."""
        handle = ctypes.c_void_p()
        function = "nvmlDeviceGetHandleByPciBusId_v2"
        if _call(self._library, function, pci_bus_id.encode(), ctypes.byref(handle)) != 0:
            return None
        return GPU(self._library, handle)


def load(path: str) -> NVML | None:
    """Load and initialise NVML from `path`; return None if it is not installed or finds no driver."""
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    return NVML(library) if _call(library, "nvmlInit_v2") == 0 else None


@cache
def shared() -> NVML | None:
    """Return the NVML that this process uses, loaded once, or None where there is none."""
    return load(LIBRARY)


def gpus() -> list[GPU]:
    """Return the GPUs of this machine. Without NVML the first call costs a search for its file, later calls nothing."""
    nvml = shared()
    return [] if nvml is None else nvml.gpus


def find(pci_bus_id: str | None) -> GPU | None:
    """Return the GPU at an address on the PCI bus, or None.

    CUDA and NVML share addresses; their device numbers differ.
    """
    nvml = shared()
    return None if nvml is None or pci_bus_id is None else nvml.find(pci_bus_id)


def _call(library: ctypes.CDLL, function: str, *arguments: Any) -> int:
    """Return NVML's return code: 0 for success, -1 for a function that this driver does not have."""
    try:
        return int(getattr(library, function)(*arguments))
    except AttributeError:
        return -1


def _decode(text: Any) -> str:
    return bytes(text.value).decode("utf-8", "replace")
