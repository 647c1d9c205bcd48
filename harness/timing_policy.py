"""Timing policies: how a network is timed. Only labels whose policies have the same hash may be pooled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields

from latlab.agents.protocol.pass_request import MAX_OVERHEADS, MAX_PASS_S, MAX_RUNS, STOPS, PassRequest

__all__ = ["PRESETS", "PolicyError", "TimingPolicy"]

MAX_PASSES = 10_000
"""Largest number of passes, and of rounds between two of them, that a policy may ask for."""
_NUMBERS = {
    "trim": 0.5,
    "precision": 1.0,
    "max_s": 86400.0,
    "warmup_s": MAX_PASS_S,
    "pass_s": MAX_PASS_S,
    "max_pass_s": MAX_PASS_S,
}
"""Fields that need not be whole numbers, with their largest values."""


class PolicyError(ValueError):
    """Raised for a policy that makes no sense; `field` is the name of the field that is wrong."""

    def __init__(self, field: str, wanted: str, value: object) -> None:
        super().__init__(f"{field} of a timing policy is {wanted}, not {value!r:.60}")
        self.field, self.wanted, self.value = field, wanted, value


@dataclass(frozen=True)
class TimingPolicy:
    """A timing policy: how often a network is run, and how its samples become one number.

    Rows whose policies differ in `hash` are never pooled. A policy that is a fixed number of passes with a fixed number
    of runs each leaves the fields from `max_passes` on at their defaults.
    """

    name: str
    warmup: int
    """Least number of runs discarded at the start of each pass."""
    runs: int
    """Least number of samples kept in each pass."""
    trim: float
    """Share of a network's samples cut at each end."""
    passes: int
    """Least number of passes of a network; between them, other networks have theirs."""
    spread: int
    """Rounds of the schedule between two passes of the same network."""
    max_passes: int = 0
    """Most passes: they are added until the interval is narrow enough (`precision`); 0: as many as `passes`."""
    precision: float = 0.0
    """Half the 95 % interval's width, as a share of the latency, at which no more passes are added; 0: no passes are
    added."""
    max_s: float = 0.0
    """Seconds of timing of one network after which no pass is added; 0: no limit."""
    max_warmup: int = 0
    """Most runs of the warm-up, which lasts until its two halves agree; 0: exactly `warmup` runs."""
    warmup_s: float = 0.0
    """Least seconds of the warm-up of a pass."""
    pass_s: float = 0.0
    """Least seconds of the samples of a pass: runs are added to `runs` until they are reached."""
    max_pass_s: float = 0.0
    """Seconds after which the samples of a pass end even if there are fewer than `runs`; 0: no limit."""
    max_runs: int = 0
    """Most samples of a pass if `pass_s` or `stop` ask for more than `runs`; 0: 100,000."""
    stop: str = ""
    """Rule that ends a pass between `runs` and `max_runs` samples (`STOPS`); "" for none."""
    overheads: int = 0
    """Least length of a sample, as a multiple of the time that reading the clock takes. Shorter calls are timed in
    blocks, whose mean is the sample; 0: every call is a sample."""
    anchors: bool = False
    """True if small fixed networks are timed in between, from which a session's drift is estimated and removed."""

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
        """Most passes of a network."""
        return self.max_passes or self.passes

    def pass_request(self) -> PassRequest:
        """Return what a device is asked for one pass of this policy; the device never sees the policy itself."""
        return PassRequest(**{field.name: getattr(self, field.name) for field in fields(PassRequest)})

    def hash(self) -> str:
        """Return 16 hexadecimal digits that identify everything but the name: one policy under two names has one hash.

        Fields at their defaults do not count, so that a policy keeps its hash when later versions add fields.
        """
        defaults = {field.name: field.default for field in fields(self)}
        values = {name: value for name, value in asdict(self).items() if value != defaults[name] and name != "name"}
        values = {name: float(value) if name in _NUMBERS else value for name, value in values.items()}
        text = json.dumps({"timing": 1, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


PRESETS = {
    # Disturbances on a shared machine come in bursts: several short passes meet several bursts, one long run meets one.
    # Three passes are enough on a quiet machine; a fourth and fifth are added if the interval of the label says that
    # they were not. A quarter is trimmed at each end, because on a busy machine more than a tenth of the runs are
    # preempted (100 networks while other people's builds ran: test-retest Spearman .936 with a tenth, .982 with a
    # quarter). The first run of a pass takes a fifth longer than the rest (caches), the second 3 %. So two runs are
    # discarded, and up to two more if they differ by more than 10 %, as in most passes. Nine runs are kept, so that
    # five passes, with all that and with anchors, cost no more than `help`. No pass is added after a minute of timing:
    # networks of up to a second still get all five, and slower ones average over bursts within each run, so that
    # their three passes are worth more and a fourth costs more.
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
    # The rank quality of `help` for less than half of its runs (300 networks of .9 ms: test-retest Spearman .9993 and
    # .9993 on a quiet machine, .9990 and .9990 next to a busy process, for .44 of the device-seconds). Many passes of
    # few runs say more than few passes of many, as long as the discarded runs are fewer than the kept ones. Exactly
    # one run is discarded, so that the cost of a pass is known; the second run's 3 % are trimmed away.
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
    # For labels that serve as the truth in comparisons: twice the passes of `default`, for half the interval's width.
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
    # What TFLite's benchmark_model does by default (its num_runs, min_secs, max_secs, warmup_runs,
    # warmup_min_secs): a run and half a second discarded; at least 50 runs and a second, at most 150 s; their mean.
    "tflite": TimingPolicy(
        "tflite", warmup=1, runs=50, trim=0.0, passes=1, spread=0, warmup_s=0.5, pass_s=1.0, max_pass_s=150.0
    ),
    # What NVBench does: one run discarded; at least ten and half a second, until its noise is below .5 % or has come
    # to rest (`agents.execution.stopping.Stdrel`), at most 15 s; their mean.
    "nvbench": TimingPolicy(
        "nvbench", warmup=1, runs=10, trim=0.0, passes=1, spread=0, pass_s=0.5, max_pass_s=15.0, stop="stdrel"
    ),
}
