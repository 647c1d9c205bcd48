"""How a network is timed: the policy, one frozen value with a hash that decides which labels may be pooled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

__all__ = ["MAX_OVERHEADS", "MAX_PASS_S", "MAX_RUNS", "PRESETS", "STOPS", "PolicyError", "TimingPolicy"]

MAX_RUNS = 100_000
"""In a warm-up, or among the samples of a pass: they travel in one message."""
MAX_PASS_S = 3600.0
"""Longest that a policy may make a warm-up, or the samples of a pass, last."""
MAX_OVERHEADS = 1_000_000
MAX_PASSES = 10_000
STOPS = ("", "stdrel")
"""Rules by which a pass ends before its `max_runs`: none, or NVBench's."""
_NUMBERS = {
    "trim": 0.5,
    "precision": 1.0,
    "max_s": 86400.0,
    "warmup_s": MAX_PASS_S,
    "pass_s": MAX_PASS_S,
    "max_pass_s": MAX_PASS_S,
}
"""Fields that need not be whole, and how large they may be."""


class PolicyError(ValueError):
    """A policy that makes no sense; `field` is the field to mend."""

    def __init__(self, field: str, wanted: str, value: object) -> None:
        super().__init__(f"{field} of a timing policy is {wanted}, not {value!r:.60}")
        self.field, self.wanted, self.value = field, wanted, value


@dataclass(frozen=True)
class TimingPolicy:
    """How often a network is run, and how its samples become one number.

    Rows whose policies differ in `hash` are never pooled. Fields from `max_passes` on are at their defaults
    where a policy is a fixed number of passes of a fixed number of runs.
    """

    name: str
    warmup: int
    """Runs discarded at the start of each pass, at least."""
    runs: int
    """Samples kept in each pass, at least."""
    trim: float
    """Share of a network's samples cut at each end."""
    passes: int
    """Short runs of a network, with runs of other networks in between, at least."""
    spread: int
    """Rounds between two passes of the same network."""
    max_passes: int = 0
    """Passes are added until the interval is narrow (`precision`), up to so many; 0: as many as `passes`."""
    precision: float = 0.0
    """Half the 95 % interval's width, as a share of the latency, at which no pass is added; 0: not looked at."""
    max_s: float = 0.0
    """Seconds of timing of one network after which no pass is added; 0: no such limit."""
    max_warmup: int = 0
    """Warm-up goes on until its halves agree, up to so many runs; 0: exactly `warmup` runs."""
    warmup_s: float = 0.0
    """Seconds that the warm-up of a pass lasts at least."""
    pass_s: float = 0.0
    """Seconds that the samples of a pass last at least (of runs, beyond `runs`)."""
    max_pass_s: float = 0.0
    """Seconds after which the samples of a pass end even without `runs`; 0: no such limit."""
    max_runs: int = 0
    """Most samples of a pass where `pass_s` or `stop` ask for more than `runs`; 0: 100,000."""
    stop: str = ""
    """Rule that ends a pass between `runs` and `max_runs` (`STOPS`)."""
    overheads: int = 0
    """A sample lasts at least so many times what reading the clock costs: shorter calls are timed in blocks, whose
    mean is the sample; 0: one call is one sample."""
    anchors: bool = False
    """Whether small fixed networks are timed in between, by which a session's drift is known and removed."""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("warmup", 0, MAX_RUNS),
            ("runs", 1, MAX_RUNS),
            ("passes", 1, MAX_PASSES),
            ("spread", 0, MAX_PASSES),
            ("max_passes", 0, MAX_PASSES),
            ("max_warmup", 0, MAX_RUNS),
            ("max_runs", 0, MAX_RUNS),
            ("overheads", 0, MAX_OVERHEADS),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise PolicyError(name, f"a whole number from {least} to {most:,}", value)
        for name, limit in _NUMBERS.items():
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= limit:
                raise PolicyError(name, f"a number from 0 to {limit:,g}", value)
        if self.trim == 0.5:
            raise PolicyError("trim", "less than 0.5", self.trim)
        if not isinstance(self.anchors, bool):
            raise PolicyError("anchors", "true or false", self.anchors)
        if self.stop not in STOPS:
            raise PolicyError("stop", f"one of {', '.join(map(repr, STOPS))}", self.stop)
        for name, other in (
            ("max_passes", "passes"),
            ("max_warmup", "warmup"),
            ("max_runs", "runs"),
            ("max_pass_s", "pass_s"),
        ):
            value, least = getattr(self, name), getattr(self, other)
            if value and value < least:
                raise PolicyError(name, f"0 or at least {other} ({least})", value)

    @property
    def most_passes(self) -> int:
        return self.max_passes or self.passes

    def hash(self) -> str:
        """Identity of everything but the name, so that the same policy under two names is one policy.

        Fields at their defaults do not count: a policy keeps its hash when later versions learn new ones.
        """
        defaults = {field.name: field.default for field in fields(self)}
        values = {name: value for name, value in asdict(self).items() if value != defaults[name] and name != "name"}
        values = {name: float(value) if name in _NUMBERS else value for name, value in values.items()}
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
