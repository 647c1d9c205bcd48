"""Units of latencies, and the check that a unit is possible for the networks of a space."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from numpy.typing import NDArray

from latlab.harness.architectures import is_block_space
from latlab.harness.errors import BadInputError
from latlab.search_spaces import SearchSpace

__all__ = ["LATENCY_MS", "UNITS", "batch_in_name", "check_unit", "possible_ms"]

UNITS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}
"""Milliseconds per unit."""
LATENCY_MS = (1e-7, 1e9)
"""Least and largest latency that anything can have: a tenth of a nanosecond, and eleven days."""
BLOCKS_MS = (1e-6, 1e4)
"""Bounds for single blocks, of which some cost next to nothing."""
FASTEST_MS = 0.02
"""Least median latency of whole networks: they have dozens of operators, and to start one takes about a microsecond.
The fastest published device (an Edge TPU on NAS-Bench-201) takes 1.1 ms."""
SURE_MS = 0.2
"""Least median latency that is taken as milliseconds if nobody has said the unit: seconds may look like fewer."""
SLOWEST_MACS_PER_S = 1e7
"""Multiply-accumulates per second of the slowest device: microcontrollers do several times as many. The slowest
published devices (phones of 2016) do 2e9."""
NETWORKS = 20
"""Networks whose median number of multiply-accumulates stands for the space."""


def check_unit(
    space: SearchSpace,
    latency: NDArray[np.float64],
    unit: str,
    name: str,
    device: str,
    batch_size: int | None = None,
    *,
    is_stated: bool = True,
) -> None:
    """Check that latencies are possible for networks of a space, by their median.

    Args:
        latency: shape (n,), all positive, in `unit`.
        unit: one of `UNITS`.
        name: the file's name in errors.
        device: the device's name; `v100_32` has a batch of 32 images, as in HELP's tables.
        batch_size: the images of an inference, where it is known.
        is_stated: whether somebody has said the unit. If not, the median must be a usual one.

    Raises:
        BadInputError: naming the unit that is likely, and the option that accepts the values as they are.
    """
    low, high = possible_ms(space, batch_size or batch_in_name(device))
    median = float(np.median(latency))
    least = low if is_stated or is_block_space(space.name) else max(low, SURE_MS)
    if least <= median * UNITS[unit] <= high:
        return
    if low <= median * UNITS[unit] < least:
        raise BadInputError(
            f"{name}: no column names the unit of {device}, and a median of {median:g} may be in ms or in s",
            "Say it: --unit ms, or --unit s; or call the column latency_ms or latency_s.",
        )
    likely = [other for other, factor in UNITS.items() if low <= median * factor <= high]
    if likely:
        centre = float(np.sqrt(low * high))
        likely.sort(key=lambda other: abs(np.log(median * UNITS[other] / centre)))
        hint = (
            f"If they are in {likely[0]} ({median * UNITS[likely[0]]:.3g} ms), say --unit {likely[0]}; "
            "if they are right as they are, --insist."
        )
    else:
        others = ", ".join(other for other in UNITS if other != unit)
        hint = f"Say their unit: --unit {others}; if they are right as they are, --insist."
    raise BadInputError(
        f"{name}: the median latency of {device} would be {median * UNITS[unit]:g} ms, if its unit is {unit}; "
        f"networks of {space.name} take {_words(low)} to {_words(high)}",
        hint,
    )


def possible_ms(space: SearchSpace, batch_size: int = 1) -> tuple[float, float]:
    """Return bounds of the median latency in milliseconds that networks of a space can have on any device."""
    if is_block_space(space.name):
        return BLOCKS_MS
    return FASTEST_MS, 1e3 * _median_macs(space) * batch_size / SLOWEST_MACS_PER_S


@cache
def _median_macs(space: SearchSpace) -> float:
    networks = space.sample(min(NETWORKS, space.size))
    return float(np.median([sum(layer.macs for layer in space.layers(arch)) for arch in networks])) or 1e6


def batch_in_name(device: str) -> int:
    """Return the batch size that a device's name ends in, as in HELP's tables; 1 if it does not.

    >>> batch_in_name("titan_rtx_256"), batch_in_name("gold_6226"), batch_in_name("pixel3")
    (256, 1, 1)
    """
    found = re.search(r"[_-](\d{1,4})$", device)
    size = int(found[1]) if found else 1
    return size if size in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) else 1


def _words(ms: float) -> str:
    return f"{ms * 1e3:.0f} us" if ms < 0.1 else f"{ms:.3g} ms" if ms < 1000 else f"{ms / 1e3:.2g} s"
