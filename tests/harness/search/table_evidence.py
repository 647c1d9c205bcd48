"""A device that is a function: measuring gives its true latencies, and predictors are fitted to them as to labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from latlab.harness.fleet.failures import TargetFailure
from latlab.harness.search.accuracy import AccuracySource
from latlab.harness.search.candidates import Candidates
from latlab.harness.search.limits import Constraints, Limit, Measured
from latlab.harness.search.rounds import Search, SearchPlan
from latlab.harness.search.scoring import Predict
from latlab.harness.search.state import SearchFolder
from latlab.predictors import create
from latlab.search_spaces import SearchSpace

TARGET = "toy/onnxruntime/cpu/fp32/t1/b1"


class FunctionEvidence:
    """The labels of a device whose latency in ms is a function of genes (`search.rounds.Evidence`).

    Args:
        broken: networks that cannot be measured.
        dies_after: measurements after which one raises `KeyboardInterrupt`, once.
        fails_after: measurements after which the target fails once, while another target goes on.
        noise: relative deviation of a label before passes are added to it, which its error bar states.
    """

    def __init__(
        self,
        space: SearchSpace,
        latency: Callable[[np.ndarray], np.ndarray],
        first: int = 8,
        spread: float = 0.0,
        broken: Callable[[str], bool] = lambda arch: False,
        dies_after: int | None = None,
        fails_after: int | None = None,
        noise: float = 0.001,
    ) -> None:
        self.space, self.latency, self.spread, self.broken = space, latency, spread, broken
        self.known: dict[str, Measured] = {}
        self.tried: list[tuple[str, bool]] = []
        self.lost: set[str] = set()
        self.resolved: list[str] = []
        self.noise, self._rng = noise, np.random.default_rng(5)
        self.dies_after: int | None = None
        self.fails_after: int | None = None
        self.measure([arch.text for arch in space.sample(first, 1)], False)
        self.tried.clear()
        self.dies_after, self.fails_after = dies_after, fails_after

    def predicts(self) -> Sequence[Predict]:
        predictor = create("ridge", self.space)
        genes = self.space.genes([self.space.parse(arch) for arch in self.known])
        latency = [one.latency_ms for one in self.known.values()]
        predictor.adapt(genes, latency, [one.stderr_ms for one in self.known.values()])
        return [predictor.predict]

    def labels(self) -> Sequence[Mapping[str, Measured]]:
        return [self.known]

    def spreads(self) -> Sequence[float]:
        return [self.spread]

    def failed(self) -> set[str]:
        return self.lost

    def measure(self, archs: Sequence[str], again: bool) -> Sequence[TargetFailure]:
        for arch in archs:
            if arch in self.known and not again:
                continue
            if self.dies_after is not None and len(self.tried) >= self.dies_after:
                self.dies_after = None
                raise KeyboardInterrupt
            if self.fails_after is not None and len(self.tried) >= self.fails_after:
                self.fails_after = None
                return [TargetFailure(TARGET, "the cable is cut")]
            self.tried.append((arch, again))
            if self.broken(arch):
                self.lost.add(arch)
                continue
            sessions = self.known[arch].sessions + 1 if arch in self.known else 1
            self._label(arch, self.noise, sessions)
        return ()

    def resolve(self, archs: Sequence[str]) -> Sequence[TargetFailure]:
        for arch in archs:
            self.resolved.append(arch)
            self._label(arch, 0.001, self.known[arch].sessions)
        return ()

    def _label(self, arch: str, noise: float, sessions: int) -> None:
        (value,) = self.latency(self.space.genes([self.space.parse(arch)]))
        found = float(value) * (1.0 if noise == 0.001 else float(np.exp(noise * self._rng.normal())))
        self.known[arch] = Measured(found, noise * found, sessions)


def search_in(
    folder: Path,
    evidence: FunctionEvidence,
    accuracy: AccuracySource,
    candidates: Candidates,
    limit_ms: float,
    budget: int,
    **more: object,
) -> Search:
    """Return a search on that device."""
    constraints = Constraints((Limit(TARGET, limit_ms),), 0.9)
    plan = SearchPlan(evidence.space, constraints, accuracy, candidates, "", budget, **more)  # type: ignore[arg-type]
    return Search(plan, evidence, SearchFolder(folder, [limit_ms], evidence.space))
