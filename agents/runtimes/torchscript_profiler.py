"""Torch's own profiler over the calls of a module.

An operator of the graph is a direct child of the module's event, and lasts as long as all that it calls
(`aten::_convolution` calls `aten::mkldnn_convolution`, say). Each of these events costs the profiler's own time, which
is measured and reported. On a GPU an operator's time is that of the kernels that it launched.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from latlab.agents.runtimes.profiler import Operator, Profiler

__all__ = ["TorchProfiler"]

_MODULE = "forward"
"""The name of the event of a module's call."""
_CALLS, _ROUNDS = 200, 5
"""Calls, and rounds of so many, that measure what an event costs; the fastest round counts."""


class TorchProfiler(Profiler):
    """Torch's profiler.

    Args:
        torch: the package.
        call: runs one inference. It is the call of the session itself: the profiler leaves nothing behind in it.
        provider: `cpu` or `cuda`.
    """

    resolution_ns = 1

    def __init__(self, torch: Any, call: Callable[[], object], provider: str) -> None:
        self._torch, self._call, self._provider = torch, call, provider
        self._shapes: list[str] = []
        self._event_ns = 0.0
        self._profile = self._profiler(shapes=False)

    def start(self) -> None:
        with self._profiler(shapes=True) as described:  # apart from the runs that count: shapes cost time
            self.invoke()
        (call, *_) = _calls(described)
        self._shapes = [_shapes(child.input_shapes) for child in call.cpu_children]
        self._event_ns = self._event_cost_ns()
        self._profile.start()

    def invoke(self) -> object:
        result = self._call()
        if self._provider == "cuda":
            self._torch.cuda.synchronize()
        return result

    def collect(self) -> None:
        """Do nothing: torch keeps all events until the end."""

    def operators(self) -> list[Operator]:
        self._profile.stop()
        calls = _calls(self._profile)
        times: dict[tuple[int, str], list[int]] = {}
        events: dict[tuple[int, str], int] = {}
        for number, call in enumerate(calls):
            for place, child in enumerate(call.cpu_children):
                key = place, child.name
                us = child.device_time_total if self._provider == "cuda" else child.cpu_time_total
                times.setdefault(key, [0] * len(calls))[number] = round(1000 * us)
                events[key] = _nested(child)
        return [
            Operator(
                name=self._shapes[place] if place < len(self._shapes) else "",
                kind=kind.replace("aten::", "", 1),
                provider=self._provider,
                run_ns=tuple(ns),
                overhead_ns=round(self._event_ns * events[place, kind]) if self._provider == "cpu" else 0,
            )
            for (place, kind), ns in times.items()
        ]

    def _profiler(self, shapes: bool) -> Any:
        """Return a profiler that is not started."""
        kinds = self._torch.profiler.ProfilerActivity
        activities = [kinds.CPU] if self._provider == "cpu" else [kinds.CPU, kinds.CUDA]
        # acc_events: else torch warns that events of an earlier cycle are lost, of which there is none.
        return self._torch.profiler.profile(activities=activities, record_shapes=shapes, acc_events=True)

    def _event_cost_ns(self) -> float:
        """Return the nanoseconds by which an event lengthens the event around it.

        It is measured with `relu` of one number, which makes two events, with the profiler and without.
        """
        number = self._torch.zeros(1)
        plain_ns = _fastest_ns(self._torch, number)
        with self._profiler(shapes=False):
            profiled_ns = _fastest_ns(self._torch, number)
        return max(0.0, (profiled_ns - plain_ns) / (2 * _CALLS))


def _fastest_ns(torch: Any, number: Any) -> int:
    """Return the nanoseconds of the fastest of some rounds of calls."""
    rounds = []
    for _ in range(_ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(_CALLS):
            torch.relu(number)
        rounds.append(time.perf_counter_ns() - began)
    return min(rounds)


def _calls(profile: Any) -> list[Any]:
    """Return the events of the module's calls, in order."""
    return [event for event in profile.events() if event.cpu_parent is None and event.name == _MODULE]


def _nested(event: Any) -> int:
    """Return the number of events inside an event, at any depth."""
    return sum(1 + _nested(child) for child in event.cpu_children)


def _shapes(shapes: Any) -> str:
    """Return the shapes of an operator's inputs as text, e.g. `1x3x32x32, 16x3x3x3`, without those that have none."""
    return ", ".join("x".join(str(side) for side in shape) for shape in shapes or () if shape)
