"""The report of a profile: what each operator took of an inference, in the fields of a reply."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from latlab.agents.protocol.profile_request import MAX_FUSED, MAX_OPERATORS, MAX_WORD

if TYPE_CHECKING:
    from latlab.agents.runtimes.profiler import Operator

__all__ = ["report", "typical_runs"]

TRIM = 0.1
"""Share of the inferences that is left out at each end, the fastest and the slowest: one interruption of milliseconds
would else look like a slow operator. Labels are trimmed means, too."""


def typical_runs(samples_ns: Sequence[int]) -> list[int]:
    """Return the numbers of the inferences without the fastest and the slowest (`TRIM` of them at each end)."""
    ordered = sorted(range(len(samples_ns)), key=lambda number: samples_ns[number])
    cut = int(TRIM * len(ordered))
    return sorted(ordered[cut : len(ordered) - cut])


def report(operators: Sequence[Operator], samples_ns: Sequence[int], resolution_ns: int) -> dict[str, Any]:
    """Return the fields of a reply to `profile`.

    Args:
        operators: in the order in which they ran.
        samples_ns: the duration of each inference under the profiler, on the clock around the call.
        resolution_ns: the unit in which the profiler counts.

    Returns:
        `runs`, the number of inferences; `samples_ns`; `kept`, the numbers of those over which means are taken;
        `operators`, of which each has `name`, `kind`, `provider`, `fused`, `mean_ns` over the inferences of `kept`, and
        `median_ns` over all, both without the profiler's own work; `left_out` for operators beyond `MAX_OPERATORS`;
        `overhead_ns`: the profiler's own work in the operators of one inference; `resolution_ns`.
    """
    kept = typical_runs(samples_ns)
    means = [max(0.0, fmean(one.run_ns[number] for number in kept) - one.overhead_ns) for one in operators]
    longest = sorted(range(len(means)), key=lambda place: -means[place])
    shown, rest = sorted(longest[:MAX_OPERATORS]), longest[MAX_OPERATORS:]
    return {
        "runs": len(samples_ns),
        "samples_ns": list(samples_ns),
        "kept": kept,
        "resolution_ns": resolution_ns,
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
