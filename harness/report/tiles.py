"""A tile: one figure at the head of a page."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tile"]


@dataclass(frozen=True)
class Tile:
    """A figure with its name, unit and a short note. `warn` highlights it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    warn: bool = False
