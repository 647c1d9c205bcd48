"""The words that a store uses for statuses, roles and selections."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["USER_MODEL_SPACE", "Role", "Selection", "Status"]

USER_MODEL_SPACE = "model"
"""What stands for the search space of a model of the user's own, which has none."""


class Status(StrEnum):
    """State of a measurement; every other status is the kind of its failure (`agents.protocol.errors.KINDS`)."""

    OK = "ok"
    """Finished, with a label."""
    RUNNING = "running"
    """Passes are missing still; it may have a latency so far."""
    DEVICE_LOST = "device_lost"
    """Its device was given up while it was running: the same command goes on with it."""


class Role(StrEnum):
    """What a measurement is for."""

    TRAIN = "train"
    """Chosen by the closed loop; the predictor is fitted to it."""
    HOLDOUT = "holdout"
    """Measured to judge the predictor, which never sees it."""
    LISTED = "listed"
    """Asked for by the user."""
    REFERENCE = "reference"
    """One of the reference architectures of HELP's hardware embedding."""
    SUSTAIN = "sustain"
    """A sustained run, which makes no label."""


class Selection(StrEnum):
    """How the networks of a campaign were chosen; a model of the user's own has its name there."""

    RANDOM = "random"
    LISTED = "listed"
    REFERENCES = "references"
    HOLDOUT = "holdout"
    SUSTAIN = "sustain"

    @staticmethod
    def onboarding(predictor: str) -> str:
        """Return the selection of networks that a predictor chose in the closed loop."""
        return f"onboard:{predictor}"
