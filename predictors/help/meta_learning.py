"""Meta-training: Meta-SGD (second order, one rate per parameter) over devices.

The T tasks of an episode are one batch: their weights differ, so a layer is a batched matrix product, and the sum of
their losses has the gradient of each with respect to its own weights.
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
    """How HELP is trained; the defaults are the paper's and its code's."""

    episodes: int = 2000
    rate: float = 1e-4
    """Adam's."""
    devices: int = 8
    """Tasks of an episode."""
    support: int = 10
    queries: int = 200
    steps: int = 2
    """Of the inner loop."""
    kl_weight: float = 0.1
    trimmed: float = 0.1
    """Share of a source's pool that is dropped at either end of its latencies."""
    held_out: float = 0.15
    """Share of a source's pool that selects the weights and is not trained on."""
    check_every: int = 50
    """Episodes between looks at what was held out."""
    patience: int = 0
    """Looks without a better one after which training stops; 0: never."""
    monte_carlo: int = 10
    """Samples of z whose predictions are averaged."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A device: `x` (m, ...), labels `y` (m,) and `embedding` (10,); `held_x` and `held_y` select the weights."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    embedding: Tensor


def draw(meta: Meta, embedding: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A sample of z (T, 603) for each embedding (T, 10), differentiable, and its divergence from N(0, 1) (T,)."""
    mean, deviation = posterior(meta.inference, embedding)
    return mean + deviation * torch.randn(mean.shape, generator=generator), kl(mean, deviation)


def adapted(
    trunk: Trunk, meta: Meta, z: Tensor, x: Tensor, y: Tensor, embedding: Tensor, *, steps: int, train: bool
) -> Params:
    """Weights of T tasks after `steps` full-batch gradient steps on their supports.

    Args:
        z: (T, 603).
        x, y: supports, (T, n, ...) and (T, n).
        embedding: (T, 10).
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
    """Mean squared error of the queries after adaptation, and 0.1 times the sum of the tasks' divergences.

    (The published code adds the last task's divergence once per task, which has the same expectation.)
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
    """Meta-train on `pools`; the weights that rank held-out architectures best, or the last if none are held out.

    Args:
        validation: devices that are not trained on, and take part in the selection.
        report: called with the episode and the mean Spearman correlation at each look at what was held out.
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
    """Mean Spearman correlation over devices: adapted to a support, tested on what was held out.

    Supports and z are the same each time, so that looks differ by the weights alone.
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
