"""A store that grows as if devices measured into it: rows, passes with sensors, anchors and incidents, no device."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from latlab.harness.store.store import Campaign, Store
from latlab.harness.store.vocabulary import Selection, Status
from latlab.harness.targets import Target
from latlab.harness.telemetry.recorded_pass import PassKind, RecordedAnchor, RecordedPass
from latlab.harness.timing_policy import TimingPolicy
from latlab.search_spaces import get

__all__ = ["GrowingStore"]

SPACE = "nasbench201"


class GrowingStore:
    """A store whose devices are made up.

    Args:
        path: of the store.
        devices: how many.
        networks: how many each is to measure.
    """

    def __init__(self, path: Path, devices: int = 3, networks: int = 8, name: str = "dev") -> None:
        self.store = Store(path)
        self.random = random.Random(0)
        self.archs = [arch.text for arch in get(SPACE).sample(networks, 0)]
        self.campaigns: list[Campaign] = [
            self.store.campaign(
                Target.parse(f"{name}{at}/onnxruntime/cpu/fp32/t1/b1"),
                SPACE,
                TimingPolicy("default", warmup=1, runs=3, trim=0.25, passes=2, spread=1),
                0,
                Selection.LISTED,
            )
            for at in range(devices)
        ]
        self.mark = self.store.fingerprint({"simulated": True})
        for campaign in self.campaigns:
            self.store.note_session(campaign.id, 1, planned=networks)

    def begin(self, device: int, network: int, session: int = 1) -> int:
        """Begin a row, and return its id."""
        row = self.store.begin(self.campaigns[device], session, self.archs[network], "listed", fingerprint_id=self.mark)
        return int(row.id)

    def time(self, row: int, number: int = 0, ms: float = 2.0, celsius: float = 51.0) -> None:
        """Store a pass of a row."""
        samples = [round(1e6 * ms * self.random.uniform(1, 1.02)) for _ in range(5)]
        state = {"temperature_c": {"cpu": celsius}}
        telemetry: dict[str, Any] = {"before": state, "after": state}
        self.store.add_pass(row, RecordedPass([samples[0]], samples, telemetry, number, PassKind.LABEL))

    def finish(self, row: int, ms: float = 2.0, status: str = Status.OK, error: str | None = None) -> None:
        """Close a row."""
        if status == Status.OK:
            self.store.finish(row, status, latency_ms=ms, stderr_ms=ms / 100, low_ms=ms * 0.98, high_ms=ms * 1.02)
        else:
            self.store.finish(row, status, error=error)

    def measure(self, device: int, network: int, ms: float = 2.0, session: int = 1) -> None:
        """Begin, time and close a row."""
        row = self.begin(device, network, session)
        for number in range(2):
            self.time(row, number, ms)
        self.finish(row, ms)

    def anchor(self, device: int, session: int, arch: str, ms: float) -> None:
        """Store a pass of an anchor."""
        samples = [round(1e6 * ms)] * 5
        self.store.add_anchor(self.campaigns[device], session, RecordedAnchor([], samples, {}, arch=arch))
