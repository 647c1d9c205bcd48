"""The words that a store uses for statuses, roles and selections."""

from __future__ import annotations

from enum import StrEnum

from latlab.agents.protocol.errors import KINDS

__all__ = ["FAILURES", "LATENCY", "USER_MODEL_SPACE", "Role", "Selection", "Status"]

FAILURES = frozenset({*KINDS, "export_mismatch"})
"""Statuses of measurements that failed: the kinds of failure on a device, and a file that computes something else."""

USER_MODEL_SPACE = "model"
"""The name that takes the place of the search space for a model of the user's own, which has none."""


LATENCY = "latency_ms"
"""The column of the label itself, beside which others, such as the energy, can be predicted."""


class Status(StrEnum):
    """State of a measurement; any other status is the kind of its failure (`FAILURES`)."""

    OK = "ok"
    """Finished, with a label."""
    RUNNING = "running"
    """Passes are still missing; the row may have a preliminary latency."""
    DEVICE_LOST = "device_lost"
    """Its device was given up while it was running; the same command continues it."""


class Role(StrEnum):
    """The purpose of a measurement."""

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
    COMPARE = "compare"
    """One side of a paired comparison, which makes no label."""


class Selection(StrEnum):
    """The choice of a campaign's networks; for a model of the user's own it is the model's name."""

    RANDOM = "random"
    LISTED = "listed"
    REFERENCES = "references"
    HOLDOUT = "holdout"
    SUSTAIN = "sustain"
    COMPARE = "compare"
    IMPORTED = "imported"
    """Labels that the user has brought along; latlab has no passes of them."""

    @staticmethod
    def onboarding(predictor: str, sampler: str | None = None) -> str:
        """Return the selection of networks that a predictor chose in the closed loop, or a sampler for it."""
        return f"onboard:{predictor}" if sampler is None else f"onboard:{predictor}/{sampler}"
