"""The request to time one pass, and the limits that both sides check."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from latlab.agents.protocol.messages import Fields

__all__ = ["MAX_OVERHEADS", "MAX_PASS_S", "MAX_RUNS", "STOPS", "PassRequest"]


MAX_CALLS = 1_000_000
"""Most calls in one sample, however short a call seems to be."""


MAX_RUNS = 100_000
"""Most runs of a warm-up, and most samples of a pass: they travel in one message."""


MAX_PASS_S = 3600.0
"""Most seconds that a policy may give to a warm-up, or to the samples of a pass."""


MAX_OVERHEADS = 1_000_000
"""Greatest ratio of a sample to the cost of reading the clock that a policy may ask for."""


STOPS = ("", "stdrel")
"""Rules that end a pass before its `max_runs`: none, or NVBench's `stdrel`."""


THROTTLE_SHARE = 0.75
"""Share of the GPU's default clock below which a sample counts as throttled and is discarded, as in NVBench."""

_STOP = re.compile("|".join(filter(None, STOPS)))


@dataclass(frozen=True)
class PassRequest:
    """The request for one pass of one network: the fields of a `TimingPolicy` that a device needs."""

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
        """Return the request that a message holds.

        Raises:
            AgentError: "bad_request" if a field is missing, or out of its limits.
        """
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
        """Return the fields of the message, without those at their defaults, which the other side fills in."""
        defaults = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    @property
    def fewest_runs(self) -> int:
        """Least number of samples of a pass."""
        return min(self.runs, 1) if self.max_pass_s else self.runs

    @property
    def most_runs(self) -> int:
        """Greatest number of samples of a pass."""
        return max(self.runs, self.max_runs or MAX_RUNS) if self.pass_s or self.stop else self.runs

    @property
    def most_warmup(self) -> int:
        """Greatest number of runs of a warm-up."""
        return MAX_RUNS if self.warmup_s else max(self.warmup, self.max_warmup)
