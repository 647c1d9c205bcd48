"""Profiling on the device: inferences under the runtime's profiler, and what each operator took of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from latlab.agents.execution.operator_report import report
from latlab.agents.execution.sampling import take_samples
from latlab.agents.execution.stopping import Sampling
from latlab.agents.protocol.errors import AgentError
from latlab.agents.protocol.pass_request import PassRequest
from latlab.agents.protocol.profile_request import ProfileRequest

if TYPE_CHECKING:
    from latlab.agents.runtimes import Session

__all__ = ["profile"]


def profile(session: Session, request: ProfileRequest, deadline_ns: int) -> dict[str, Any]:
    """Run a network under its runtime's profiler, and return the fields of a reply to `profile`.

    Args:
        session: the network, with its inputs set.
        request: how many inferences.
        deadline_ns: a time on `time.perf_counter_ns`; no inference begins after it.

    Returns:
        What `report` returns.

    Raises:
        AgentError: "bad_request" if the runtime has no profiler; "timeout"; "crash" if the profiler recorded nothing.
    """
    try:
        with session.profiler() as profiler:
            take_samples(profiler.invoke, Sampling(PassRequest(warmup=0, runs=request.warmup)), deadline_ns)
            profiler.start()
            samples_ns: list[int] = []
            for _ in range(request.runs):
                one = Sampling(PassRequest(warmup=0, runs=1))
                samples_ns += take_samples(profiler.invoke, one, deadline_ns)
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
    return report(operators, samples_ns, resolution_ns)
