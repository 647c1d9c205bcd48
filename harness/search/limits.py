"""What a network must keep: limits in milliseconds on targets, and the probability that it keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from latlab.harness.active_learning.target_labels import LATENCY
from latlab.harness.errors import BadInputError
from latlab.predictors import Prediction

__all__ = ["CENTRAL", "Constraints", "Limit", "Measured", "kept", "kept_jointly", "limits_of", "unit_symbol"]

Floats = NDArray[np.float64]

CENTRAL = 0.90
"""Probability that the interval of a `Prediction` holds a new measurement."""
LEAST_MS, MOST_MS = 1e-6, 86_400_000.0
"""Limits that make sense."""
_SYMBOLS = {"mj": "mJ", "mb": "MB"}
"""Symbols of units that differ from how the name of a metric ends."""
MOST_FREEDOM = 1000.0
"""Degrees of freedom from which on a Student-t distribution counts as normal."""


def unit_symbol(metric: str) -> str:
    """Return the symbol of the unit of a metric, which ends its name."""
    unit = metric.rpartition("_")[2]
    return _SYMBOLS.get(unit, unit)


@dataclass(frozen=True)
class Limit:
    """The most milliseconds that a network may take on a target, or the most of another metric."""

    target: str
    max_ms: float
    """In the metric's unit, as all fields here that are named after milliseconds."""
    metric: str = LATENCY

    def __post_init__(self) -> None:
        if self.metric != LATENCY:
            if not (math.isfinite(self.max_ms) and self.max_ms > 0):
                raise BadInputError(f"the most {self.metric} of {self.target} must be positive, not {self.max_ms:g}")
        elif not LEAST_MS <= self.max_ms <= MOST_MS:
            raise BadInputError(
                f"the limit of {self.target} is {self.max_ms:g} ms", "A limit is a time of 1 ns to a day, such as 20ms."
            )


def limits_of(named: Mapping[str, Sequence[str]], given: float | Mapping[str, float]) -> tuple[Limit, ...]:
    """Return the limit of each target.

    Args:
        named: full targets by the words that they are named by.
        given: a limit for all, or by word or full target; the key "" stands for all others.

    Raises:
        BadInputError: a target has no limit, or a limit no target.
    """
    by_word = dict(given) if isinstance(given, Mapping) else {"": given}
    rest = by_word.pop("", None)
    full = {**{target: [target] for targets in named.values() for target in targets}, **named}
    strange = [word for word in by_word if word not in full]
    if strange:
        raise BadInputError(
            f"there is a limit for {strange[0]}, which is no target of this search",
            f"The targets are: {', '.join(named)}.",
        )
    # A full target says more than the word for several.
    words = sorted(by_word, key=lambda word: len(full[word]), reverse=True)
    limits = {target: by_word[word] for word in words for target in full[word]}
    found = []
    for word, targets in named.items():
        for target in targets:
            value = limits.get(target, rest)
            if value is None:
                raise BadInputError(
                    f"{word} has no limit",
                    f"Give one, such as --max-latency {word}=20ms, or --max-latency-ms for all.",
                )
            found.append(Limit(target, float(value)))
    return tuple(found)


@dataclass(frozen=True)
class Constraints:
    """All that a network must keep, and with which probability.

    Raises:
        BadInputError: there is no limit on any target, or a number makes no sense.
    """

    limits: tuple[Limit, ...]
    confidence: float = 0.9
    """Probability with which all latency limits together must be kept."""
    max_macs: float | None = None
    max_params: float | None = None

    def __post_init__(self) -> None:
        if not self.limits:
            raise BadInputError("there is no limit to search under", "Give one, such as --max-latency-ms 20.")
        if not 0 < self.confidence < 1:
            raise BadInputError(
                f"the confidence must be between 0 and 1, not {self.confidence}",
                "0.9 keeps the limit in nine of ten cases.",
            )
        for name, value in (("MACs", self.max_macs), ("parameters", self.max_params)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadInputError(f"the most {name} must be a positive number, not {value:g}", "For example 300M.")


@dataclass(frozen=True)
class Measured:
    """The label of one network on one target, over all of its measurement sessions."""

    latency_ms: float
    stderr_ms: float
    """Standard error of the label, 0 if it is not known."""
    sessions: int = 1

    def deviation(self, spread: float) -> float:
        """Return the relative standard deviation of one more session's label around this one.

        Both labels have the error of their passes, and each session its own deviation, of which the mean of several
        sessions has less: 2 stderr^2 would count the passes' error twice, but the next session may take as few.

        Args:
            spread: relative standard deviation from one session to the next, beyond the error bars.
        """
        error = self.stderr_ms / self.latency_ms
        return math.sqrt(error**2 + spread**2 * (1 + 1 / self.sessions))

    def kept(self, max_ms: float, spread: float) -> float:
        """Return the probability that one more session finds at most `max_ms`, for a log-normal distribution."""
        deviation = self.deviation(spread)
        distance = math.log(max_ms / self.latency_ms)
        if deviation == 0:
            return float(distance >= 0)
        return float(special.ndtr(distance / deviation))


def kept(prediction: Prediction, max_ms: float) -> Floats:
    """Return the probability that a measurement finds at most `max_ms`, of each of n networks: shape (n,).

    Predictors give log-latencies with a Student-t distribution (`predictors.common.log_latency`). Its centre is the
    middle of the interval in the logarithm, its scale follows from the standard deviation, its degrees of freedom from
    how much wider the interval is than that of a normal distribution.
    """
    low, high = np.log(prediction.lower_ms), np.log(prediction.upper_ms)
    half = np.maximum((high - low) / 2, 1e-12)
    scale = np.sqrt(np.log1p((prediction.std_ms / prediction.mean_ms) ** 2))
    width = float(np.median(half / np.maximum(scale, 1e-12))) if len(half) else 0.0
    freedom = _freedom(round(width, 4))
    scale = half / special.stdtrit(freedom, (1 + CENTRAL) / 2)
    return np.asarray(special.stdtr(freedom, (math.log(max_ms) - (low + high) / 2) / scale))


def kept_jointly(probabilities: Sequence[Floats]) -> Floats:
    """Return the probability that all limits are kept: the product, as if errors on the targets were independent.

    Errors of one network on several targets rather go together, so the product is on the safe side.
    """
    return np.asarray(np.prod(np.stack(probabilities), axis=0))


@cache
def _freedom(half_width: float) -> float:
    """Return the degrees of freedom with which half the central interval of a standard Student-t is `half_width`."""
    degrees = np.geomspace(3, MOST_FREEDOM, 200)
    widths = special.stdtrit(degrees, (1 + CENTRAL) / 2)  # falls with the degrees
    return float(np.interp(-half_width, -widths, degrees))
