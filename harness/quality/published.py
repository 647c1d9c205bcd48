"""What published labels permit: something to hold one's own against.

The table A.3 of HELP's supplement, how its devices correlate with themselves when measured again, is not at hand, and
its figures stand nowhere in HELP's published files. In their place stands what these files show: NAS-Bench-201 has
cells that compute the same function by the same operations, so that HELP's tables hold the same network measured
several times, and that gives each device's reliability ceiling (`bench.reference.noise_ceiling`, on HELP's and EAGLE's
latencies of NAS-Bench-201; `latlab bench predictors --ceiling` computes it anew).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    devices: str
    low: float
    high: float
    """Reliability ceilings (Spearman): of the noisiest and the quietest of these devices."""
    noisiest: str


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
