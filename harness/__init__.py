"""The controller: it measures networks on devices, stores the latencies, and predicts those of other networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latlab.harness.active_learning.fitted_predictor import load_predictor as load_predictor
    from latlab.harness.lab import Lab as Lab

__all__ = ["Lab", "load_predictor"]


def __getattr__(name: str) -> Any:
    # Lazy, because `latlab --help` must not wait for imports that only measuring needs.
    if name == "Lab":
        from latlab.harness.lab import Lab

        return Lab
    if name == "load_predictor":
        from latlab.harness.active_learning.fitted_predictor import load_predictor

        return load_predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
