"""Rules that decide when a warm-up or a pass is long enough. They see durations of samples, and read no clock.

The sampling loop asks a rule after each sample. It answers in constant amortised time, from running sums, so that it
disturbs no timing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from latlab.agents.protocol.pass_request import MAX_CALLS, MAX_RUNS, PassRequest

__all__ = ["Rule", "Sampling", "Stdrel", "Warmup", "block_size", "halves_agree", "usual_call_ns"]

# Of pyperf's rule for a warm-up (`halves_agree`).
MEAN_BOUNDS = (-0.5, 0.1)
QUARTILE_BOUND = 0.05
LONGEST_HALF = 20
SHORTEST_HALF_WITH_QUARTILES = 8
# Of NVBench's stopping criterion (`Stdrel`).
STDREL_NOISE = 0.005
STDREL_STEADY = 0.05
STDREL_WINDOW = 512
STDREL_FEWEST = 64
STDREL_EVERY = 16
STDREL_FIRST = 5


class Rule(Protocol):
    """A rule that decides after each sample whether it was the last."""

    begins: bool
    """Whether any sample is to be taken at all."""
    goal: str
    """The number of samples that are wanted, in words, for messages."""
    fewest: int
    """The least number of samples that are wanted."""

    def enough(self, sample_ns: int, elapsed_ns: int) -> bool:
        """Take in a sample, and return whether it was the last that is needed.

        Args:
            sample_ns: duration of the new sample.
            elapsed_ns: time from the start of the first sample to the end of this one, pauses included.
        """


class Warmup:
    """The rule of a warm-up: at least `warmup` runs and `warmup_s` seconds, then on until its halves agree.

    Halves are compared from the second run on, up to `max_warmup` runs (pyperf gives up after 300). With `max_warmup`
    0 they are not compared. `warmup_s` is TFLite's `warmup_min_secs`; it must pass whatever the runs say.
    """

    def __init__(self, request: PassRequest) -> None:
        self._request = request
        self.begins = request.most_warmup > 0
        self.fewest = request.warmup
        open_ended = request.warmup_s or request.max_warmup > request.warmup
        self.goal = f"at least {request.warmup}" if open_ended else str(request.warmup)
        self.settled: bool | None = None
        """Whether the halves agreed in the end; None while they were not compared."""
        self._recent: deque[int] = deque(maxlen=2 * LONGEST_HALF)
        self._count = 0

    def enough(self, sample_ns: int, elapsed_ns: int) -> bool:
        request = self._request
        self._count += 1
        self._recent.append(sample_ns)
        if self._count >= MAX_RUNS:
            return True
        if self._count < request.warmup or elapsed_ns < request.warmup_s * 1e9:
            return False
        if not request.max_warmup:
            return True
        half = min(max(self._count // 4, 1), LONGEST_HALF)
        last = list(self._recent)[-2 * half :]
        self.settled = len(last) == 2 * half and halves_agree(last)
        return self.settled or self._count >= request.max_warmup


def halves_agree(samples: Sequence[int]) -> bool:
    """Return whether a network has warmed up: the first half of these runs resembles the second.

    This is pyperf's rule (Stinner; `WorkerTask.test_calibrate_warmups`): (mean_1 - mean_2) / mean_2 lies in
    [-50 %, +10 %], and the quartiles Q1 and Q3 of the halves differ by at most 5 % of the second half's.

    pyperf compares two times 20 runs after those that it discards, and discards one more until they agree. A pass here
    should cost a dozen runs in all. So `Warmup` compares the last half of the runs so far (in longer warm-ups, the last
    two times 20), and the cold beginning drops out as the warm-up goes on. Quartiles are compared from 8 runs in a half
    on: with fewer, two estimates differ by 5 % even if the network is warm and only one run in ten is disturbed.
    pyperf's two further checks (its first run is no outlier, the median absolute deviations agree within 10 %) need as
    many runs, and are left out.

    Args:
        samples: durations in ns, in order; an even number of them.
    """
    half = len(samples) // 2
    first, second = sorted(samples[:half]), sorted(samples[half:])
    mean_1, mean_2 = sum(first), sum(second)
    if not MEAN_BOUNDS[0] * mean_2 <= mean_1 - mean_2 <= MEAN_BOUNDS[1] * mean_2:
        return False
    if half < SHORTEST_HALF_WITH_QUARTILES:
        return True
    for share in (0.25, 0.75):
        one, other = _quantile(first, share), _quantile(second, share)
        if abs(one - other) > QUARTILE_BOUND * other:
            return False
    return True


class Sampling:
    """The rule for the samples of a pass.

    A pass has at least `runs` samples, which last at least `pass_s` seconds in sum, and goes on until the `stop` rule
    is satisfied. It ends after `max_runs` samples, or `max_pass_s` seconds by the clock. TFLite's `benchmark_model` is
    runs=50, pass_s=1, max_pass_s=150 (`min_num_times`, `min_secs` and `max_secs` of its loop). NVBench is runs=10,
    pass_s=0.5, max_pass_s=15, stop="stdrel" (min-samples, min-time, timeout).
    """

    def __init__(self, request: PassRequest) -> None:
        self._request = request
        self._most = request.most_runs
        self.begins = self._most > 0
        self.fewest = request.runs
        self.goal = str(request.runs) if self._most == request.runs else f"at least {request.runs}"
        self._stdrel = Stdrel() if request.stop == "stdrel" else None
        self._count = self._total_ns = 0

    def enough(self, sample_ns: int, elapsed_ns: int) -> bool:
        request = self._request
        self._count += 1
        self._total_ns += sample_ns
        if self._stdrel is not None:
            self._stdrel.add(sample_ns)
        if self._count >= self._most or (request.max_pass_s and elapsed_ns >= request.max_pass_s * 1e9):
            return True
        if self._count < request.runs or self._total_ns < request.pass_s * 1e9:
            return False
        return self._stdrel is None or self._stdrel.content


class Stdrel:
    """NVBench's stopping criterion "stdrel" (`stdrel_criterion.cxx`). It suits samples without bursts.

    From the fifth sample on, the noise after n samples is s_n / mean_n, where s_n is their sample standard deviation.
    The criterion holds when the noise is below 0.5 %, or when it no longer changes. It no longer changes when the
    standard deviation of its last 512 estimates is below 5 % of their mean; this is checked at every sixteenth sample,
    once there are more than 64 estimates. Variances are running sums (Welford's for the samples, a window's sums for
    the noise), so every sample costs the same.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0
        self._noise = math.inf
        self._window: deque[float] = deque()
        self._sum = self._sum_of_squares = 0.0

    def add(self, sample_ns: int) -> None:
        """Take in a sample, in ns."""
        self._count += 1
        difference = sample_ns - self._mean
        self._mean += difference / self._count
        self._squares += difference * (sample_ns - self._mean)
        if self._count < STDREL_FIRST or self._mean <= 0:
            return
        self._noise = noise = math.sqrt(self._squares / (self._count - 1)) / self._mean
        self._window.append(noise)
        self._sum += noise
        self._sum_of_squares += noise * noise
        if len(self._window) > STDREL_WINDOW:
            oldest = self._window.popleft()
            self._sum -= oldest
            self._sum_of_squares -= oldest * oldest

    @property
    def content(self) -> bool:
        """True if the criterion holds, so that no further sample is needed."""
        if self._noise < STDREL_NOISE:
            return True
        count = len(self._window)
        if count <= STDREL_FEWEST or self._count % STDREL_EVERY:
            return False
        mean = self._sum / count
        variance = max(0.0, self._sum_of_squares - count * mean * mean) / (count - 1)
        return variance < (STDREL_STEADY * mean) ** 2


def usual_call_ns(samples_ns: Sequence[int]) -> float:
    """Return the usual duration of a call in ns: the median of the later half of the samples. There must be one."""
    return _quantile(sorted(samples_ns[len(samples_ns) // 2 :]), 0.5)


def block_size(call_ns: float, overhead_ns: float, overheads: int) -> int:
    """Return how many calls one sample needs to last at least `overheads` times as long as reading the clock.

    n = ceil(overheads x overhead / call), at most `MAX_CALLS`. The idea is that of `torch.utils.benchmark`'s
    `Timer.blocked_autorange`, which multiplies n by ten until overhead / block <= 1e-4. Most networks take milliseconds
    and need no block.

    Args:
        call_ns: usual duration of a call.
        overhead_ns: what reading the clock adds to a sample (`timer_overhead_ns`).
        overheads: the wanted ratio; 0 means one call in any case.
    """
    if overheads * overhead_ns <= call_ns:
        return 1
    return min(math.ceil(overheads * overhead_ns / max(call_ns, 1.0)), MAX_CALLS)


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Return a quantile by linear interpolation between order statistics, like pyperf's `percentile`."""
    at = (len(ordered) - 1) * share
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
