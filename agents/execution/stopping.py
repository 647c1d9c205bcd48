"""When a pass is long enough: rules over samples, without a clock. They are asked between two samples.

Each answers in constant time a sample (amortised), from running sums, so that asking disturbs no timing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from latlab.agents.protocol.pass_request import MAX_CALLS, MAX_RUNS, PassRequest

__all__ = ["Rule", "Sampling", "Stdrel", "Warmup", "block_size", "halves_agree", "usual_call_ns"]

MEAN_BOUNDS = (-0.5, 0.1)
QUARTILE_BOUND = 0.05
LONGEST_HALF = 20
SHORTEST_HALF_WITH_QUARTILES = 8
STDREL_NOISE = 0.005
STDREL_STEADY = 0.05
STDREL_WINDOW = 512
STDREL_FEWEST = 64
STDREL_EVERY = 16
STDREL_FIRST = 5


class Rule(Protocol):
    """Says after each sample whether it was the last."""

    begins: bool
    """Whether there is a first one."""
    goal: str
    """How many samples are wanted, for a person."""
    fewest: int
    """Samples that are wanted at least."""

    def enough(self, sample_ns: int, elapsed_ns: int) -> bool:
        """
        Args:
            sample_ns: the new sample.
            elapsed_ns: from the beginning of the first one to the end of this, with what lies in between.
        """


class Warmup:
    """A warm-up: at least so many runs and seconds, and then on until its halves agree, if there is a bound to that.

    Agreement is looked for from the second run on, within `most` runs (pyperf gives up after 300); `warmup_s` is
    TFLite's `warmup_min_secs` and goes before both. With `most` 0 the halves are not compared.
    """

    def __init__(self, request: PassRequest) -> None:
        self._request = request
        self.begins = request.most_warmup > 0
        self.fewest = request.warmup
        open_ended = request.warmup_s or request.max_warmup > request.warmup
        self.goal = f"at least {request.warmup}" if open_ended else str(request.warmup)
        self.settled: bool | None = None
        """Whether the halves agreed in the end; None where that was not asked."""
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
    """Whether a network has warmed up: the first half of these runs is like the second.

    pyperf's rule (Stinner; `WorkerTask.test_calibrate_warmups`): (mean_1 - mean_2) / mean_2 lies in [-50 %, +10 %],
    and the quartiles Q1 and Q3 of the halves differ by at most 5 % of the second half's.

    It compares two times 20 runs behind those that it discards, and discards one more until they agree. A pass
    here is to cost a dozen runs in all, so `Warmup` compares the last half of what has run (the last two times
    20 of longer warm-ups), which grows as it goes on: the cold beginning is behind it and not in it. Quartiles
    are compared from 8 runs a half on: of fewer, two such estimates differ by 5 % even where the network is warm
    and one run in ten is disturbed. pyperf's two further looks (its first run no outlier, the median absolute
    deviations within 10 %) need as many runs, and are left out.

    Args:
        samples: in ns, in order, an even number.
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
    """The samples of a pass.

    At least `runs` of them and `pass_s` seconds in them, and until the `stop` rule is content; at most `max_runs`
    and `max_pass_s` seconds by the clock. TFLite's `benchmark_model` is runs=50, pass_s=1, max_pass_s=150
    (`min_num_times`, `min_secs` and `max_secs` of its loop); NVBench is runs=10, pass_s=0.5, max_pass_s=15,
    stop="stdrel" (min-samples, min-time, timeout).
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
    """NVBench's stopping criterion "stdrel" (`stdrel_criterion.cxx`), which is for samples without bursts.

    The noise after n samples is s_n / mean_n, s_n their sample standard deviation, from the fifth sample on. It is
    content when the noise is below 0.5 %, or has come to rest where it is: at every sixteenth sample, with more
    than 64 estimates of the noise, when the standard deviation of the last 512 of them is below 5 % of their mean.
    Variances are kept as running sums (Welford's; of the noise, a window's sums), so a sample costs the same
    whenever it comes.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0
        self._noise = math.inf
        self._window: deque[float] = deque()
        self._sum = self._sum_of_squares = 0.0

    def add(self, sample_ns: int) -> None:
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
        if self._noise < STDREL_NOISE:
            return True
        count = len(self._window)
        if count <= STDREL_FEWEST or self._count % STDREL_EVERY:
            return False
        mean = self._sum / count
        variance = max(0.0, self._sum_of_squares - count * mean * mean) / (count - 1)
        return variance < (STDREL_STEADY * mean) ** 2


def usual_call_ns(samples_ns: Sequence[int]) -> float:
    """What a call takes: the median of the later half of the samples, at least one."""
    return _quantile(sorted(samples_ns[len(samples_ns) // 2 :]), 0.5)


def block_size(call_ns: float, overhead_ns: float, overheads: int) -> int:
    """Calls between two readings of the clock, so that together they last at least `overheads` times what it costs.

    n = ceil(overheads x overhead / call). The idea of `torch.utils.benchmark`'s `Timer.blocked_autorange`, which
    multiplies n by ten until overhead / block <= 1e-4; most networks take milliseconds and need no block.

    Args:
        overhead_ns: of one measurement of nothing.
        overheads: 0 for one call in any case.
    """
    if overheads * overhead_ns <= call_ns:
        return 1
    return min(math.ceil(overheads * overhead_ns / max(call_ns, 1.0)), MAX_CALLS)


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Linear interpolation between order statistics, as pyperf's `percentile`."""
    at = (len(ordered) - 1) * share
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
