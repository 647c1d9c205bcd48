"""The loops that take samples: calls of a network, timed by the host's clock or by an accelerator's."""

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
"""Seconds of rest for a GPU that is too hot or draws too much power, before the next try. As in NVBench."""
DISCARDS_PER_RUN = 1
"""The most discarded samples for each one that is wanted. Without a bound, a GPU whose clock is always low, or locked
low, gave NVBench empty results (its issue 231)."""
MISSED_NS = 100_000
"""More nanoseconds than the wait for the GPU costs after its last mark: so much unexplained time is missed work."""
MISSED_RUNS = 5
"""Fewest samples by which missed work is detected: of fewer, each may have been interrupted."""
READINGS = 200
"""Readings of the clock in a batch of `timer_overhead_ns`."""
BATCHES = 5
"""Batches of `timer_overhead_ns`, of which the fastest counts."""


def take_samples(invoke: Callable[[], object], rule: Rule, deadline_ns: int) -> list[int]:
    """Return durations of calls of `invoke` in ns, in order: one call between two readings of the clock.

    The garbage collector is off meanwhile: a collection would hit some samples and not others.

    Args:
        invoke: runs the network, and returns when it is done.
        rule: decides after each sample, outside the timed region, whether it was the last.
        deadline_ns: a time on `time.perf_counter_ns`; no call begins after it.

    Raises:
        AgentError: "timeout" if the deadline passes before the rule is satisfied.
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
    """Return a function that calls `invoke` `calls` times: a block, for calls that are too short for the clock."""
    if calls == 1:
        return invoke

    def block() -> None:
        for _ in range(calls):
            invoke()

    return block


def timer_overhead_ns() -> float:
    """Return the nanoseconds that reading the clock adds to a sample: from one reading to the next, with no work.

    It is the mean of 200 readings in a row, which coarse clocks need, and the least of five such means, because an
    interruption can only make one longer (the argument of Python's `timeit`).
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
    """The samples of a pass on an accelerator, in order; the lists have one length, but `sm_mhz` may be shorter."""

    samples_ns: list[int] = field(default_factory=list)
    """Nanoseconds from mark to mark on the device's clock: the work there, and its waits for the host."""
    launch_ns: list[int] = field(default_factory=list)
    """Nanoseconds on the host's clock until the call has queued its work. If they are about as long as the sample, the
    host is the bottleneck."""
    sm_mhz: list[int] = field(default_factory=list)
    """Clock of the GPU in MHz right after each sample; without those that could not be read."""
    discarded: int = 0
    """Number of samples under a throttled clock that were discarded and taken again."""
    throttled: bool = False
    """Whether samples under a throttled clock are among those kept, because too many had been discarded."""

    def report(self) -> dict[str, Any]:
        """Return the fields of a reply to `time` other than the samples. `sm_mhz` is left out unless it is complete."""
        clocks = {"sm_mhz": self.sm_mhz} if len(self.sm_mhz) == len(self.samples_ns) else {}
        return {"launch_ns": self.launch_ns, "discarded": self.discarded, "throttled": self.throttled, **clocks}


def take_device_samples(
    invoke: Callable[[], object],
    clock: DeviceClock,
    rule: Rule,
    deadline_ns: int,
    gpu: GPU | None = None,
) -> DeviceSamples:
    """Take samples of calls that only queue their work: the device's clock times them, and each is waited for.

    There are no blocks of calls here: several calls in the queue would overlap, and their common duration would be the
    device's throughput, not the network's latency.

    Args:
        invoke, rule, deadline_ns: as for `take_samples`.
        clock: the accelerator's clock.
        gpu: if given, samples under a throttled clock (`THROTTLE_SHARE`) are taken again, within bounds.

    Raises:
        AgentError: "timeout"; "crash" if the marks missed the work, because the runtime queued it elsewhere.
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
                    if not gpu.idle():  # an idle GPU has a low clock until it gets work: a rest would not help
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
