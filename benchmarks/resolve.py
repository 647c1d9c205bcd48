"""Rank-directed replication against the same device-seconds spread over all networks.

    python benchmarks/resolve.py [--networks 200] [--seeds 20] [--ties 1] [--trace STORE ...]

On simulated devices, whose true order is known, and in stores whose rows have many passes (for each seed half of the
passes are dealt out as they are asked for, the others' label is the truth). Every network is measured as usual. Then
`harness.resolve` spends up to a share of the seconds that this took on the ten fastest networks, or on a limit at the
median; and a twin of it spends the same seconds on further passes for everyone, in random order. What is counted:
comparisons of the ten with each network that truly is within 5 % of them, and networks within 5 % of the limit.
"uniform" is what it would take to settle as many comparisons by the same passes for all, by the labels' own errors.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from common import RESULTS, save, show

from latlab.harness.statistics.estimators import needs_pass, summarise, trimmed_mean
from latlab.harness.statistics.ranking import RankedNetwork, Resolve, compare, next_round, uniform_s
from latlab.harness.store.store import Store
from latlab.harness.timing_policy import PRESETS, TimingPolicy
from latlab.harness.transports.simulated.config import SimulatedDevice
from latlab.search_spaces import get

POLICY = PRESETS["default"]
TOP = 10
NEAR = 0.05
DEVICES: Mapping[str, Mapping[str, Any]] = {
    "phone": {"kind": "phone", "heating": None},
    "server": {"kind": "server"},
    # A shared machine, as MEASUREMENT figures of such have it: deviations of a tenth, autocorrelation, bursts.
    "busy": {
        "kind": "server",
        "noise": {"sigma": 0.1, "autocorrelation": 0.5, "bursts": {"per_minute": 10, "seconds": 0.5, "factor": 1.6}},
    },
}
"""Noises. None heats up, and without drift: those are corrected elsewhere."""
SHARES = (0.25, 0.5, 1.0)
LONG_RUN = 40_000
"""Samples from which a process's own trimmed mean is known well enough."""


class Source(Protocol):
    """Where passes come from: nanoseconds and seconds of one pass of a network; what is true, in ms."""

    truth_ms: list[float]
    most: int

    def one(self, network: int) -> tuple[list[int], float]: ...


class Simulated:
    """Networks of a space on a simulated device."""

    most = 50

    def __init__(self, kind: str, space_name: str, networks: int, policy: TimingPolicy, seed: int) -> None:
        config = SimulatedDevice.model_validate({**DEVICES[kind], "seed": seed})
        device = config.device("bench")
        self._process, self._policy = device.process, policy
        space = get(space_name)
        sampled = (device.true_latency_ms(f"{space.name}/{arch.text}") for arch in space.sample(2 * networks, seed))
        self._base = list(dict.fromkeys(sampled))[:networks]
        long_run = config.device("twin").process.samples(5.0, LONG_RUN)
        level = trimmed_mean(long_run.tolist(), policy.trim) / 5.0
        self.truth_ms = [base * level for base in self._base]

    def one(self, network: int) -> tuple[list[int], float]:
        self._process.rest(0.005)
        runs = self._process.samples(self._base[network], self._policy.warmup + self._policy.runs)
        return [round(1e6 * ms) for ms in runs[self._policy.warmup :]], float(runs.sum()) / 1e3


class Recorded:
    """Passes of a store's networks, in an order of rounds by the seed, the same for all networks."""

    def __init__(self, passes: Sequence[Sequence[list[int]]], policy: TimingPolicy, seed: int) -> None:
        rounds = list(range(min(map(len, passes))))
        random.Random(seed).shuffle(rounds)
        self.most = len(rounds) // 2
        self._dealt = [[own[place] for place in rounds[: self.most]] for own in passes]
        self._next = [0] * len(passes)
        self._factor = (policy.warmup + policy.runs) / policy.runs
        kept = ([sample for place in rounds[self.most :] for sample in own[place]] for own in passes)
        self.truth_ms = [trimmed_mean(samples, policy.trim) / 1e6 for samples in kept]

    def one(self, network: int) -> tuple[list[int], float]:
        samples = self._dealt[network][self._next[network]]
        self._next[network] += 1
        return samples, self._factor * sum(samples) / 1e9


