"""Which of several targets is the noisiest, by how much, and why, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latlab.harness.quality.assessment import Quality
from latlab.harness.text import percent

__all__ = ["LabelNoise", "compared", "in_words"]

ALIKE = 1.1
"""If one target is noisier than another by less than this factor, they are called about equally noisy."""


@dataclass(frozen=True)
class LabelNoise:
    """What makes a label differ from the next one of the same network: standard deviations in percent of it."""

    name: str
    """The target; and the space, if several are compared."""
    between: float | None
    """From one session to the next, beyond the error bars; None if nothing was measured in two sessions."""
    drift: float
    """What labels near each other in time have in common."""
    within: float | None
    """The typical standard error within a session; None if no error is known."""

    @property
    def total(self) -> float:
        """All of it together."""
        return math.hypot(self.between or 0.0, self.drift, self.within or 0.0)

    def parts(self) -> list[tuple[str, float | None]]:
        """Return the three in words, with their sizes."""
        return [
            ("between sessions", self.between),
            ("drift left in the labels", self.drift),
            ("within a session", self.within),
        ]


def _label_noise(one: Quality, name: str) -> LabelNoise:
    """Return the noise of the labels that were assessed."""
    between = None
    if one.between is not None:
        between = math.hypot(one.between.common_percent, one.between.specific_percent or 0.0)
    drift = max((session.slow_percent for session in one.sessions), default=0.0)
    return LabelNoise(name, between, drift, one.labels.stderr_percent)


def compared(found: Sequence[Quality]) -> str:
    """Return a sentence that says which target is noisiest, by how much, and what most of its noise is.

    It is empty if fewer than two have labels whose noise is known.
    """
    several = len({one.space for one in found}) > 1
    names = [f"{one.target} {one.space}" if several else one.target for one in found]
    return in_words([_label_noise(one, name) for one, name in zip(found, names, strict=True)])


def in_words(noises: Sequence[LabelNoise]) -> str:
    """Return the sentence of `compared`, from the noise of each target."""
    known = sorted((one for one in noises if one.total > 0), key=lambda one: -one.total)
    if len(known) < 2:
        return ""
    worst, *others = known
    factor = worst.total / others[0].total
    than = f"{factor:.2g} times as much as" if factor >= ALIKE else "about as much as"
    rest = ", ".join(f"{one.name} {_size(one.total)}" for one in others)
    most = max(worst.parts(), key=lambda part: part[1] or 0.0)[0]
    parts = ", ".join(f"{name} {_size(value)}" for name, value in worst.parts())
    blind = [one.name for one in known if one.between is None]
    unseen = f" (Between sessions nothing is known of {', '.join(blind)}: --new-session measures again.)" * bool(blind)
    return (
        f"Noisiest: {worst.name}, whose labels are typically off by {_size(worst.total)}, {than} the next "
        f"({rest}); most of it is {most} ({parts}).{unseen}"
    )


def _size(value: float | None) -> str:
    return "not known" if value is None else f"{percent(value)} %" if value else "none"
