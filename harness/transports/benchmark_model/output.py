"""The parser of the output of TFLite's `benchmark_model`, with checks that the numbers agree.

The program prints no samples, only the statistics of each of its two loops (tensorflow/lite/tools/benchmark and
tensorflow/core/util/stats_calculator.h), in microseconds:

    Running benchmark for at least 2 iterations and at least 0 seconds but terminate if exceeding 60 seconds.
    count=2 first=14744 curr=13520 min=13520 max=14744 avg=14132 std=612

    Running benchmark for at least 10 iterations ...
    count=10 first=14850 curr=13315 min=13105 max=15765 avg=13520.2 std=470 p5=13105 median=13498 p95=15765

    Inference timings in us: Init: 12750, First inference: 14744, Warmup (avg): 14132, Inference (avg): 13520.2

Releases since 2024 begin lines with their severity ("INFO: ") and print percentiles; those before 2.0 end with
"Average inference timings in us: Warmup: 14132, Init: 12750, Inference: 13520.2". When all samples are equal it
prints `count=5(all same) curr=13520`, or `count=1 curr=13520`; for no sample, `count=0`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from latlab.agents.runtimes.tflite_profile_table import Row, TableError, read_table

__all__ = [
    "BenchmarkOutputError",
    "BenchmarkResult",
    "Delegation",
    "Statistics",
    "TooFewRunsError",
    "parse_operators",
    "parse_output",
]

MAX_CHARACTERS = 1 << 20
MAX_LINE = 4096
MAX_US = 1e12
"""Longest time in microseconds, eleven days."""
_ROUNDING = 1e-4
"""Relative tolerance for averages, which are printed with six digits."""

# Every pattern matches a whole line, and each repetition ends where another character begins: linear time.
_SEVERITY = re.compile(r"(?:INFO|VERBOSE|WARN|WARNING|ERROR): ?")
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,10})?(?:e[+-]?[0-9]{1,3})?"
_LOOP = re.compile(r"Running benchmark for at least ([0-9]{1,9}) iterations and at least .{1,100}")
_COUNT = re.compile(rf"count=([0-9]{{1,9}})(\(all same\))?((?: [a-z][a-z0-9]{{0,9}}={_NUMBER}){{0,10}})")
_FIELD = re.compile(rf"([a-z][a-z0-9]{{0,9}})=({_NUMBER})")
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER}), "
    rf"Warmup \(avg\): ({_NUMBER}|-?nan), Inference \(avg\): ({_NUMBER})"
)
_OLD_TIMINGS = re.compile(
    rf"Average inference timings in us: Warmup: ({_NUMBER}|-?nan), Init: ({_NUMBER}), "
    rf"(?:Inference|no stats): ({_NUMBER})"
)
_APPLIED = re.compile(
    r"Explicitly applied ([A-Za-z0-9_]{1,40}) delegate, and the model graph will be (completely|partially) executed "
    r"by the delegate(?: w/ ([0-9]{1,9}) delegate kernels)?\.?"
)
_NOT_APPLIED = re.compile(
    r"Though ([A-Za-z0-9_]{1,40}) delegate is explicitly applied, "
    r"the model graph will not be executed by the delegate\."
)
_UNSUPPORTED = re.compile(r"([A-Za-z0-9_]{1,40}) acceleration is unsupported on this platform\.")
_REPLACING = re.compile(
    r"Replacing ([0-9]{1,9}) (?:out of ([0-9]{1,9}) )?node\(s\) with delegate \(([A-Za-z0-9_]{1,40})\) node, "
    r"yielding ([0-9]{1,9}) partitions.{0,100}"
)
_NNAPI_ACCELERATORS = re.compile(r"NNAPI accelerators available: \[([^\]]{0,500})\]")
_MEMORY = re.compile(
    r"Memory footprint delta from the start of the tool \(MB\): init=\S+ overall=([0-9]{1,7}(?:\.[0-9]{1,9})?)"
)
_OPERATORS = "Operator-wise Profiling Info for Regular Benchmark Runs:"
"""The line before the table of operators; an earlier table is about the preparation of the model."""
_UNKNOWN_FLAGS = re.compile(r"Unconsumed cmdline flags: (.{1,1000})")
_DELEGATE_NODES = {
    "TfLiteXNNPackDelegate": "XNNPACK",
    "TfLiteGpuDelegateV2": "GPU",
    "TfLiteGpuDelegate": "GPU",
    "TfLiteNnapiDelegate": "NNAPI",
}


class BenchmarkOutputError(ValueError):
    """Output that is incomplete or contradicts itself: no latency can be read from it."""


class TooFewRunsError(BenchmarkOutputError):
    """A loop did fewer runs than asked for, because its time limit passed."""


@dataclass(frozen=True)
class Statistics:
    """The statistics of one loop, in microseconds. Where `count` is 0 the others are 0."""

    count: int
    first: float
    last: float
    least: float
    most: float
    mean: float
    deviation: float
    p5: float | None = None
    median: float | None = None
    p95: float | None = None


@dataclass(frozen=True)
class Delegation:
    """The part of a graph that a delegate runs."""

    delegate: str
    """The delegate's name: XNNPACK, GPU or NNAPI."""
    whole: bool
    """True if the delegate runs the whole graph."""
    operators: int | None
    """The number of operators in the graph; None where the release does not print it."""
    delegated: int | None
    """The number of operators that the delegate runs; None where the release does not print it."""
    partitions: int | None
    """The number of partitions that the graph is split into; None where the release does not print it."""


