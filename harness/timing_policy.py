"""How a network is timed: the policy, one frozen value with a hash that decides which labels may be pooled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from latlab.agents.protocol.pass_request import MAX_OVERHEADS, MAX_PASS_S, MAX_RUNS, STOPS, PassRequest

__all__ = ["PRESETS", "PolicyError", "TimingPolicy"]

MAX_PASSES = 10_000
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

    def pass_request(self) -> PassRequest:
        """Return what a device is asked for one pass of this policy; the device never sees the policy itself."""
        return PassRequest(**{field.name: getattr(self, field.name) for field in fields(PassRequest)})

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
    # Disturbances on a shared machine come in bursts: short runs in several sittings meet several bursts, one long
    # sitting meets one. Three sittings are enough on a quiet machine, and up to five are added where the interval of
    # the label says that they were not. A quarter is trimmed at each end, because on a busy machine more than a tenth
    # of the runs are preempted (100 networks beside other people's builds: test-retest Spearman .936 with a tenth,
    # .982 with a quarter). The first run of a pass takes a fifth longer than the rest (caches), the second 3 %: two
    # runs are discarded, or up to two more where they differ by more than 10 %, as in most passes. Nine runs are kept,
    # so that with all that and with anchors five passes cost no more than `help`. No pass is added
    # after a minute of timing: that leaves all five to networks of up to a second, and slower ones average over
    # bursts within each run, so that three passes of them are worth more and a fourth costs more.
    "default": TimingPolicy(
        "default",
        warmup=2,
        runs=9,
        trim=0.25,
        passes=3,
        spread=12,
        max_passes=5,
        precision=0.01,
        max_s=60,
        max_warmup=4,
        overheads=100,
        anchors=True,
    ),
    # Less than half of the runs of `help`, for its rank quality (300 networks of .9 ms: test-retest Spearman .9993 and
    # .9993 on a quiet machine, .9990 and .9990 beside a neighbour, for .44 of the device-seconds): many passes of few
    # runs say more than few of many, down to where the discarded run is as much as what is kept. One run is discarded
    # and no more, so that what it costs is known; the second's 3 % are trimmed away.
    "quick": TimingPolicy(
        "quick",
        warmup=1,
        runs=4,
        trim=0.25,
        passes=4,
        spread=12,
        max_passes=5,
        precision=0.01,
        max_s=30,
        overheads=100,
        anchors=True,
    ),
    # For labels that others are judged by: twice the passes of `default`, for half the width.
    "thorough": TimingPolicy(
        "thorough",
        warmup=2,
        runs=9,
        trim=0.25,
        passes=5,
        spread=12,
        max_passes=10,
        precision=0.005,
        max_s=300,
        max_warmup=4,
        overheads=100,
        anchors=True,
    ),
    # What HELP does (Lee et al. 2021): 10 runs discarded, 50 measured, top and bottom 10 % dropped, mean.
    "help": TimingPolicy("help", warmup=10, runs=50, trim=0.1, passes=1, spread=0),
    # What TFLite's benchmark_model does unless it is told otherwise (its num_runs, min_secs, max_secs, warmup_runs,
    # warmup_min_secs): a run and half a second discarded; at least 50 runs and a second, at most 150 s; their mean.
    "tflite": TimingPolicy(
        "tflite", warmup=1, runs=50, trim=0.0, passes=1, spread=0, warmup_s=0.5, pass_s=1.0, max_pass_s=150.0
    ),
    # What NVBench does: one run discarded; at least ten and half a second, until its noise is below .5 % or has come
    # to rest (`rules.Stdrel`), at most 15 s; their mean.
    "nvbench": TimingPolicy(
        "nvbench", warmup=1, runs=10, trim=0.0, passes=1, spread=0, pass_s=0.5, max_pass_s=15.0, stop="stdrel"
    ),
}
