"""Functions that the scripts here share: they describe the machine, print tables and save figures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return a description of this machine and its packages, with today's date (UTC)."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table with the keys of the first row as columns."""
    table = Table(title=title, title_justify="left", header_style="dim", box=None, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else "-" if v is None else str(v) for v in row.values()))
    Console(width=180).print(table)


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Save figures as JSON, with the description of the machine that they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**figures, "machine": machine()}, indent=1) + "\n")
    print(f"written: {path}")
