"""Profiling on the device: inferences under the runtime's profiler, and what each operator took of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from latlab.agents.execution.sampling import take_samples
from latlab.agents.execution.stopping import Sampling
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.pass_request import PassRequest
from latlab.agents.protocol.profile_request import MAX_FUSED, MAX_OPERATORS, MAX_WORD, ProfileRequest

if TYPE_CHECKING:
    from latlab.agents.runtimes import Session
    from latlab.agents.runtimes.profiler import Operator

__all__ = ["profile", "typical_runs"]

TRIM = 0.1
"""Share of the inferences that is left out at each end, the fastest and the slowest: one interruption of milliseconds
would else look like a slow operator. Labels are trimmed means, too."""


def profile(
    session: Session, request: ProfileRequest, deadline_ns: int, between: Callable[[], object]
) -> dict[str, Any]:
    """Run a network under its runtime's profiler, and return the fields of a reply to `profile`.

    Args:
        session: the network, with its inputs set.
        request: how many inferences.
        deadline_ns: a time on `time.perf_counter_ns`; no inference begins after it.
        between: called before each inference; it may end the process.

    Returns:
        `samples_ns`, the duration of each inference under the profiler on the host's clock; `kept`, the numbers of
        those over which means are taken; `operators`, of which each has `name`, `kind`, `provider`, `fused`, `mean_ns`
        over the inferences of `kept`, and `median_ns` over all, both without the profiler's own work; `left_out` for
        operators beyond `MAX_OPERATORS`; `overhead_ns`: the profiler's own work in the operators of one inference;
        `resolution_ns`.

    Raises:
        AgentError: "bad_request" if the runtime has no profiler; "timeout"; "crash" if the profiler recorded nothing.
    """
    try:
        with session.profiler() as profiler:
            take_samples(profiler.invoke, Sampling(PassRequest(warmup=0, runs=request.warmup)), deadline_ns, between)
            profiler.start()
            samples_ns: list[int] = []
            for _ in range(request.runs):
                one = Sampling(PassRequest(warmup=0, runs=1))
                samples_ns += take_samples(profiler.invoke, one, deadline_ns, between)
                profiler.collect()
            operators = profiler.operators()
            resolution_ns = profiler.resolution_ns
    except AgentError:
        raise
    except Exception as error:
        raise session.explain(error) from error
    if not operators or any(len(one.run_ns) != request.runs for one in operators):
        found = sorted({len(one.run_ns) for one in operators})
        raise AgentError(
            "crash", f"the profiler of {session.runtime} recorded {found or 'no'} inferences, not {request.runs}"
        )
    kept = typical_runs(samples_ns)
    return {"samples_ns": samples_ns, "kept": kept, "resolution_ns": resolution_ns, **_reported(operators, kept)}


def typical_runs(samples_ns: Sequence[int]) -> list[int]:
    """Return the numbers of the inferences without the fastest and the slowest (`TRIM` of them at each end)."""
    ordered = sorted(range(len(samples_ns)), key=lambda number: samples_ns[number])
    cut = int(TRIM * len(ordered))
    return sorted(ordered[cut : len(ordered) - cut])


def _reported(operators: Sequence[Operator], kept: Sequence[int]) -> dict[str, Any]:
    """Return the operators as fields of a reply: in their order, the longest `MAX_OPERATORS` of them."""
    means = [max(0.0, fmean(one.run_ns[number] for number in kept) - one.overhead_ns) for one in operators]
    longest = sorted(range(len(means)), key=lambda place: -means[place])
    shown, rest = sorted(longest[:MAX_OPERATORS]), longest[MAX_OPERATORS:]
    return {
        "operators": [
            {
                "name": operators[place].name[:MAX_WORD],
                "kind": operators[place].kind[:MAX_WORD],
                "provider": operators[place].provider[:MAX_WORD],
                "mean_ns": round(means[place]),
                "median_ns": max(0, round(median(operators[place].run_ns)) - operators[place].overhead_ns),
                "fused": [name[:MAX_WORD] for name in operators[place].fused[:MAX_FUSED]],
            }
            for place in shown
        ],
        "left_out": {"operators": len(rest), "mean_ns": round(sum(means[place] for place in rest))},
        "overhead_ns": sum(one.overhead_ns for one in operators),
    }
