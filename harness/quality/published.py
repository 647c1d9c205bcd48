"""Reliability ceilings of published labels, to compare one's own with.

Table A.3 of HELP's supplement says how its devices correlate with themselves when they are measured again, but it is
not at hand, and HELP's published files do not contain its figures. These ceilings come from the files themselves:
NAS-Bench-201 has cells that compute the same function by the same operations, so that the tables hold several
measurements of the same network. `bench.ceilings.noise_ceiling` makes each device's ceiling of them, for HELP's and
EAGLE's latencies of NAS-Bench-201, and `latlab bench predictors --ceiling` computes it again.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """The range of ceilings of a group of published devices."""

    devices: str
    low: float
    high: float
    """Reliability ceilings (Spearman) of the noisiest (`low`) and the quietest (`high`) of these devices."""
    noisiest: str
    """Name of the noisiest device; "" if the group has only one."""


PUBLISHED = (
    Published("HELP: GPUs, batch 32 and 256", 0.978, 1.000, "GTX 1080 Ti, batch 32"),
    Published("HELP: GPUs, batch 1", 0.979, 0.992, "Titan Xp"),
    Published("HELP: Xeon CPUs", 0.960, 0.996, "Gold 6240"),
    Published("HELP: phones", 0.931, 0.980, "Pixel 2"),
    Published("HELP: Raspberry Pi 4", 0.967, 0.967, ""),
    Published("HELP: FPGA and Eyeriss", 0.998, 1.000, "Eyeriss"),
    Published("EAGLE: phones' CPUs", 0.811, 0.959, "Snapdragon 855"),
    Published("EAGLE: phones' GPUs and DSPs", 0.939, 0.989, "Adreno 612"),
)