@dataclass(frozen=True)
class BenchmarkResult:
    """The result of one run of `benchmark_model`."""

    init_us: float
    """Microseconds to load and prepare the model."""
    first_us: float
    """Microseconds of the very first inference; 0 where there was no warm-up."""
    warmup: Statistics
    inference: Statistics
    delegations: tuple[Delegation, ...]
    """The delegates that run at least one operator."""
    rejected: tuple[str, ...]
    """The names of delegates that were asked for and run nothing."""
    nnapi_accelerators: tuple[str, ...]
    """The names of the accelerators that NNAPI has; empty where none are listed."""
    unknown_flags: str
    """The flags that this release does not know and ignored, separated by spaces."""
    memory_mib: float | None = None
    """Peak growth of the resident memory in MiB, loading included; None where the release does not print it."""

    def delegation(self, delegate: str) -> Delegation | None:
        """Return the part that the delegate of this name runs, or None if it runs nothing."""
        return next((one for one in self.delegations if one.delegate == delegate), None)


def parse_output(
    text: str, *, warmup: int, runs: int, timed: tuple[bool, bool] = (False, False), capped: bool = False
) -> BenchmarkResult:
    """Parse the output of a run that ended well, stdout before stderr.

    Args:
        text: the output.
        warmup: the number of warm-up runs that was asked for.
        runs: the number of timed runs that was asked for.
        timed: for warm-up and timed runs, True if there may be more of them, because they had a minimum of seconds.
        capped: there may be fewer of either, because they had a maximum of seconds.

    Raises:
        TooFewRunsError: a loop did fewer runs than it had to.
        BenchmarkOutputError: something is missing, occurs twice, is no number, or contradicts something else.
    """
    if len(text) > MAX_CHARACTERS:
        raise BenchmarkOutputError(f"it printed {len(text)} characters, more than {MAX_CHARACTERS}")
    lines = [_SEVERITY.sub("", line.strip(), count=1) for line in text.splitlines() if len(line) <= MAX_LINE]
    loops = _loops(lines)
    for (asked, done), wanted, name, more in zip(loops, (warmup, runs), ("warm-up", "timed"), timed, strict=True):
        too_few = done.count < (min(wanted, 1) if capped else wanted)
        if asked != wanted or too_few or (done.count > wanted and not more):
            kind = TooFewRunsError if asked == wanted and too_few else BenchmarkOutputError
            raise kind(f"it did {done.count} {name} runs, not the {wanted} it was told to do")
    (_, warm), (_, inference) = loops
    init_us, first_us = _timings(lines, warm, inference)
    delegations, rejected = _delegations(lines)
    accelerators = [found[1] for line in lines if (found := _NNAPI_ACCELERATORS.fullmatch(line))]
    memory = [float(found[1]) for line in lines if (found := _MEMORY.fullmatch(line))]
    unknown = [found[1] for line in lines if (found := _UNKNOWN_FLAGS.fullmatch(line))]
    return BenchmarkResult(
        init_us,
        first_us,
        warm,
        inference,
        delegations,
        rejected,
        tuple(name.strip() for name in accelerators[0].split(",") if name.strip()) if accelerators else (),
        " ".join(unknown),
        memory[-1] if memory else None,
    )


