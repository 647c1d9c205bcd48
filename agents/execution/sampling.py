"""The loops that take samples."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.pass_request import THROTTLE_SHARE

if TYPE_CHECKING:
    from latlab.agents.execution.stopping import Rule
    from latlab.agents.runtimes import DeviceClock
    from latlab.agents.system.nvml import GPU

__all__ = ["DeviceSamples", "repeated", "take_device_samples", "take_samples", "timer_overhead_ns"]

THROTTLE_PAUSE_S = 0.05
"""For a GPU that is too hot or draws too much, before it is tried again. As in NVBench."""
DISCARDS_PER_RUN = 1
"""At most that many samples are discarded for each that is wanted: without a bound, a GPU whose clock is always
low, or locked low, gave NVBench empty results (its issue 231)."""
MISSED_NS = 100_000
"""More than waiting for the GPU costs after its last mark."""
MISSED_RUNS = 5
"""Of fewer runs, each may have been interrupted."""
READINGS = 200
BATCHES = 5


def take_samples(
    invoke: Callable[[], object], rule: Rule, deadline_ns: int, between: Callable[[], object] | None = None
) -> list[int]:
    """Durations of calls of `invoke` in ns, in order: one call between two readings of the clock.

    The garbage collector is off meanwhile: a collection would hit some samples and not others.

    Args:
        rule: asked after each sample, outside what is timed, whether it was the last.
        deadline_ns: on `time.perf_counter_ns`; no call begins after it.
        between: called before each sample, outside what is timed; may raise to give up.

    Raises:
        AgentError: "timeout".
    """
    clock = time.perf_counter_ns
    samples: list[int] = []
    append, enough = samples.append, rule.enough
    over = not rule.begins
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = end = clock()
        while not over:
            if between is not None:
                between()
            if end > deadline_ns:
                raise _late(len(samples), rule)
            start = clock()
            invoke()
            end = clock()
            append(end - start)
            over = enough(end - start, end - began)
    finally:
        if collecting:
            gc.enable()
    return samples


def repeated(invoke: Callable[[], object], calls: int) -> Callable[[], object]:
    """What runs a network `calls` times: a block, timed as one sample where a call is too short for the clock."""
    if calls == 1:
        return invoke

    def block() -> None:
        for _ in range(calls):
            invoke()

    return block


def timer_overhead_ns() -> float:
    """What a reading of the clock adds to a sample: the time between two readings with nothing in between.

    The mean of 200 in a row, which clocks that tick coarsely need, and the least of five such means, because
    whatever interrupts one makes it longer (as Python's `timeit` argues).
    """
    clock = time.perf_counter_ns
    means = []
    for _ in range(BATCHES):
        began = clock()
        for _ in range(READINGS):
            end = clock()
        means.append((end - began) / READINGS)
    return min(means)


@dataclass
class DeviceSamples:
    """What a pass on an accelerator yields. The lists are in order, and of one length."""

    samples_ns: list[int] = field(default_factory=list)
    """From mark to mark on the device's clock: what the network takes there, and waits for the host there."""
    launch_ns: list[int] = field(default_factory=list)
    """On the host's clock, until the call has queued its work. About as long as the sample: the host is the brake."""
    sm_mhz: list[int] = field(default_factory=list)
    """Clock of the GPU right after each sample; empty where it is not known."""
    discarded: int = 0
    """Samples under a throttled clock that were taken again."""
    throttled: bool = False
    """Whether samples under a throttled clock are among those kept, because too many had been discarded."""

    def report(self) -> dict[str, Any]:
        """What a reply says besides the samples."""
        clocks = {"sm_mhz": self.sm_mhz} if len(self.sm_mhz) == len(self.samples_ns) else {}
        return {"launch_ns": self.launch_ns, "discarded": self.discarded, "throttled": self.throttled, **clocks}


def take_device_samples(
    invoke: Callable[[], object],
    clock: DeviceClock,
    rule: Rule,
    deadline_ns: int,
    between: Callable[[], object] | None = None,
    gpu: GPU | None = None,
) -> DeviceSamples:
    """As `take_samples`, of calls that only queue their work: the device's clock times them, waited for once each.

    There are no blocks of calls here: several in the queue at once would overlap, and what they take together is the
    device's throughput and no network's latency.

    Args:
        gpu: where given, samples under a throttled clock are taken again, within bounds.

    Raises:
        AgentError: "timeout"; "crash" when the marks missed the work, because the runtime queued it elsewhere.
    """
    now = time.perf_counter_ns
    taken = DeviceSamples()
    least_waited = 0
    slow_mhz = THROTTLE_SHARE * (gpu.default_sm_mhz or 0) if gpu else 0
    collecting = gc.isenabled()
    gc.disable()
    try:
        clock.wait()
        began = end = now()
        over = not rule.begins
        while not over:
            if between is not None:
                between()
            if end > deadline_ns:
                raise _late(len(taken.samples_ns), rule)
            clock.start()
            start = now()
            invoke()
            launched = now()
            clock.stop()
            clock.wait()
            end = now()
            sample = clock.elapsed_ns()
            mhz = gpu.sm_mhz() if gpu else None
            if gpu and mhz is not None and mhz < slow_mhz:
                if taken.discarded < DISCARDS_PER_RUN * max(rule.fewest, len(taken.samples_ns)):
                    taken.discarded += 1
                    if not gpu.idle():  # what has slept needs work, not rest
                        time.sleep(THROTTLE_PAUSE_S)
                        end = now()
                    continue
                taken.throttled = True
            missed = end - start - 2 * sample
            least_waited = min(least_waited, missed) if taken.samples_ns else missed
            taken.samples_ns.append(sample)
            taken.launch_ns.append(launched - start)
            if mhz is not None:
                taken.sm_mhz.append(mhz)
            over = rule.enough(sample, end - began)
    finally:
        if collecting:
            gc.enable()
    if len(taken.samples_ns) >= MISSED_RUNS and least_waited > MISSED_NS:
        raise AgentError(
            "crash",
            f"the GPU's clock saw at most half of every inference ({max(taken.samples_ns)} ns at the most): "
            "the runtime does not use the stream that is timed",
        )
    return taken


def _late(taken: int, rule: Rule) -> AgentError:
    return AgentError("timeout", f"the deadline passed after {taken} of {rule.goal} runs")
