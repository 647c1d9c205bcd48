"""The controller: devices, exporters, the store, the closed loop, reports and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latlab.harness.lab import Lab as Lab

__all__ = ["Lab"]


def __getattr__(name: str) -> Any:
    # `latlab --help` must not pay for what only measuring needs.
    if name == "Lab":
        from latlab.harness.lab import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