class Campaign:
    """Passes so far, and the labels they make."""

    def __init__(self, source: Source, rng: random.Random) -> None:
        self._source, self._rng = source, rng
        self.passes: list[list[list[int]]] = [[] for _ in source.truth_ms]
        self.seconds = [0.0] * len(self.passes)
        while due := [network for network in range(len(self.passes)) if self._is_due(network)]:
            for network in self._shuffled(due):
                self.add(network)
        self.labels = [self._label(network) for network in range(len(self.passes))]

    def _is_due(self, network: int) -> bool:
        return needs_pass(self.passes[network], POLICY, self.seconds[network])

    def add(self, network: int) -> float:
        samples, took_s = self._source.one(network)
        self.passes[network].append(samples)
        self.seconds[network] += took_s
        return took_s

    def direct(self, resolve: Resolve, most_s: float) -> float:
        """Rounds until nothing is open, or the seconds are spent; how many were."""
        spent_s = 0.0
        while wanted := next_round(self.labels, resolve, most_s - spent_s):
            left = {int(name): passes for name, passes in wanted.items()}
            while left:
                for network in self._shuffled(list(left)):
                    spent_s += self.add(network)
                left = {network: total for network, total in left.items() if len(self.passes[network]) < total}
            for name in wanted:
                self.labels[int(name)] = self._label(int(name))
        return spent_s

    def spread(self, most_s: float) -> None:
        """The same seconds for everyone."""
        spent_s = 0.0
        while spent_s < most_s and min(map(len, self.passes)) < self._source.most:
            for network in self._shuffled(range(len(self.passes))):
                if spent_s < most_s:
                    spent_s += self.add(network)
        self.labels = [self._label(network) for network in range(len(self.passes))]

    def _shuffled(self, networks: Sequence[int]) -> list[int]:
        return self._rng.sample(list(networks), len(networks))

    def _label(self, network: int) -> RankedNetwork:
        summary = summarise(self.passes[network], POLICY.trim)
        passes = len(self.passes[network])
        return RankedNetwork(
            str(network),
            summary.latency_ms,
            summary.stderr_ms,
            passes,
            self.seconds[network] / passes,
        )


def right_of_top(labels: Sequence[RankedNetwork], truth: np.ndarray) -> dict[str, float]:
    """Shares of right decisions on the ten fastest, and by how much the chosen ten are slower than those."""
    label = np.array([one.latency_ms for one in labels])
    fastest, chosen = np.argsort(truth)[:TOP], np.argsort(label)[:TOP]
    right = [
        (label[one] < label[other]) == (truth[one] < truth[other])
        for one in fastest
        for other in range(len(truth))
        if other != one and abs(math.log(truth[other] / truth[one])) <= NEAR
    ]
    return {
        "right": statistics.fmean(right) if right else 1.0,
        "members": len(set(fastest) & set(chosen)) / TOP,
        "slower_percent": 100 * (float(truth[chosen].mean() / truth[fastest].mean()) - 1),
    }


def right_of_limit(labels: Sequence[RankedNetwork], truth: np.ndarray, limit_ms: float) -> dict[str, float]:
    """Shares of networks near the limit, and of all, that are on their right side."""
    below = np.array([one.latency_ms for one in labels]) <= limit_ms
    right = below == (truth <= limit_ms)
    near = np.abs(np.log(truth / limit_ms)) <= NEAR
    return {"right": float(right[near].mean()) if near.any() else 1.0, "all": float(right.mean())}


def calibration(labels: Sequence[RankedNetwork], resolve: Resolve, truth: np.ndarray) -> dict[str, float]:
    """How many comparisons stand how, and which were wrong: at all where decided, by more than a tie else."""

    def of(name: str | None) -> float:
        return resolve.under_ms or 0.0 if name is None else float(truth[int(name)])

    found = compare(labels, resolve)
    excess = [math.log(of(one.faster) / of(one.slower)) for one in found]  # above 0: the wrong order
    states = [one.state for one in found]
    return {
        **{state: float(states.count(state)) for state in ("decided", "tie", "open")},
        "wrong": float(sum(x > 0 for x, state in zip(excess, states, strict=True) if state == "decided")),
        "expected": sum(1 - one.probability for one in found if one.state == "decided"),
        "wrong_ties": float(sum(x > resolve.zone for x, s in zip(excess, states, strict=True) if s == "tie")),
    }