def parse_operators(text: str) -> list[Row]:
    """Return the operators in the output of a run with `--enable_op_profiling=true`, in the order in which they ran.

    Raises:
        BenchmarkOutputError: there is no table of operators, or it cannot be read.
    """
    _, found, after = text.partition(_OPERATORS)
    if not found or len(text) > MAX_CHARACTERS:
        raise BenchmarkOutputError("it has no table of operators, or is too long")
    try:
        return read_table(after)
    except TableError as error:
        raise BenchmarkOutputError(str(error)) from None


def _loops(lines: list[str]) -> list[tuple[int, Statistics]]:
    """Return, for the warm-up and the timed loop, the number of runs asked for and the statistics."""
    loops: list[tuple[int, Statistics | None]] = []
    for line in lines:
        if started := _LOOP.fullmatch(line):
            loops.append((int(started[1]), None))
        elif line.startswith("count="):
            if not loops or loops[-1][1] is not None:
                raise BenchmarkOutputError(f"statistics of no loop: {line[:200]!r}")
            loops[-1] = (loops[-1][0], _statistics(line))
    complete = [(asked, statistics) for asked, statistics in loops if statistics is not None]
    if len(loops) != 2 or len(complete) != 2:
        raise BenchmarkOutputError(f"it tells of {len(complete)} complete loops, not of warm-up and timed runs")
    return complete


def _statistics(line: str) -> Statistics:
    found = _COUNT.fullmatch(line)
    if not found:
        raise BenchmarkOutputError(f"no statistics: {line[:200]!r}")
    pairs = [(field[1], _number(field[2])) for field in _FIELD.finditer(found[3])]
    values, count, same = dict(pairs), int(found[1]), found[2] is not None
    percentiles = {name: values.pop(name) for name in ("p5", "median", "p95") if name in values}
    if len(pairs) != len(values) + len(percentiles) or len(percentiles) not in (0, 3):
        raise BenchmarkOutputError(f"statistics that are incomplete, or there twice: {line[:200]!r}")
    names = set(values)
    if not count and not names and not percentiles and not same:
        return Statistics(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if count and names == {"curr"} and (same or count == 1):
        value = values["curr"]
        result = Statistics(count, value, value, value, value, value, 0.0, **percentiles)
    elif count > 1 and names == {"first", "curr", "min", "max", "avg", "std"} and not same:
        result = Statistics(
            count, values["first"], values["curr"], values["min"], values["max"], values["avg"], values["std"],
            **percentiles,
        )  # fmt: skip
    else:
        raise BenchmarkOutputError(f"statistics that are incomplete: {line[:200]!r}")
    _check(result, line)
    return result


def _check(one: Statistics, line: str) -> None:
    slack = 1.0 + _ROUNDING
    inside = [one.first, one.last, *(value for value in (one.p5, one.median, one.p95) if value is not None)]
    # Samples and quantiles are whole numbers and printed in full; averages are rounded.
    good = (
        one.least <= one.most
        and all(one.least <= value <= one.most for value in inside)
        and one.least <= one.mean * slack
        and one.mean <= one.most * slack
        and one.deviation <= (one.most - one.least) * slack
        and (one.p5 is None or one.median is None or one.p95 is None or one.p5 <= one.median <= one.p95)
    )
    if not good:
        raise BenchmarkOutputError(f"statistics that contradict each other: {line[:200]!r}")


def _timings(lines: list[str], warm: Statistics, timed: Statistics) -> tuple[float, float]:
    """Return the microseconds of initialisation and of the first inference from the summary line.

    The summary repeats averages of both loops, which must agree with their statistics.
    """
    summaries = [line for line in lines if "inference timings in us:" in line.lower()]
    if len(summaries) != 1:
        raise BenchmarkOutputError(f"it has {len(summaries)} summaries, not one")
    (line,) = summaries
    if found := _TIMINGS.fullmatch(line):
        init, first, mean = (_number(found[group]) for group in (1, 2, 4))
        warm_mean = found[3]
    elif found := _OLD_TIMINGS.fullmatch(line):
        init, first, mean = _number(found[2]), warm.first, _number(found[3])
        warm_mean = found[1]
    else:
        raise BenchmarkOutputError(f"no summary: {line[:200]!r}")
    if first != warm.first:  # a single sample is a whole number, printed in full
        raise BenchmarkOutputError(f"its summary and its statistics differ over the first run: {first:g}")
    if not _nearly_equal(mean, timed.mean):
        raise BenchmarkOutputError(f"its summary and its statistics differ over the runs: {mean:g}, {timed.mean:g}")
    # Without warm-up runs their average is 0/0, printed as "nan".
    if warm.count and ("nan" in warm_mean or not _nearly_equal(_number(warm_mean), warm.mean)):
        raise BenchmarkOutputError(
            f"its summary and its statistics differ over the warm-up: {warm_mean}, {warm.mean:g}"
        )
    return init, first


def _nearly_equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=1e-3)


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_US:
        raise BenchmarkOutputError(f"no time: {text}")
    return value


