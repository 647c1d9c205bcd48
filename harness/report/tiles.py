"""A tile: one figure at the top of a page."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tile"]


@dataclass(frozen=True)
class Tile:
    label: str
    value: str
    unit: str = ""
    note: str = ""
    warn: bool = False