def trial(make: Callable[[int], Source], goal: str, ties: float, share: float, seed: int) -> dict[str, float]:
    """One campaign, twice from the same start: directed, and spread."""
    source = make(seed)
    truth = np.array(source.truth_ms)
    limit_ms = float(np.median(truth)) * 1.0001
    question: dict[str, Any] = {"under_ms": limit_ms} if goal == "limit" else {"top": TOP}
    resolve = Resolve(**question, ties_percent=ties, most_passes=source.most)

    def right(campaign: Campaign) -> dict[str, float]:
        if goal == "top":
            return right_of_top(campaign.labels, truth)
        return right_of_limit(campaign.labels, truth, limit_ms)

    directed = Campaign(source, random.Random(seed))
    first, first_s = right(directed), sum(directed.seconds)
    before = {label.name: label.passes for label in directed.labels}
    spent_s = directed.direct(resolve, share * first_s)
    spread = Campaign(make(seed), random.Random(seed))
    spread.spread(spent_s)
    figures = {"spent": spent_s / first_s, "uniform": uniform_s(directed.labels, before, resolve) / first_s}
    for name, values in (("first", first), ("directed", right(directed)), ("spread", right(spread))):
        figures |= {f"{name} {key}": value for key, value in values.items()}
    return figures | calibration(directed.labels, resolve, truth)


def row(name: str, goal: str, ties: float, share: float, trials: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Means over seeds; the standard error of the difference of right decisions, paired by seed."""
    mean = {key: statistics.fmean(one[key] for one in trials) for key in trials[0]}
    gains = [one["directed right"] - one["spread right"] for one in trials]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    return {
        "noise": name,
        "question": f"top {TOP}" if goal == "top" else "limit",
        "zone %": ties,
        "may spend": share,
        "spent": mean["spent"],
        "right before": mean["first right"],
        "spread": mean["spread right"],
        "directed": mean["directed right"],
        "+/-": error,
        "members spread": mean.get("spread members"),
        "members directed": mean.get("directed members"),
        "too slow % spread": mean.get("spread slower_percent"),
        "too slow % directed": mean.get("directed slower_percent"),
        "decided": mean["decided"],
        "ties": mean["tie"],
        "open": mean["open"],
        "wrong": mean["wrong"],
        "expected": mean["expected"],
        "wrong ties": mean["wrong_ties"],
        "uniform": mean["uniform"],
    }


def recorded_passes(path: Path) -> list[list[list[int]]]:
    """Of each network that was timed itself: the passes of all its sessions."""
    store = Store(path, must_exist=True)
    table = store.table(raw=True)
    table = table[(table["status"] == "ok") & table["same_graph_as"].isna()]
    grouped = table.groupby(["target", "space", "arch"], sort=False)["passes"]
    return [[one for session in sessions for one in session] for _, sessions in grouped]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--ties", nargs="*", type=float, default=[1.0], help="percent")
    parser.add_argument("--kinds", nargs="*", choices=DEVICES, default=list(DEVICES))
    parser.add_argument("--space", default="fbnet")
    parser.add_argument("--trace", nargs="*", type=Path, default=[], help="stores with many passes of each network")
    parser.add_argument("--out", type=Path, default=RESULTS / "resolve.json")
    arguments = parser.parse_args()
    sources: dict[str, Callable[[int], Source]] = {
        kind: partial(Simulated, kind, arguments.space, arguments.networks, POLICY) for kind in arguments.kinds
    }
    for path in arguments.trace:
        sources[path.stem] = partial(Recorded, recorded_passes(path), POLICY)
    rows = []
    for name, make in sources.items():
        for goal, ties, share in itertools.product(("top", "limit"), arguments.ties, SHARES):
            trials = [trial(make, goal, ties, share, seed) for seed in range(arguments.seeds)]
            rows.append(row(name, goal, ties, share, trials))
    show(f"{arguments.networks} networks, {arguments.seeds} seeds; seconds as shares of the first labels'", rows)
    save(arguments.out, {"networks": arguments.networks, "seeds": arguments.seeds, "rows": rows})


if __name__ == "__main__":
    main()
