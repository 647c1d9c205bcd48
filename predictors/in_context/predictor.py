"""The predictor `in-context`: a trained network reads the measurements of a device, and no weight changes.

It follows In-Context Learning for Latency Estimation (AutoML 2024 workshop, openreview.net/forum?id=Sin3j9XWX7) in its
best setting, "Synthetic HW + ZCP", and Mueller et al., Transformers Can Do Bayesian Inference (ICLR 2022). It differs
from the paper: synthetic devices are roofline models as well as the paper's mixtures of real ones, analytic costs stand
for its zero-cost proxies, the output is a Student-t distribution, and training takes minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from latlab.predictors.base import Archs, FloatArray, Prediction, SourceDevice
from latlab.predictors.bases.ridge_planner import RidgePlanned
from latlab.predictors.common import serialization as files
from latlab.predictors.common.log_latency import from_log, in_ms, log_labels
from latlab.predictors.in_context.encoding import Encoding
from latlab.predictors.in_context.network import Context, InContextNetwork, Shape
from latlab.predictors.in_context.tasks import Tasks
from latlab.predictors.in_context.training import Settings, Standardised, train
from latlab.search_spaces import SearchSpace

__all__ = ["InContext"]

CHUNK = 1024
"""Number of architectures predicted at a time, such that intermediate results stay in the processor's cache."""
CHUNK_CONTEXT = 8192
"""Number of measurements read at a time where each of many contexts leaves one out."""


