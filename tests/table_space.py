"""A space of which only tables of latencies exist, installed for a test as a package of somebody's own would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from latlab.search_spaces.hat.space import HATDecoder

__all__ = ["TablesOnly", "install"]


class TablesOnly(HATDecoder):
    """HAT's decoders without networks."""

    name: ClassVar[str] = "tables-only"
    buildable: ClassVar[bool] = False

    def build(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{self.name} has no networks to build")


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `latlab.search_spaces` find the space until the end of the test."""
    facts = folder / "tables_only-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tables-only\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[latlab.search_spaces]\ntables-only = table_space:TablesOnly\n")
    monkeypatch.syspath_prepend(folder)
