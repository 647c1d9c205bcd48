"""Meta-training by Meta-SGD (second order, one rate per parameter) over devices.

The T tasks of an episode are one batch. Their weights differ, so a layer is a batched matrix product, and the gradient
of the sum of their losses contains the gradient of each loss with respect to its own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latlab.predictors.common.metrics import spearman
from latlab.predictors.help.network import Meta, Params, Trunk, forward, initial, kl, modulated, posterior

__all__ = ["Pool", "Settings", "adapted", "draw", "meta_loss", "meta_train"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of HELP's training; the defaults are those of the paper and its code."""

    episodes: int = 2000
    """Number of episodes of meta-training."""
    rate: float = 1e-4
    """Learning rate of Adam."""
    devices: int = 8
    """Number of tasks of an episode."""
    support: int = 10
    """Number of labels in the support of a task."""
    queries: int = 200
    """Number of labels on which an adapted task is tested."""
    steps: int = 2
    """Number of gradient steps of the inner loop."""
    kl_weight: float = 0.1
    """Weight of the divergence of z in the loss."""
    trimmed: float = 0.1
    """Share of a source's measurements that is dropped at either end of its latencies."""
    held_out: float = 0.15
    """Share of a source's pool that is held out to select the weights."""
    check_every: int = 50
    """Number of episodes between checks on the held-out labels."""
    patience: int = 0
    """Number of checks without improvement after which training stops; 0 means never."""
    monte_carlo: int = 10
    """Number of samples of z whose predictions are averaged."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The tensors of a device: inputs `x` (m, ...), labels `y` (m,), the held-out `held_x` and `held_y`, and its
    `embedding` (10,)."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    embedding: Tensor


def draw(meta: Meta, embedding: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw z (T, 603) for each embedding (T, 10), differentiably, and return it with the divergences from N(0, 1) (T,).

    The divergence is that of the distribution from which z is drawn.
    """
    mean, deviation = posterior(meta.inference, embedding)
    return mean + deviation * torch.randn(mean.shape, generator=generator), kl(mean, deviation)


def adapted(
    trunk: Trunk, meta: Meta, z: Tensor, x: Tensor, y: Tensor, embedding: Tensor, *, steps: int, train: bool
) -> Params:
    """Return the weights of T tasks after `steps` full-batch gradient steps on their supports.

    Args:
        z: modulation of the weights of each task, (T, 603).
        x, y: inputs and labels of the supports, (T, n, ...) and (T, n).
        embedding: embeddings of the devices, (T, 10).
        train: keep the graph, for gradients through the steps (second order); otherwise the result is detached.
    """
    params = modulated(meta.weights, z)
    if not train:
        params = {name: value.detach().requires_grad_() for name, value in params.items()}
    for _ in range(steps):
        error = forward(trunk, params, x, embedding) - y
        gradients = torch.autograd.grad((error**2).mean(dim=1).sum(), list(params.values()), create_graph=train)
        params = {
            name: torch.addcmul(value, meta.rates[name], gradient, value=-1)
            for (name, value), gradient in zip(params.items(), gradients, strict=True)
        }
        if not train:
            params = {name: value.detach().requires_grad_() for name, value in params.items()}
    return params if train else {name: value.detach() for name, value in params.items()}


def meta_loss(
    trunk: Trunk,
    meta: Meta,
    support: tuple[Tensor, Tensor],
    query: tuple[Tensor, Tensor],
    embedding: Tensor,
    generator: torch.Generator,
    settings: Settings,
) -> Tensor:
    """Return the mean squared error of the queries after adaptation, plus `kl_weight` times the sum of the divergences.

    The published code adds the last task's divergence once per task, which has the same expectation.
    """
    z, divergence = draw(meta, embedding, generator)
    params = adapted(trunk, meta, z, *support, embedding, steps=settings.steps, train=True)
    error = forward(trunk, params, query[0], embedding) - query[1]
    return (error**2).mean() + settings.kl_weight * divergence.sum()


def meta_train(
    trunk: Trunk,
    pools: Sequence[Pool],
    settings: Settings,
    seed: int,
    validation: Sequence[Pool] = (),
    report: Callable[[int, float], None] | None = None,
) -> Meta:
    """Meta-train on `pools` and return the weights that rank held-out architectures best, else the last weights.

    Args:
        validation: devices that are not trained on, but take part in the selection of the weights.
        report: function that is called at each check with the episode and the mean Spearman correlation over devices.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        meta = initial(trunk, generator)
        for tensor in meta.tensors():
            tensor.requires_grad_()
        optimizer = torch.optim.Adam(meta.tensors(), lr=settings.rate, fused=True)
        smallest = min(len(pool.y) for pool in pools)
        supports = min(settings.support, smallest // 2)
        queries = min(settings.queries, smallest - supports)
        judges = [*pools, *validation]
        held = all(len(pool.held_y) for pool in judges)
        best, best_rho, waited = meta, -2.0, 0
        for episode in range(1, settings.episodes + 1):
            tasks = [pools[i] for i in torch.randperm(len(pools), generator=generator)[: settings.devices].tolist()]
            rows = [torch.randperm(len(task.y), generator=generator)[: supports + queries] for task in tasks]
            x = torch.stack([task.x[row] for task, row in zip(tasks, rows, strict=True)])
            y = torch.stack([task.y[row] for task, row in zip(tasks, rows, strict=True)])
            loss = meta_loss(
                trunk,
                meta,
                (x[:, :supports], y[:, :supports]),
                (x[:, supports:], y[:, supports:]),
                torch.stack([task.embedding for task in tasks]),
                generator,
                settings,
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if held and episode % settings.check_every == 0:
                rho = _held_out_rho(trunk, meta, judges, supports, settings, seed)
                if report:
                    report(episode, rho)
                waited += 1
                if rho > best_rho:
                    best, best_rho, waited = meta.copy(), rho, 0
                if waited == settings.patience > 0:
                    break
    return best.copy()


def _held_out_rho(
    trunk: Trunk, meta: Meta, pools: Sequence[Pool], supports: int, settings: Settings, seed: int
) -> float:
    """Return the mean Spearman correlation over devices, each adapted to a support and tested on held-out labels.

    Supports and z are the same each time, so that checks differ only in the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(len(pool.held_y) for pool in pools)
    rows = [torch.randperm(len(pool.y), generator=generator)[:supports] for pool in pools]
    x = torch.stack([pool.x[row] for pool, row in zip(pools, rows, strict=True)])
    y = torch.stack([pool.y[row] for pool, row in zip(pools, rows, strict=True)])
    embedding = torch.stack([pool.embedding for pool in pools])
    z, _ = draw(meta, embedding, generator)
    params = adapted(trunk, meta, z, x, y, embedding, steps=settings.steps, train=False)
    with torch.no_grad():
        labels = forward(trunk, params, torch.stack([pool.held_x[:n] for pool in pools]), embedding).numpy()
    rhos = [spearman(label, pool.held_y[:n].numpy()) for label, pool in zip(labels, pools, strict=True)]
    return float(np.mean(np.nan_to_num(rhos)))
