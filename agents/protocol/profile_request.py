"""The request to profile a loaded network, and the limits that both sides check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from latlab.agents.protocol.messages import Fields

__all__ = ["MAX_FUSED", "MAX_OPERATORS", "MAX_PROFILED_RUNS", "MAX_WORD", "ProfileRequest"]

MAX_PROFILED_RUNS = 1000
"""Most profiled inferences, and most before them. A profiler keeps a record for each operator of each of them."""
MAX_OPERATORS = 2000
"""Most operators in a reply; the time of further ones is a sum. A reply with so many takes 1 MB."""
MAX_WORD = 200
"""Most characters of an operator's name, kind or provider."""
MAX_FUSED = 16
"""Most names of operators that one operator stands for."""


@dataclass(frozen=True)
class ProfileRequest:
    """The fields of `profile`: how many inferences to run before the profiler records, and how many it records."""

    warmup: int
    runs: int

    @classmethod
    def read(cls, request: Fields) -> ProfileRequest:
        """Return the request that a message holds.

        Raises:
            AgentError: "bad_request" if a field is missing, or out of its limits.
        """
        return cls(
            warmup=request.integer("warmup", 0, MAX_PROFILED_RUNS), runs=request.integer("runs", 1, MAX_PROFILED_RUNS)
        )

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of the message."""
        return dict(vars(self))
