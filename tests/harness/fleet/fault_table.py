"""The recorder of what was observed of each fault, for the table in benchmarks/RESULTS.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

__all__ = ["FaultTable"]


class FaultTable:
    """Appends a JSON object per line to the file that LATLAB_FAULT_TABLE names; does nothing without that variable."""

    def __init__(self) -> None:
        named = os.environ.get("LATLAB_FAULT_TABLE")
        self._path = Path(named) if named else None

    def add(self, fault: str, noticed_s: float | None, told: list[str], more: dict[str, object]) -> None:
        """
        Args:
            noticed_s: from the fault to the first word of it; None where nothing has to be said.
            told: what people read of it.
        """
        row = {"fault": fault, "noticed_s": noticed_s, "told": told, **more}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