class InContext(RidgePlanned):
    """A prior-data-fitted network that is trained on many devices and recognises a new one.

    `pretrain` trains a transformer on thousands of synthetic devices and the source devices, each shown through a
    few measurements; without sources it trains on synthetic devices only. `adapt` only reads the support: no
    weight changes. Intervals are those of the network's own predictive distribution, a Student-t in log-latency.
    Its loss is the likelihood of measured latencies, not their order.

    Before `pretrain` there is no network, and `ridge` predicts in its place. Covariances are always those of `ridge`,
    because a network that predicts one architecture at a time has none.
    """

    name: ClassVar[str] = "in-context"
    title: ClassVar[str] = "Transformer that reads measurements in context, trained on synthetic and source devices"
    pretraining_lasts: ClassVar[bool] = True

    def __init__(self, space: SearchSpace, *, seed: int = 0, settings: Settings | None = None) -> None:
        super().__init__(space, seed=seed)
        self.settings = Settings() if settings is None else settings
        self._network: InContextNetwork | None = None
        self.adapt([], [])

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Train the network from scratch, which takes two to three minutes on one core.

        Raises:
            ValueError: a source has fewer than two measurements, or one that is not positive and finite.
        """
        tasks = Tasks(self.space, sources, self.settings.tasks, np.random.default_rng(self.seed))
        self._network = train(tasks, self.settings, self.seed, self.training_log)
        self._encoding, self._typical = tasks.encoding, tasks.typical
        self.adapt([], [])

    def adapt(self, support: Archs, latency_ms: ArrayLike, stderr_ms: ArrayLike | None = None) -> None:
        self._log_latency, self._label_variance = log_labels(support, latency_ms, stderr_ms)
        self._genes = self.space.genes(support)
        self._new_support()
        if self._network is None or not len(self._genes):
            return
        y, stderr = self._log_latency[None], np.sqrt(self._label_variance)[None]
        self._unit = Standardised(y, self._typical, self.settings.largest)
        x = torch.from_numpy(self._encoding(self._genes))[None]
        with torch.inference_mode():
            self._context: Context = self._network.read(x, self._unit.labels(y, stderr), self._unit.device)

    def predict(self, archs: Archs) -> Prediction:
        if not len(self._genes):
            raise ValueError("nothing has been measured yet, so there is no scale: call adapt first")
        if self._network is None:
            return self._planner.predict(archs)
        genes = self.space.genes(archs)
        parts = [np.empty((3, 0))]
        for start in range(0, len(genes), CHUNK):
            x = torch.from_numpy(self._encoding(genes[start : start + CHUNK]))[None]
            parts.append(self._distribution(self._network, self._context, x, self._unit)[:, 0])
        return _prediction(np.concatenate(parts, axis=1))

    def leave_one_out(self) -> Prediction:
        """Predict every measurement in the context of the others, which is exact."""
        n = len(self._genes)
        if n < 2:
            raise ValueError("leaving one out needs at least two measurements")
        if self._network is None:
            return self._planner.leave_one_out()
        x, parts = torch.from_numpy(self._encoding(self._genes)), []
        for left, kept in _folds(n):
            y, stderr = self._log_latency[kept], np.sqrt(self._label_variance[kept])
            unit = Standardised(y, self._typical, self.settings.largest)
            with torch.inference_mode():
                context = self._network.read(x[torch.from_numpy(kept)], unit.labels(y, stderr), unit.device)
            query = x[torch.from_numpy(left)][:, None]
            parts.append(self._distribution(self._network, context, query, unit)[:, :, 0])
        return _prediction(np.concatenate(parts, axis=1))

    @torch.inference_mode()
    def _distribution(
        self, network: InContextNetwork, context: Context, x: torch.Tensor, unit: Standardised
    ) -> FloatArray:
        """Return mean, scale and degrees of freedom of log-latencies: shape (3, devices, queries)."""
        mean, scale, freedom = (values.numpy().astype(np.float64) for values in network(context, x))
        return np.stack([unit.centre + mean * unit.scale, scale * unit.scale, freedom])

    def save(self, folder: str | Path) -> None:
        arrays = {"genes": self._genes, "log_latency": self._log_latency, "label_variance": self._label_variance}
        facts: dict[str, object] = {"seed": self.seed}
        if self._network is not None:
            weights = self._network.state_dict()
            arrays |= {f"network/{name}": value.numpy() for name, value in weights.items()}
            arrays |= {f"encoding/{name}": value for name, value in self._encoding.arrays.items()}
            facts |= {"shape": asdict(self._network.shape), "typical": self._typical, "largest": self.settings.largest}
        files.save(folder, self.name, self.space, arrays, facts)

    @classmethod
    def load(cls, folder: str | Path, space: SearchSpace) -> Self:
        arrays, facts = files.load(folder, cls.name, space)
        with files.restoring(folder):
            predictor = cls(space, seed=int(facts["seed"]))
            if "shape" in facts:
                predictor._restore(arrays, facts)
            predictor.adapt(arrays["genes"], *from_log(arrays["log_latency"], arrays["label_variance"]))
        return predictor

    def _restore(self, arrays: files.Arrays, facts: Mapping[str, Any]) -> None:
        """Set the state that `pretrain` gave."""
        named = {name: arrays[f"encoding/{name}"] for name in ("centre", "scale", "components")}
        self._encoding = Encoding.restored(self.space, named)
        self._typical = float(facts["typical"])
        self.settings = Settings(largest=int(facts["largest"]))
        network = InContextNetwork(Shape(**facts["shape"])).eval().requires_grad_(False)
        prefix = "network/"
        network.load_state_dict(
            {k.removeprefix(prefix): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(prefix)}
        )
        self._network = network


def _folds(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over chunks of (positions left out (k,), positions kept (k, n - 1))."""
    size = max(CHUNK_CONTEXT // n, 1)
    for start in range(0, n, size):
        left = np.arange(start, min(start + size, n))
        others = np.arange(n - 1)[None].repeat(len(left), axis=0)
        yield left, others + (others >= left[:, None])


def _prediction(distribution: FloatArray) -> Prediction:
    """Return predictions from Student-t distributions of log-latency (3, n), with medians for means in ms.

    The mean in ms of such a distribution does not exist.
    """
    mean, scale, freedom = distribution
    return in_ms(mean, scale**2, freedom, shift=0.0)
