"""The connection of a predictor's pre-training to whoever started it: its progress, and its unfinished state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORGETFUL", "TrainingLog"]


class TrainingLog:
    """A log of a pre-training. This one forgets everything; who wants to know more sets `Predictor.training_log`."""

    def progress(self, done: int, total: int, figures: Mapping[str, float]) -> None:
        """Take note that `done` of `total` steps are done, and of figures such as a loss, by name."""

    def unfinished(self) -> Mapping[str, NDArray[Any]] | None:
        """Return the state that an earlier process left when it was ended, or None; the arrays may be damaged."""
        return None

    def keep(self, state: Callable[[], Mapping[str, NDArray[np.generic]]]) -> None:
        """Keep the state for a later process. It is called often and decides itself when it asks for the arrays."""


FORGETFUL = TrainingLog()
"""The log of a pre-training that nobody watches."""
