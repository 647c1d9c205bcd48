"""The controller: it measures networks on devices, stores the latencies, and predicts those of other networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latlab.harness.lab import Lab as Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:
    # Lazy, because `latlab --help` must not wait for imports that only measuring needs.
    if name == "Lab":
        from latlab.harness.lab import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
