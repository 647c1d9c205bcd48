"""The predictor `anp`: an attentive neural process over devices, a baseline of HELP's paper.

Kim et al., Attentive Neural Processes (ICLR 2019): the measurements of a device are encoded, an architecture attends to
them, and a latent variable describes the device. No weight changes for a new device. The network that reads
architectures, the pools and the episodes are those of HELP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from latlab.predictors.base import FloatArray, IntArray, SourceDevice
from latlab.predictors.bases.score_predictor import ScorePredictor
from latlab.predictors.bases.trunks import HIDDEN, Params, affine, linear_weights, relu_affine, trunk_of
from latlab.predictors.common import serialization as files
from latlab.predictors.common.cost_features import cost_features
from latlab.predictors.common.log_latency import log_or_tangent
from latlab.predictors.common.torch_training import Steps
from latlab.predictors.help.hardware_embedding import source_pool
from latlab.search_spaces import SearchSpace

__all__ = ["NeuralProcess"]

HEADS = 4
LATENT = 32
LEAST_DEVIATION = 0.1
"""Smallest standard deviation of a predicted label, as in the authors' code."""
DEVICES, QUERIES = 8, 200
CONTEXT = (5, 20)
"""Smallest and largest number of measurements of an episode's context."""
RATE = 5e-4
TRIMMED = 0.1
"""Share of a source's measurements that is dropped at either end of its latencies, as by HELP."""
FEWEST = 2
"""Number of measurements without which labels have no scale."""
CHUNK = 1024
"""Number of architectures predicted at a time."""


