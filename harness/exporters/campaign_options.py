"""The options of an exporter that belong to a campaign."""

from __future__ import annotations

from typing import Any

from latlab.harness.exporters import get_exporter
from latlab.harness.targets import Target

__all__ = ["campaign_options"]


def campaign_options(target: Target, as_written: bool) -> dict[str, Any]:
    """Return the export options that change latencies and therefore identify a campaign: how its files were made.

    Raises:
        BadInputError: networks are not exported in the target's precision for its runtime.
    """
    target.check_exported()
    return {"as_written": as_written, "exporter": get_exporter(target.format).version_in(target.precision)}
