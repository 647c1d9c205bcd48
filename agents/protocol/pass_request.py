"""What the controller asks of one pass, and the limits that both sides check."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from latlab.agents.protocol.messages import Fields

__all__ = ["MAX_OVERHEADS", "MAX_PASS_S", "MAX_RUNS", "STOPS", "PassRequest"]


MAX_CALLS = 1_000_000
"""In one sample, however short a call seems to be."""


MAX_RUNS = 100_000
"""In a warm-up, or among the samples of a pass: they travel in one message."""


MAX_PASS_S = 3600.0
"""Longest that a policy may make a warm-up, or the samples of a pass, last."""


MAX_OVERHEADS = 1_000_000


STOPS = ("", "stdrel")
"""Rules by which a pass ends before its `max_runs`: none, or NVBench's."""


THROTTLE_SHARE = 0.75
"""A sample under a clock below this share of the GPU's default is discarded, as in NVBench."""

_STOP = re.compile("|".join(filter(None, STOPS)))


@dataclass(frozen=True)
class PassRequest:
    """What a device is told of a policy, of whose fields these are some: how one pass of one network is timed."""

    warmup: int
    runs: int
    max_warmup: int = 0
    warmup_s: float = 0.0
    pass_s: float = 0.0
    max_pass_s: float = 0.0
    max_runs: int = 0
    stop: str = ""
    overheads: int = 0

    @classmethod
    def read(cls, request: Fields) -> PassRequest:
        """From the fields of a request. Raises `AgentError` ("bad_request")."""
        return cls(
            warmup=request.integer("warmup", 0, MAX_RUNS),
            runs=request.integer("runs", 0, MAX_RUNS),
            max_warmup=request.optional_integer("max_warmup", 0, MAX_RUNS) or 0,
            warmup_s=request.optional_number("warmup_s", 0, MAX_PASS_S) or 0.0,
            pass_s=request.optional_number("pass_s", 0, MAX_PASS_S) or 0.0,
            max_pass_s=request.optional_number("max_pass_s", 0, MAX_PASS_S) or 0.0,
            max_runs=request.optional_integer("max_runs", 0, MAX_RUNS) or 0,
            stop=request.optional_text("stop", _STOP) or "",
            overheads=request.optional_integer("overheads", 0, MAX_OVERHEADS) or 0,
        )

    def to_fields(self) -> dict[str, Any]:
        """Fields of a request: those at their defaults are not told, so that a plain pass is asked for plainly."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @property
    def fewest_runs(self) -> int:
        """Samples that a pass has at least."""
        return min(self.runs, 1) if self.max_pass_s else self.runs

    @property
    def most_runs(self) -> int:
        """Samples that a pass has at most."""
        return max(self.runs, self.max_runs or MAX_RUNS) if self.pass_s or self.stop else self.runs

    @property
    def most_warmup(self) -> int:
        """Runs that a warm-up has at most."""
        return MAX_RUNS if self.warmup_s else max(self.warmup, self.max_warmup)
