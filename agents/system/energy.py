"""Energy counters and power meters of the device. Each of them may be missing or refused.

Each source is one small class. No source needs root by itself, but since 2020 (CVE-2020-8694) Linux reserves RAPL's
counters for root, unless somebody opens them: `chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from latlab.agents.system.sensor_files import Files, Knob, gpus

if TYPE_CHECKING:
    from latlab.agents.system.nvml import GPU

__all__ = ["RAPL", "BatteryMeter", "BoardMeters", "Energy", "Source"]

_CHIPS = ("ina", "ltc2945", "pac19")
"""Name prefixes of chips that measure the current into a board or a part of it. Other sensors may measure anything."""
_CHANNELS = range(1, 4)
"""Channels of an INA3221, the chip with the most of them. Its higher numbers are sums and shunt voltages."""
_MICROAMPERES_FROM = 20_000
"""A phone that computes draws more than 20 mA: a smaller number comes from a driver that reports mA instead of uA."""


class Source(ABC):
    """A source of energy or power readings. Reading names are unique across all sources."""

    def __init__(self, files: Files) -> None:
        self._device = files

    @property
    def refused(self) -> list[str]:
        """The names of counters that exist but that this user may not read."""
        return []

    @abstractmethod
    def counters_uj(self) -> dict[str, int]:
        """Return each counter's energy in microjoules since some fixed moment. A counter only grows."""

    @abstractmethod
    def power_mw(self) -> dict[str, float]:
        """Return each meter's power in milliwatts, now or averaged over the meter's own short interval."""


class RAPL(Source):
    """The energy counters of x86 processor packages and their memory.

    They are Intel's running average power limit (RAPL); AMD has it, too. A package's counter covers all cores of the
    processor, whatever program keeps them busy.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._zones: dict[str, str] = {}
        for zone in self._device.find("sys/class/powercap/intel-rapl:*"):
            name, numbers = self._device.text(f"{zone}/name") or "", zone.rpartition("/")[2].split(":")[1:]
            if len(numbers) == 1 and name.startswith("package"):
                self._zones[name] = zone
            elif name == "dram":  # the other zones: "core" is part of the package, "psys" neither a part nor a sum
                self._zones[f"dram-{numbers[0]}"] = zone
        self._last: dict[str, int] = {}
        self._wrapped: dict[str, int] = {}

    @property
    def refused(self) -> list[str]:
        """The names of counters that exist but that this user may not read."""
        return [name for name, zone in self._zones.items() if self._device.refuses(f"{zone}/energy_uj")]

    def counters_uj(self) -> dict[str, int]:
        values = {}
        for name, zone in self._zones.items():
            count = self._device.number(f"{zone}/energy_uj")
            if count is None:
                continue
            if count < self._last.get(name, 0):  # it wraps to 0 after some kilojoules: minutes or hours of work
                most = self._device.number(f"{zone}/max_energy_range_uj")
                self._wrapped[name] = self._wrapped.get(name, 0) + (most or self._last[name])
            self._last[name] = count
            values[name] = self._wrapped.get(name, 0) + count
        return values

    def power_mw(self) -> dict[str, float]:
        return {}


class BoardMeters(Source):
    """Power meters between a board and its supply: built into Jetsons, or soldered to a Raspberry Pi by its owner."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._channels: dict[str, tuple[str, int]] = {}
        for chip in self._device.find("sys/class/hwmon/hwmon[0-9]*"):
            name = self._device.text(f"{chip}/name") or ""
            if not name.startswith(_CHIPS):
                continue
            for number in _CHANNELS:
                label = self._device.text(f"{chip}/power{number}_label") or self._device.text(
                    f"{chip}/in{number}_label"
                )
                if self._watts(chip, number) is not None:
                    named = (label or f"{name} {number}")[:40]
                    taken = named in self._channels
                    self._channels[f"{named} ({chip.rpartition('/')[2]})" if taken else named] = chip, number

    def counters_uj(self) -> dict[str, int]:
        return {}

    def power_mw(self) -> dict[str, float]:
        readings = {name: self._watts(*where) for name, where in self._channels.items()}
        return {name: 1000 * watts for name, watts in readings.items() if watts is not None}

    def _watts(self, chip: str, number: int) -> float | None:
        microwatts = self._device.number(f"{chip}/power{number}_input")
        if microwatts is not None:
            return microwatts / 1e6
        milliamperes = self._device.number(f"{chip}/curr{number}_input")
        millivolts = self._device.number(f"{chip}/in{number}_input")
        return None if milliamperes is None or millivolts is None else milliamperes * millivolts / 1e6


class BatteryMeter(Source):
    """The power that a phone draws from its discharging battery.

    A charging battery's current does not show that power.
    """

    _FOLDER = "sys/class/power_supply/battery"

    def counters_uj(self) -> dict[str, int]:
        return {}

    def power_mw(self) -> dict[str, float]:
        if self._device.text(f"{self._FOLDER}/status") != "Discharging":
            return {}
        current = self._device.number(f"{self._FOLDER}/current_now")
        microvolts = self._device.number(f"{self._FOLDER}/voltage_now")
        if not current or not microvolts:
            return {}
        microamperes = abs(current)  # manufacturers do not agree on the sign
        if microamperes < _MICROAMPERES_FROM:
            microamperes *= 1000
        return {"battery": microamperes * microvolts / 1e9}


class NvidiaGPUs(Source):
    """The board energy of NVIDIA's GPUs since the driver was loaded, named `gpu 0` and so on by NVML's numbers."""

    def counters_uj(self) -> dict[str, int]:
        energies = {f"gpu {gpu.index}": gpu.energy_mj() for gpu in self._gpus()}
        return {name: 1000 * energy for name, energy in energies.items() if energy is not None}

    def power_mw(self) -> dict[str, float]:
        """Return the power of the GPUs that count no energy (before Volta), in milliwatts."""
        powers = {f"gpu {gpu.index}": gpu.power_mw() for gpu in self._gpus() if gpu.energy_mj() is None}
        return {name: power for name, power in powers.items() if power is not None}

    def _gpus(self) -> list[GPU]:
        return gpus() if self._device.root == "/" else []  # the driver belongs to the running system


SOURCES: tuple[type[Source], ...] = (RAPL, BoardMeters, BatteryMeter, NvidiaGPUs)


class Energy(Knob):
    """All energy counters (microjoules) and power meters (milliwatts) by name, with the time of the reading.

    The value is `{"at_s": steady clock in seconds, "uj": {"package-0": 123, "gpu 0": 456}, "mw": {"battery": 2100.0}}`.
    If this user may not read some counters, `"refused"` lists their names.
    """

    name = "energy"

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._sources = [source(files) for source in SOURCES]
        self._refused = [name for source in self._sources for name in source.refused]

    def read(self) -> dict[str, Any] | None:
        at_s = time.perf_counter()
        counters = {name: value for source in self._sources for name, value in source.counters_uj().items()}
        meters = {name: value for source in self._sources for name, value in source.power_mw().items()}
        found: dict[str, Any] = {"at_s": at_s, "uj": counters, "mw": meters}
        if self._refused:
            found["refused"] = self._refused
        return found if counters or meters or self._refused else None
