"""The predictor `help`: a network meta-trained on source devices and adapted by two gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.help.hardware_embedding import (
    Scale,
    SourcePool,
    embedding,
    impute,
    is_reference,
    label_scale,
    measured_references,
    source_pool,
)
from latlab.predictors.help.meta_learning import Pool, Settings, adapted, draw, meta_train
from latlab.predictors.help.network import EMBEDDING, Meta, Params, forward, modulated, trunk_of
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Help", "Settings"]

PARTS = ("weights", "rates", "inference")
CHUNK = 256
"""Number of architectures predicted at a time, such that intermediate results stay in the processor's cache."""
SMALLEST_HELD_OUT = 20
"""Number of held-out architectures below which none are held out, and a device's whole pool is trained on."""


class Help(ScorePredictor):
    """HELP: a network that is meta-learned on source devices and adapted to a target in two steps.

    HELP's protocol has ten references and ten further measurements; here all n measurements are the support. A device's
    embedding is its latencies on ten reference architectures. Sources that have not measured them all get estimates
    (`hardware_embedding.source_pool`); the missing ones of a target follow from the sources
    (`hardware_embedding.impute`). Labels are on the scale of a source's pool. HELP's code takes the scale of a target
    from 720 of its latencies, which a user does not have; here it comes from the support
    (`hardware_embedding.label_scale`).

    Without source devices there is nothing to adapt, and the score is the analytic cost of an architecture.

    Args:
        episodes: number of episodes of meta-training; by default the paper's.
        patience: number of checks on held-out architectures (one every 50 episodes) without improvement after which
            meta-training stops; 0 means never.
        trimmed: share of a source's measurements dropped at either end of its latencies; 0 if they are trimmed already.
        as_published: adapt only to the measurements that are not references (where there are any), and predict from the
            last sample of z alone instead of the mean over ten, as the published code does for rank correlations.
        settings: all other settings; the arguments above replace those in it.
    """

    name: ClassVar[str] = "help"
    title: ClassVar[str] = "HELP: meta-learned network, adapted in two steps (Lee et al., NeurIPS 2021)"
    folds: ClassVar[int] = 5

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        episodes: int | None = None,
        patience: int | None = None,
        trimmed: float | None = None,
        as_published: bool = False,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        chosen = _paper(space) if settings is None else settings
        self.settings = replace(
            chosen,
            episodes=chosen.episodes if episodes is None else episodes,
            patience=chosen.patience if patience is None else patience,
            trimmed=chosen.trimmed if trimmed is None else trimmed,
        )
        self.as_published = as_published
        self._trunk = trunk_of(space)
        self._meta: Meta | None = None
        """Meta-learned weights; None without sources."""
        self._scales: list[Scale] = []
        self._references = np.empty((0, EMBEDDING))
        """Log-latencies of the sources' references."""
        self._adapted: tuple[Params, torch.Tensor] | None = None
        """Weights for each sample of z, and the embedding of the device, repeated for each."""

    def wanted(self) -> tuple[Architecture, ...]:
        """Return HELP's ten references, whose latencies embed the target."""
        return self.space.references()

    def pretrain(self, sources: Sequence[SourceDevice], validation: Sequence[SourceDevice] = ()) -> None:
        """Meta-train from scratch; sources may have measured different architectures.

        Args:
            sources: devices to train on; embeddings are exact for those that have measured the references.
            validation: devices that help to select the weights and are not trained on.

        Raises:
            ValueError: a device has too few measurements, or one that is not positive and finite; or the space has no
                ten reference architectures.
        """
        if sources and len(self.space.references()) != EMBEDDING:
            raise ValueError(f"HELP knows a device by {EMBEDDING} reference architectures; {self.space.name} has not")
        self._meta, self._scales, self._references, self._adapted = None, [], np.empty((0, EMBEDDING)), None
        if sources:
            pools = [source_pool(self.space, source, self.settings.trimmed, self.seed) for source in sources]
            others = [source_pool(self.space, source, self.settings.trimmed, self.seed) for source in validation]
            self._scales = [pool.scale for pool in pools]
            self._references = np.array([pool.log_references for pool in pools])
            random = np.random.default_rng(self.seed)
            tensors = [self._tensors(pool, random) for pool in (*pools, *others)]
            self._meta = meta_train(
                self._trunk, tensors[: len(pools)], self.settings, self.seed, validation=tensors[len(pools) :]
            )
        self.adapt([], [])

    def _tensors(self, pool: SourcePool, random: np.random.Generator) -> Pool:
        """Return the tensors of a pool, randomly split into labels to train on and held-out labels."""
        x, y = self._trunk.inputs(pool.genes), torch.tensor(pool.labels, dtype=torch.float32)
        order = torch.from_numpy(random.permutation(len(y)))
        count = int(self.settings.held_out * len(y))
        held, rest = order.tensor_split([count if count >= SMALLEST_HELD_OUT else 0])
        device = torch.tensor(embedding(pool.log_references), dtype=torch.float32)
        return Pool(x[rest], y[rest], x[held], y[held], device)

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._adapted = None
        if self._meta is None or not len(genes):
            return
        references = impute(measured_references(self.space, genes, log_latency), self._references)
        device = torch.tensor(embedding(references), dtype=torch.float32).expand(self.settings.monte_carlo, -1)
        if self.as_published:
            others = ~is_reference(self.space, genes)
            if others.any():
                genes, log_latency = genes[others], log_latency[others]
        generator = torch.Generator().manual_seed(self.seed)
        x = self._trunk.inputs(genes)[None]
        with torch.no_grad():
            z, _ = draw(self._meta, device, generator)
            guess = forward(self._trunk, modulated(self._meta.weights, z), x, device).mean(dim=0).numpy()
        latency = np.exp(log_latency)
        self._scale_ms = label_scale(latency, guess.astype(np.float64), self._scales)
        self._smallest_ms = float(latency.min()) / 2
        y = torch.tensor(self._scale_ms.labels(latency), dtype=torch.float32)
        with torch.enable_grad():
            params = adapted(self._trunk, self._meta, z, x, y, device, steps=self.settings.steps, train=False)
        if self.as_published:
            params, device = {name: value[-1:] for name, value in params.items()}, device[-1:]
        self._adapted = params, device

    @torch.no_grad()
    def _scores(self, genes: IntArray) -> FloatArray:
        if self._adapted is None:
            return np.asarray(cost_features(self.space)(genes)["totals"].sum(axis=1))
        params, device = self._adapted
        parts = [np.empty(0)]
        for start in range(0, len(genes), CHUNK):
            x = self._trunk.inputs(genes[start : start + CHUNK])[None]
            parts.append(forward(self._trunk, params, x, device).mean(dim=0).numpy())
        labels = np.concatenate(parts)
        # Labels may stand for negative latencies. So below half of the fastest measurement the logarithm is continued
        # by its tangent.
        latency = self._scale_ms.latency(labels) / self._smallest_ms
        return np.where(latency > 1, np.log(np.maximum(latency, 1)), latency - 1)

    def _state(self) -> files.Arrays:
        arrays: dict[str, NDArray[Any]] = {
            "source_scales_ms": np.array([(scale.low, scale.high) for scale in self._scales]).reshape(-1, 2),
            "source_references": self._references,
            "adaptation": np.array([self.settings.steps, self.settings.monte_carlo, self.as_published]),
        }
        if self._meta:
            for part in PARTS:
                arrays.update({f"{part}/{name}": value.numpy() for name, value in getattr(self._meta, part).items()})
        return arrays

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        steps, samples, as_published = arrays["adaptation"].tolist()
        self.settings = replace(self.settings, steps=steps, monte_carlo=samples)
        self.as_published = bool(as_published)
        self._scales = [Scale(float(low), float(high)) for low, high in arrays["source_scales_ms"]]
        self._references = arrays["source_references"]
        parts: dict[str, Params] = {part: {} for part in PARTS}
        for name, value in arrays.items():
            part, _, parameter = name.partition("/")
            if parameter:
                parts[part][parameter] = torch.from_numpy(value)
        self._meta = Meta(*(parts[part] for part in PARTS)) if parts["weights"] else None
        self._fit(self._genes, self._log_latency, self._label_variance)


def _paper(space: SearchSpace) -> Settings:
    """Return the published settings for a space.

    FBNet has 2,000 episodes too, where the published script has 4,000, because nothing improves after about 1,600.
    """
    return Settings() if space.name == "nasbench201" else Settings(rate=1e-3)
