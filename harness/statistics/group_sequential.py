"""Critical values for looking at data again and again while they come in: group-sequential boundaries.

Whoever tests after every block of measurements, and stops at the first significant result, finds a difference between
two equal networks far more often than the level of the single test says. A group-sequential design spends the error
probability alpha over the looks: at the share t of the planned time, the probability of a false decision so far may be
alpha*(t). The spending function here is the one that resembles O'Brien and Fleming's boundary: it spends almost nothing
early, so that the last look is nearly as sharp as a single test.

The critical values c_k bound |Z_k| at looks k = 1, 2, ..., where Z_k is the standardised mean of the first n_k of
independent, identically distributed blocks. Then all intervals `mean +- c_k stderr_k` hold at once with probability
1 - alpha (repeated confidence intervals), whatever rule stops the measuring.

Sources:
    Lan and DeMets (1983), Biometrika 70, 659-663: spending functions, equation (3) for the one used here.
    Lan and DeMets (1989), Biometrics 45, 1017-1020: spending by calendar time.
    Armitage, McPherson and Rowe (1969), J. R. Stat. Soc. A 132, 235-244: the recursion over looks.
    Jennison and Turnbull (1989), J. R. Stat. Soc. B 51, 305-361: repeated confidence intervals.
    Jennison and Turnbull (2000), Group Sequential Methods, section 3.8: Student's t in place of the normal, at the same
        significance level of each look.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Boundary", "spent"]

_WIDTH = 7.0
"""Standard deviations to each side within which the running sum is followed; beyond it lies less than 1e-11."""
_POINTS = 256
"""Points of the quadrature between the two boundaries."""
_BEYOND = 9.0
"""The greatest critical value: the probability beyond it is less than 1e-18."""


def spent(alpha: float, share: float) -> float:
    """Return the error probability that may be spent until `share` of the planned time: 4 - 4 Phi(z / sqrt(share)).

    z is the normal quantile of 1 - alpha / 4. Each side gets one half (Lan and DeMets 1983, equation 3).
    """
    if share <= 0:
        return 0.0
    return float(4 * special.ndtr(special.ndtri(alpha / 4) / math.sqrt(min(1.0, share))))


class Boundary:
    """The two-sided boundary of one series of looks; each look's critical value follows from the looks before.

    Args:
        alpha: probability of a false decision over all looks, in (0, 1).
    """

    def __init__(self, alpha: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"an error probability is between 0 and 1, not {alpha}")
        self.alpha = alpha
        self._blocks = 0
        self._spent = 0.0
        self._sums: NDArray[np.float64] = np.zeros(1)
        """Possible sums of the blocks so far, in standard deviations of one block."""
        self._mass: NDArray[np.float64] = np.ones(1)
        """Probability of each sum, without a decision at the looks before."""

    def look(self, blocks: int, share: float) -> float:
        """Return the two-sided significance level of the next look, to be used with Student's t or the normal.

        Args:
            blocks: number of blocks so far; more than at the look before.
            share: share of the planned time that has passed, in [0, 1]; no less than at the look before. It must not
                depend on the values of the blocks.
        """
        added = blocks - self._blocks
        if added < 1:
            raise ValueError("each look needs further blocks")
        allowed = max(0.0, spent(self.alpha, share) - self._spent)
        critical = self._critical(blocks, added, allowed)
        nodes, weights = _quadrature()
        reach = min(critical, _WIDTH) * math.sqrt(blocks)
        sums = reach * nodes
        steps = (sums[:, None] - self._sums[None, :]) / math.sqrt(added)
        density = np.exp(-(steps**2) / 2) @ self._mass / math.sqrt(2 * math.pi * added)
        self._blocks, self._spent = blocks, self._spent + allowed
        self._sums, self._mass = sums, reach * weights * density
        return float(2 * special.ndtr(-critical))

    def _critical(self, blocks: int, added: int, allowed: float) -> float:
        """Return the critical value at which this look is crossed with probability `allowed`."""
        low, high = 0.0, _BEYOND
        for _ in range(50):
            middle = (low + high) / 2
            distance = (middle * math.sqrt(blocks) - self._sums) / math.sqrt(added)
            other = (middle * math.sqrt(blocks) + self._sums) / math.sqrt(added)
            crossed = float((self._mass * (special.ndtr(-distance) + special.ndtr(-other))).sum())
            low, high = (middle, high) if crossed > allowed else (low, middle)
        return high


@cache
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the nodes and weights of Gauss and Legendre's quadrature on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    return nodes, weights
