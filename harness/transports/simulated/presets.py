"""Presets of simulated devices, with typical orders of magnitude; none of them models one particular device."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["KINDS", "Kind"]


class Kind(NamedTuple):
    """A kind of device: its hardware, and its `cost`, `noise` and `heating` where the inventory gives none."""

    title: str
    cpus: int
    clock_mhz: int
    memory_gb: int
    cost: dict[str, Any]
    noise: dict[str, Any]
    heating: dict[str, Any] | None = None


KINDS = {
    "ideal": Kind("simulated ideal device", 4, 1000, 4, {}, {}),
    "pi4": Kind(
        "simulated Raspberry Pi 4",
        4,
        1500,
        4,
        {"peak_gflops": 7.0, "memory_gb_s": 3.5, "overhead_us": 12.0, "variation": 0.1},
        {"sigma": 0.015, "autocorrelation": 0.4, "outliers": {"probability": 0.01, "factor": 1.5}},
        {"watts": 4.0, "ambient_c": 48.0, "c_per_watt": 8.5, "time_constant_s": 90.0, "throttle_factor": 1.5},
    ),
    "phone": Kind(
        "simulated phone",
        8,
        2400,
        8,
        {"peak_gflops": 25.0, "memory_gb_s": 12.0, "overhead_us": 5.0, "variation": 0.1},
        {"sigma": 0.04, "autocorrelation": 0.5, "slow_clock": {"share": 0.15, "factor": 1.35, "dwell_s": 2.0}},
        {"watts": 3.5, "ambient_c": 33.0, "c_per_watt": 7.0, "time_constant_s": 60.0, "throttle_c": 55.0},
    ),
    "gpu": Kind(
        "simulated GPU",
        16,
        1800,
        32,
        {"peak_gflops": 9000.0, "memory_gb_s": 400.0, "overhead_us": 8.0, "variation": 0.1},
        {"sigma": 0.01, "autocorrelation": 0.3},
        {"watts": 250.0, "ambient_c": 38.0, "c_per_watt": 0.16, "time_constant_s": 40.0, "throttle_c": 83.0},
    ),
    "server": Kind(
        "simulated server",
        32,
        3000,
        128,
        {"peak_gflops": 70.0, "memory_gb_s": 18.0, "overhead_us": 2.0, "variation": 0.1},
        {"sigma": 0.02, "autocorrelation": 0.3, "bursts": {"per_minute": 3.0, "seconds": 0.5, "factor": 1.6}},
    ),
}
