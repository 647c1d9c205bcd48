"""One typed reading of the telemetry that devices send."""

from __future__ import annotations

import math
from typing import Any

from latlab.harness.text import printable

__all__ = ["number", "text"]


SENSIBLE_C = (-40.0, 130.0)
"""Sensors that are broken or not temperatures at all say something outside."""


PI_NOW = {0x1: "too little voltage", 0x2: "clock capped", 0x4: "throttled", 0x8: "at its soft temperature limit"}
"""Bits of the Raspberry Pi's `vcgencmd get_throttled`; 16 bits further up: since boot."""


def number(value: Any, *path: str) -> float | None:
    """The finite number at a place in what a device said, if there is one."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e18:
        return None
    return float(value) if math.isfinite(value) else None


def text(value: Any, *path: str) -> str | None:
    """The text at a place in what a device said, fit for a terminal, if there is one."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return printable(value[:200]).strip() or None if isinstance(value, str) else None
