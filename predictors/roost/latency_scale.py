"""The level of a device without any label: an estimate of its mean latency over the space in milliseconds.

The prior over cost tables determines which networks of a space are slower, not how many milliseconds they take. One
label determines that. Without labels the level comes from hardware facts, or else from the levels of source devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latlab.predictors.roost.prior import Component, SourceTable
from latlab.search_spaces import SearchSpace

__all__ = ["FACTS", "Level", "level_of", "level_of_components"]

FACTS = {
    "cores": "cores that run the network",
    "clock_ghz": "their clock",
    "macs_per_cycle": "fp32 multiply-accumulates per core and cycle (8 by default)",
    "tops": "peak tera-operations per second, two a multiply-accumulate; instead of cores and clock",
    "bandwidth_gbs": "memory bandwidth in gigabytes per second",
    "launch_us": "overhead of one kernel in microseconds (0 by default)",
}
"""Hardware facts that are accepted, with their meanings."""

SAMPLE = 100
"""Number of architectures over which the mean work of the space is taken."""
EFFICIENCY = 0.25
"""Share of its peak rates that a runtime typically reaches with the small layers of such networks."""
WITH_FACTS = 0.8
"""Standard deviation of log-latency around the estimate from facts: a factor of 2.2 either way."""
UNKNOWN_GMACS, UNKNOWN = 10.0, 2.0
"""Without facts and sources, the assumed effective rate in giga-multiply-accumulates per second, and the standard
deviation of log-latency around it: a factor of 7 either way."""
LEAST_SPREAD = 1.0
"""Smallest standard deviation of log-latency that is assumed over source devices, which are seldom a fair sample."""
MACS_PER_CYCLE = 8.0


@dataclass(frozen=True, slots=True)
class Level:
    """An estimate of a device's level: the logarithm of its mean latency over the space in ms, and the variance."""

    log_ms: float
    variance: float


def level_of(space: SearchSpace, sources: Sequence[SourceTable], facts: Mapping[str, float]) -> Level:
    """Estimate the level of a device from hardware facts, else from source devices, else by a guess.

    Args:
        sources: tables of the source devices.
        facts: hardware facts of the device, by their names in `FACTS`.

    Raises:
        ValueError: a fact is unknown or not positive, or the facts give no compute rate.
    """
    for name, value in facts.items():
        if name not in FACTS:
            raise ValueError(f"unknown hardware fact {name!r}; known are: {', '.join(FACTS)}")
        if not value > 0:
            raise ValueError(f"hardware fact {name} must be positive, not {value}")
    if facts:
        return Level(float(np.log(_from_facts(space, facts))), WITH_FACTS**2)
    if sources:
        logs = np.log([table.mean_ms for table in sources])
        spread = max(float(logs.std(ddof=1)) if len(logs) > 1 else 0.0, LEAST_SPREAD)
        return Level(float(logs.mean()), spread**2 * (1 + 1 / len(logs)))
    return Level(float(np.log(_mean_work(space)[0] / (UNKNOWN_GMACS * 1e6))), UNKNOWN**2)


def level_of_components(components: Sequence[Component]) -> Level:
    """Return the level of a mixture whose components have levels; the spread within one is in its covariance.

    Args:
        components: with weights that sum to 1.
    """
    levels = np.log([one.level or np.nan for one in components])
    weights = np.array([one.weight for one in components])
    mean = float(weights @ levels)
    return Level(mean, float(weights @ (levels - mean) ** 2))


def _mean_work(space: SearchSpace) -> tuple[float, float, float]:
    """Return the mean multiply-accumulates, bytes and kernels of a network of the space."""
    networks = [space.layers(arch, live=True) for arch in space.sample(min(SAMPLE, space.size), 0)]
    macs, moved = ([sum(getattr(layer, cost) for layer in net) for net in networks] for cost in ("macs", "bytes"))
    return float(np.mean(macs)), float(np.mean(moved)), float(np.mean([len(net) for net in networks]))


def _from_facts(space: SearchSpace, facts: Mapping[str, float]) -> float:
    """Return a roofline estimate of the mean latency over the space in ms (`synthetic.devices` has the source)."""
    macs, moved, kernels = _mean_work(space)
    if "tops" in facts:
        rate = facts["tops"] * 1e12 / 2
    elif "cores" in facts and "clock_ghz" in facts:
        rate = facts["cores"] * facts["clock_ghz"] * 1e9 * facts.get("macs_per_cycle", MACS_PER_CYCLE)
    else:
        raise ValueError("hardware facts give no compute rate: give tops, or cores and clock_ghz")
    compute = macs / rate
    memory = moved / (facts["bandwidth_gbs"] * 1e9) if "bandwidth_gbs" in facts else 0.0
    return 1e3 * (max(compute, memory) / EFFICIENCY + kernels * facts.get("launch_us", 0.0) * 1e-6)
