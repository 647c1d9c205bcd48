"""The predictor `help`: a network meta-trained on source devices and adapted by two gradient steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.bases.trunks import Params, trunk_of
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.common.log_latency import log_or_tangent
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
from latlab.predictors.help.network import EMBEDDING, PARTS, Meta, forward, misfit, modulated
from latlab.predictors.help.published_checkpoint import published_weights
from latlab.search_spaces import Architecture, SearchSpace

__all__ = ["Help", "Settings"]

CHUNK = 2048
"""Number of architectures predicted at a time, such that intermediate results stay in the processor's cache."""
FOLD_SAMPLES = 2
"""Number of samples of z in a fold of the support; all `monte_carlo` of them are drawn for the fit to the whole."""
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
            last sample of z alone instead of all ten, as the published code does for rank correlations.
        condition, modulate, learned_rates, steps: the modules of HELP, which its ablation adds one by one: the network
            reads the embedding of the device; z modulates its head; each weight has a learned rate in the inner loop;
            the number of steps of the inner loop, 0 for none. By default those of HELP, or of the class's method.
        checkpoint: file of weights that HELP's authors published (`help_max_corr.pt`), which are used instead of
            training; sources then only give the scales of labels and typical references.
        device: device of PyTorch on which networks are trained and evaluated, such as `cuda`.
        settings: all other settings; the arguments above replace those in it.
    """

    name: ClassVar[str] = "help"
    title: ClassVar[str] = "HELP: meta-learned network, adapted in two steps (Lee et al., NeurIPS 2021)"
    folds: ClassVar[int] = 5
    pretraining_lasts: ClassVar[bool] = True
    modules: ClassVar[Mapping[str, bool]] = {}
    """Defaults of `condition`, `modulate` and `learned_rates` that differ from those of HELP."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        episodes: int | None = None,
        patience: int | None = None,
        trimmed: float | None = None,
        as_published: bool = False,
        condition: bool | None = None,
        modulate: bool | None = None,
        learned_rates: bool | None = None,
        steps: int | None = None,
        checkpoint: str | None = None,
        device: str = "cpu",
        settings: Settings | None = None,
    ) -> None:
        super().__init__(space, seed=seed)
        chosen = replace(_paper(space), **self.modules) if settings is None else settings
        given: dict[str, Any] = {"episodes": episodes, "patience": patience, "trimmed": trimmed, "condition": condition}
        given |= {"modulate": modulate, "learned_rates": learned_rates, "steps": steps}
        self.settings = replace(chosen, **{name: value for name, value in given.items() if value is not None})
        if self.settings.modulate and not self.settings.condition:
            raise ValueError("z is made from the embedding of the device: with condition=off, give modulate=off, too")
        self.as_published, self._checkpoint = as_published, checkpoint
        self._samples = self.settings.monte_carlo
        """Number of samples of z that the next fit draws."""
        self._device = torch.device(device)
        self._trunk = trunk_of(space, device)
        self._meta: Meta | None = None
        """Meta-learned weights; None without sources."""
        self._scales: list[Scale] = []
        self._references = np.empty((0, EMBEDDING))
        """Log-latencies of the sources' references."""
        self._adapted: tuple[Params, torch.Tensor] | None = None
        """The weights (1, ...), and the embedding of the device (1, 10)."""

    def wanted(self) -> tuple[Architecture, ...]:
        """Return HELP's ten references, whose latencies embed the target; none if it reads no embedding."""
        return self.space.references() if self.settings.condition else ()

    def pretrain(self, sources: Sequence[SourceDevice], validation: Sequence[SourceDevice] = ()) -> None:
        """Meta-train from scratch; sources may have measured different architectures.

        Args:
            sources: devices to train on; embeddings are exact for those that have measured the references.
            validation: devices that help to select the weights and are not trained on.

        Raises:
            ValueError: a device has too few measurements, or one that is not positive and finite; or the space has no
                ten reference architectures.
        """
        if sources and self.settings.condition and len(self.space.references()) != EMBEDDING:
            raise ValueError(f"HELP knows a device by {EMBEDDING} reference architectures; {self.space.name} has not")
        self._meta, self._scales, self._references, self._adapted = None, [], np.empty((0, EMBEDDING)), None
        if sources:
            pools = [source_pool(self.space, source, self.settings.trimmed, self.seed) for source in sources]
            others = [source_pool(self.space, source, self.settings.trimmed, self.seed) for source in validation]
            self._scales = [pool.scale for pool in pools]
            self._references = np.array([pool.log_references for pool in pools])
            if self._checkpoint is None:
                self._meta = self._trained(pools, others)
            else:
                self._meta = published_weights(self._checkpoint, self._trunk, self.settings).to(self._device)
        self.adapt([], [])

    def _trained(self, pools: Sequence[SourcePool], validation: Sequence[SourcePool]) -> Meta:
        random = np.random.default_rng(self.seed)
        tensors = [self._tensors(pool, random) for pool in (*pools, *validation)]
        own, others = tensors[: len(pools)], tensors[len(pools) :]
        return meta_train(self._trunk, own, self.settings, self.seed, others, self.training_log)

    def _tensors(self, pool: SourcePool, random: np.random.Generator) -> Pool:
        """Return the tensors of a pool, randomly split into labels to train on and held-out labels."""
        x = self._trunk.inputs(pool.genes)
        y = torch.tensor(pool.labels, dtype=torch.float32, device=self._device)
        order = torch.from_numpy(random.permutation(len(y))).to(self._device)
        count = int(self.settings.held_out * len(y))
        held, rest = order.tensor_split([count if count >= SMALLEST_HELD_OUT else 0])
        device = self._embedding(pool.log_references)
        return Pool(x[rest], y[rest], x[held], y[held], device)

    def _unseen_scores(self) -> FloatArray | None:
        """Draw fewer samples of z in the folds, which only tell how far a score can be trusted."""
        self._samples = min(FOLD_SAMPLES, self.settings.monte_carlo)
        try:
            return super()._unseen_scores()
        finally:
            self._samples = self.settings.monte_carlo

    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._adapted = None
        if self._meta is None or not len(genes):
            return
        references = self._references[:1].mean(axis=0)
        if self.settings.condition:
            references = impute(measured_references(self.space, genes, log_latency), self._references)
        samples = self._samples if self._meta.inference else 1
        device = self._embedding(references).expand(samples, -1)
        if self.as_published:
            others = ~is_reference(self.space, genes)
            if others.any():
                genes, log_latency = genes[others], log_latency[others]
        generator = torch.Generator(self._device).manual_seed(self.seed)
        x = self._trunk.inputs(genes)[None]
        with torch.no_grad():
            z, _ = draw(self._meta, device, generator)
            guess = forward(self._trunk, modulated(self._meta.weights, z, samples), x, device).mean(dim=0)
        latency = np.exp(log_latency)
        self._scale_ms = label_scale(latency, guess.cpu().numpy().astype(np.float64), self._scales)
        self._smallest_ms = float(latency.min()) / 2
        y = torch.tensor(self._scale_ms.labels(latency), dtype=torch.float32, device=self._device)
        with torch.enable_grad():
            params = adapted(self._trunk, self._meta, z, x, y, device, steps=self.settings.steps, train=False)
        # z changes weights by 1 %, so that the mean of the networks' labels is the label by their mean weights: to
        # .0001 of the range of labels, and ten times as fast.
        last = slice(-1, None) if self.as_published else slice(None)
        self._adapted = {name: value[last].mean(dim=0, keepdim=True) for name, value in params.items()}, device[:1]

    def _embedding(self, log_references: FloatArray) -> torch.Tensor:
        values = embedding(log_references) if self.settings.condition else np.zeros(EMBEDDING)
        return torch.tensor(values, dtype=torch.float32, device=self._device)

    @torch.no_grad()
    def _scores(self, genes: IntArray) -> FloatArray:
        if self._adapted is None:
            return np.asarray(cost_features(self.space)(genes)["totals"].sum(axis=1))
        params, device = self._adapted
        parts = [np.empty(0)]
        for start in range(0, len(genes), CHUNK):
            x = self._trunk.inputs(genes[start : start + CHUNK])[None]
            parts.append(forward(self._trunk, params, x, device)[0].cpu().numpy())
        return log_or_tangent(self._scale_ms.latency(np.concatenate(parts)) / self._smallest_ms)

    def _state(self) -> files.Arrays:
        arrays: dict[str, NDArray[Any]] = {
            "source_scales_ms": np.array([(scale.low, scale.high) for scale in self._scales]).reshape(-1, 2),
            "source_references": self._references,
            "adaptation": np.array([self.settings.steps, self.settings.monte_carlo, self.as_published]),
        }
        if self._meta:
            arrays.update({name: value.cpu().numpy() for name, value in self._meta.named().items()})
        return arrays

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        steps, samples, as_published = arrays["adaptation"].tolist()
        self.settings = replace(self.settings, steps=steps, monte_carlo=samples)
        self._samples = samples
        self.as_published = bool(as_published)
        self._scales = [Scale(float(low), float(high)) for low, high in arrays["source_scales_ms"]]
        self._references = arrays["source_references"]
        parts: dict[str, Params] = {part: {} for part in PARTS}
        for name, value in arrays.items():
            part, _, parameter = name.partition("/")
            if parameter:
                parts[part][parameter] = torch.from_numpy(value)
        self._meta = Meta(*(parts[part] for part in PARTS)) if parts["weights"] else None
        if self._meta:
            wrong = misfit(self._meta, self._trunk)
            if wrong:
                raise ValueError(wrong)
            modules = {"condition": "head1.device" in parts["weights"], "modulate": bool(parts["inference"])}
            self.settings = replace(self.settings, **modules)
        self._fit(self._genes, self._log_latency, self._label_variance)


def _paper(space: SearchSpace) -> Settings:
    """Return the published settings for a space.

    FBNet has 2,000 episodes too, where the published script has 4,000, because nothing improves after about 1,600.
    """
    return Settings() if space.name == "nasbench201" else Settings(rate=1e-3)
