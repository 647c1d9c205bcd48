"""How a network is timed: the policy, as a frozen value with a hash, and the loop that takes samples."""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .errors import AgentError

__all__ = ["PRESETS", "TimingPolicy", "take_samples"]


@dataclass(frozen=True)
class TimingPolicy:
    """How often a network is run, and how its samples become one number.

    Rows whose policies differ in `hash` are never pooled.
    """

    name: str
    warmup: int
    """Runs discarded at the start of each pass."""
    runs: int
    """Samples kept in each pass."""
    trim: float
    """Share of a pass's samples cut at each end."""
    passes: int
    """Sittings: short runs of a network, with runs of other networks in between."""
    spread: int
    """Rounds between two passes of the same network."""

    def __post_init__(self) -> None:
        for field, least in (("warmup", 0), ("runs", 1), ("passes", 1), ("spread", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{field} of a timing policy is a whole number of at least {least}, not {value!r}")
        if not 0 <= self.trim < 0.5:
            raise ValueError(f"trim of a timing policy is a share in [0, 0.5), not {self.trim!r}")

    def hash(self) -> str:
        """Identity of everything but the name, so that the same policy under two names is one policy."""
        values = asdict(self)
        del values["name"]
        values["trim"] = float(self.trim)
        text = json.dumps({"timing": 1, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


PRESETS = {
    # What HELP does (Lee et al. 2021): 10 runs discarded, 50 measured, top and bottom 10 % dropped, mean.
    "help": TimingPolicy("help", warmup=10, runs=50, trim=0.1, passes=1, spread=0),
    # Disturbances on a shared machine come in bursts: the same number of runs, in five sittings apart. A quarter is
    # trimmed at each end, because on a busy machine more than a tenth of the runs are preempted (100 networks beside
    # other people's builds: test-retest Spearman .936 with a tenth, .982 with a quarter, .996 for the lower quartile,
    # which is no estimate of a usual run).
    "default": TimingPolicy("default", warmup=2, runs=10, trim=0.25, passes=5, spread=1),
}


def take_samples(
    invoke: Callable[[], object], runs: int, deadline_ns: int, between: Callable[[], object] | None = None
) -> list[int]:
    """Durations of `runs` calls of `invoke` in ns, in order: one call between two readings of the clock.

    The garbage collector is off meanwhile: a collection would hit some samples and not others.

    Args:
        deadline_ns: on `time.perf_counter_ns`; no call begins after it.
        between: called before each sample, outside what is timed; may raise to give up.

    Raises:
        AgentError: "timeout".
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    append = samples.append
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = clock()
        for _ in range(runs):
            if between is not None:
                between()
            if end > deadline_ns:
                raise AgentError("timeout", f"the deadline passed after {len(samples)} of {runs} runs")
            start = clock()
            invoke()
            end = clock()
            append(end - start)
    finally:
        if collecting:
            gc.enable()
    return samples