def _delegations(lines: list[str]) -> tuple[tuple[Delegation, ...], tuple[str, ...]]:
    """Return the part that each delegate runs, and the names of those that were asked for and run nothing."""
    replaced: dict[str, Delegation] = {}
    applied: dict[str, tuple[bool, int | None]] = {}
    rejected: list[str] = []
    for line in lines:
        if found := _REPLACING.fullmatch(line):
            name, one = _replacing(found)
            replaced[name] = _sum_of_subgraphs(replaced[name], one) if name in replaced else one
        elif found := _APPLIED.fullmatch(line):
            applied[found[1].upper()] = found[2] == "completely", int(found[3]) if found[3] else None
        elif found := (_NOT_APPLIED.fullmatch(line) or _UNSUPPORTED.fullmatch(line)):
            rejected.append(found[1].upper())
    if contradiction := set(applied) & set(rejected):
        raise BenchmarkOutputError(f"two opinions on whether {contradiction.pop()} was applied")
    for name, (whole, kernels) in applied.items():
        known = replaced.get(name, Delegation(name, whole, None, None, 1 if whole else kernels))
        if known.operators is not None and known.whole and not whole:
            raise BenchmarkOutputError(f"two opinions on what {name} took")
        # The final graph counts: a delegate may have given up a part that it had taken at first.
        replaced[name] = replace(known, whole=whole)
    for name in rejected:
        if name != "XNNPACK":  # it has already been applied by default, so the explicit one finds nothing to take
            replaced.pop(name, None)
    return tuple(one for one in replaced.values() if one.delegated != 0), tuple(rejected)


def _replacing(found: re.Match[str]) -> tuple[str, Delegation]:
    taken, operators = int(found[1]), int(found[2]) if found[2] else None
    if operators is not None and taken > operators:
        raise BenchmarkOutputError(f"a delegate that takes more than there is: {found[0][:200]!r}")
    name = _DELEGATE_NODES.get(found[3], found[3])
    return name, Delegation(name, taken == operators, operators, taken, int(found[4]))


def _sum_of_subgraphs(one: Delegation, other: Delegation) -> Delegation:
    """Return the part that a delegate runs of two subgraphs together."""
    return Delegation(
        one.delegate,
        one.whole and other.whole,
        None if one.operators is None or other.operators is None else one.operators + other.operators,
        (one.delegated or 0) + (other.delegated or 0),
        (one.partitions or 0) + (other.partitions or 0),
    )