class NeuralProcess(ScorePredictor):
    """An attentive neural process that is trained on source devices and reads the measurements of a target.

    Labels are latencies, standardised by mean and standard deviation of the context. Without sources, or with fewer
    than two measurements, the score is the analytic cost of an architecture.

    Args:
        episodes: number of episodes of training.
        device: device of PyTorch on which the network is trained and evaluated.
    """

    name = "anp"
    title = "Attentive neural process, trained on source devices (Kim et al., ICLR 2019), with HELP's episodes"
    folds: ClassVar[int] = 5
    pretraining_lasts: ClassVar[bool] = True

    def __init__(self, space: SearchSpace, *, seed: int = 0, episodes: int = 2000, device: str = "cpu") -> None:
        super().__init__(space, seed=seed)
        self._episodes, self._device = episodes, torch.device(device)
        self._trunk = trunk_of(space, device)
        self._params: Params = {}
        """Weights (1, ...); empty without sources."""
        self._context: tuple[Tensor, Tensor] | None = None
        """Embeddings (1, n, 100) and standardised labels (1, n) of the measurements."""

    def pretrain(self, sources: Sequence[SourceDevice]) -> None:
        """Train from scratch; sources may have measured different architectures.

        Raises:
            ValueError: a device has too few measurements, or one that is not positive and finite.
        """
        self._params, self._context = {}, None
        if sources:
            pools = [source_pool(self.space, source, TRIMMED, self.seed) for source in sources]
            data = [
                (self._trunk.inputs(pool.genes), torch.tensor(pool.labels, dtype=torch.float32, device=self._device))
                for pool in pools
            ]
            self._params = self._trained(data)
        self.adapt([], [])

    def _trained(self, pools: Sequence[tuple[Tensor, Tensor]]) -> Params:
        generator = torch.Generator(self._device).manual_seed(self.seed)
        params = {name: value[None] for name, value in self._initial(generator).items()}
        with torch.enable_grad():
            for value in params.values():
                value.requires_grad_()
            optimizer = torch.optim.Adam(list(params.values()), lr=RATE, fused=True)
            smallest = min(len(y) for _, y in pools)
            low, high = (min(count, smallest // 2) for count in CONTEXT)
            steps = Steps(self.training_log, self._episodes, params, optimizer, generators={"episodes": generator})
            for _ in steps:
                shown = int(torch.randint(low, high + 1, (1,), generator=generator, device=self._device))
                asked = min(QUERIES, smallest - shown)
                chosen = torch.randperm(len(pools), generator=generator, device=self._device)[:DEVICES].tolist()
                rows = [
                    torch.randperm(len(pools[i][1]), generator=generator, device=self._device)[: shown + asked]
                    for i in chosen
                ]
                x = torch.stack([pools[i][0][row] for i, row in zip(chosen, rows, strict=True)])
                y = torch.stack([pools[i][1][row] for i, row in zip(chosen, rows, strict=True)])
                y = (y - y[:, :shown].mean(dim=1, keepdim=True)) / _deviation(y[:, :shown])
                loss = self._loss(params, x, y, shown, generator)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                steps.figures = {"loss": float(loss.detach())}
        return {name: value.detach() for name, value in params.items()}

    def _initial(self, generator: torch.Generator) -> Params:
        params = self._trunk.initial(generator)
        for path, outputs in (("path", HIDDEN), ("latent", 2 * LATENT)):
            params |= linear_weights(f"{path}1", HIDDEN + 1, HIDDEN, generator)
            params |= linear_weights(f"{path}2", HIDDEN, outputs, generator)
        for name in ("query", "key", "value", "out"):
            params |= linear_weights(name, HIDDEN, HIDDEN, generator)
        params |= linear_weights("decoder1", 2 * HIDDEN + LATENT, HIDDEN, generator)
        params |= linear_weights("decoder2", HIDDEN, HIDDEN, generator)
        return params | linear_weights("decoder3", HIDDEN, 2, generator)

    def _loss(self, params: Params, x: Tensor, y: Tensor, shown: int, generator: torch.Generator) -> Tensor:
        """Return the negative evidence bound per query (Kim et al., eq. 3) of tasks `x` (T, n, ...), `y` (T, n)."""
        tasks, n = y.shape
        embedded = self._trunk(params, x.reshape(1, tasks * n, *x.shape[2:])).view(tasks, n, HIDDEN)
        before, after = (self._latent(params, embedded[:, :m], y[:, :m]) for m in (shown, n))
        noise = torch.randn(after.mean.shape, generator=generator, device=self._device)
        z = after.mean + after.stddev * noise
        mean, deviation = self._decoded(params, embedded[:, :shown], y[:, :shown], embedded[:, shown:], z)
        labels = torch.distributions.Normal(mean, deviation)
        error = -labels.log_prob(y[:, shown:]).mean()  # type: ignore[no-untyped-call]
        divergence: Tensor = torch.distributions.kl_divergence(after, before).sum(dim=1)
        loss: Tensor = error + (divergence / (n - shown)).mean()
        return loss

    def _latent(self, params: Params, embedded: Tensor, y: Tensor) -> torch.distributions.Normal:
        """Return the distribution of the latent variable (T, LATENT) given embedded measurements (T, n, 100)."""
        each = _shared(params, ("latent1", "latent2"), torch.cat([embedded, y[..., None]], dim=2))
        mean, width = each.mean(dim=1).chunk(2, dim=1)
        return torch.distributions.Normal(mean, 0.1 + 0.9 * torch.sigmoid(width))

    def _decoded(self, params: Params, context: Tensor, y: Tensor, asked: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and deviations of labels, each (T, m), of embedded architectures `asked` (T, m, 100)."""
        represented = _shared(params, ("path1", "path2"), torch.cat([context, y[..., None]], dim=2))

        def heads(name: str, rows: Tensor) -> Tensor:
            return _shared(params, (name,), rows).view(*rows.shape[:2], HEADS, HIDDEN // HEADS).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            heads("query", asked), heads("key", context), heads("value", represented)
        )
        own = _shared(params, ("out",), attended.transpose(1, 2).flatten(2))
        every = torch.cat([asked, own, z[:, None].expand(-1, asked.shape[1], -1)], dim=2)
        mean, width = _shared(params, ("decoder1", "decoder2", "decoder3"), every).unbind(dim=2)
        return mean, LEAST_DEVIATION + (1 - LEAST_DEVIATION) * F.softplus(width)

    @torch.no_grad()
    def _fit(self, genes: IntArray, log_latency: FloatArray, label_variance: FloatArray) -> None:
        self._context = None
        if not self._params or len(genes) < FEWEST:
            return
        latency = np.exp(log_latency)
        y = torch.tensor(latency, dtype=torch.float32, device=self._device)[None]
        self._centre_ms, self._unit_ms = float(latency.mean()), float(_deviation(y))
        self._smallest_ms = float(latency.min()) / 2
        embedded = self._trunk(self._params, self._trunk.inputs(genes)[None])
        self._context = embedded, (y - self._centre_ms) / self._unit_ms

    @torch.no_grad()
    def _scores(self, genes: IntArray) -> FloatArray:
        if self._context is None:
            return np.asarray(cost_features(self.space)(genes)["totals"].sum(axis=1))
        z = self._latent(self._params, *self._context).mean
        parts = [np.empty(0)]
        for start in range(0, len(genes), CHUNK):
            asked = self._trunk(self._params, self._trunk.inputs(genes[start : start + CHUNK])[None])
            parts.append(self._decoded(self._params, *self._context, asked, z)[0][0].cpu().numpy())
        labels = np.concatenate(parts)
        return log_or_tangent((self._centre_ms + self._unit_ms * labels) / self._smallest_ms)

    def _state(self) -> files.Arrays:
        return {f"weights/{name}": value.cpu().numpy() for name, value in self._params.items()}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        expected = self._initial(torch.Generator(self._device))
        self._params = {name.removeprefix("weights/"): torch.from_numpy(value) for name, value in arrays.items()}
        for name, value in expected.items() if self._params else ():
            if self._params[name].shape != (1, *value.shape):
                raise ValueError(f"its {name} has the shape {tuple(self._params[name].shape)}")
        self._fit(self._genes, self._log_latency, self._label_variance)


def _shared(params: Params, layers: Sequence[str], rows: Tensor) -> Tensor:
    """Return rows (T, n, in) after linear layers that all tasks share, with rectifiers between them: (T, n, out)."""
    flat = rows.reshape(1, -1, rows.shape[-1])
    for name in layers[:-1]:
        flat = relu_affine(params, name, flat)
    return affine(params, layers[-1], flat).view(*rows.shape[:2], -1)


def _deviation(y: Tensor) -> Tensor:
    """Return standard deviations (T, 1) of labels (T, n); 1 where they are all the same."""
    found = y.std(dim=1, keepdim=True)
    return torch.where(found > 0, found, torch.ones_like(found))
