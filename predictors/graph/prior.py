"""What is believed of a device's costs before anything is measured.

The logarithm of the cost of each quantity of each kind (`work.QUANTITIES`) is normal around a generic core, a processor
with 30 billion multiply-accumulates and 10 billion bytes a second. Deviations are shared: by everything (the device's
speed), by one quantity of all kinds (its memory is slow), by all quantities of one kind (its runtime is bad at it). So
an operator that was never measured takes what the others have shown of the device, and its own deviation stays wide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlab.predictors.base import FloatArray
from latlab.predictors.graph.work import COMPUTING, Column

__all__ = ["prior"]

CORE_MS = {
    "start": 0.004,
    "macs": 30.0,
    "narrow in": 20.0,
    "narrow out": 20.0,
    "weights": 0.02,
    "moved": 0.08,
    "cold": 0.07,
}
"""Milliseconds of one unit of each quantity."""
USUAL = {
    ("depthwise", "macs"): 4.0, ("grouped", "macs"): 2.0, ("deconv", "macs"): 2.0, ("matmul", "macs"): 1.5,
    ("rnn", "macs"): 1.5, ("pool", "macs"): 3.0, ("exponential", "moved"): 4.0, ("softmax", "moved"): 4.0,
    ("norm", "moved"): 2.5, ("move", "moved"): 2.0, ("resize", "moved"): 3.0, ("other", "moved"): 3.0,
    ("view", "start"): 0.2,
}  # fmt: skip
"""Factors of the core for kinds that are known to be slower or quicker."""
CACHED = 0.5
"""Factor of the bytes of computing kinds: their loops overlap with the memory."""
INT8 = 0.5
"""Factor of multiply-accumulates in 8 bits."""
SPEED, QUANTITY, KIND, OWN = 1.5, 0.5, 0.4, 0.6
"""Logarithmic standard deviations of the shared deviations, and of each cost's own."""


def prior(columns: Sequence[Column], spread: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """Return mean (d,) and covariance (d, d) of the logarithms of the costs, in ms per unit.

    Args:
        columns: kind and quantity of each cost.
        spread: factor of the deviations that kinds do not share.
    """
    mean = np.array([np.log(_usual(*column)) for column in columns])
    kinds, names = np.array([kind for kind, _ in columns]), np.array([name for _, name in columns])
    covariance = np.full((len(columns), len(columns)), SPEED**2)
    covariance += QUANTITY**2 * (names[:, None] == names)
    covariance += (spread * KIND) ** 2 * (kinds[:, None] == kinds)
    covariance[np.diag_indices(len(columns))] += (spread * OWN) ** 2
    return mean, covariance


def _usual(kind: str, quantity: str) -> float:
    base, _, bits = kind.partition(" ")
    factor = USUAL.get((base, quantity), 1.0)
    if base in COMPUTING and quantity == "moved":
        factor *= CACHED
    if bits and quantity in ("macs", "narrow in", "narrow out"):
        factor *= INT8
    return CORE_MS[quantity] * factor
