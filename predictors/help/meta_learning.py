"""Meta-training by Meta-SGD (second order, one rate per parameter) over devices.

The T tasks of an episode are one batch. Their weights differ, so a layer is a batched matrix product, and the gradient
of the sum of their losses contains the gradient of each loss with respect to its own weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latlab.predictors.bases.trunks import Params, Trunk
from latlab.predictors.common.metrics import spearman
from latlab.predictors.common.torch_training import Steps
from latlab.predictors.help.network import Meta, forward, initial, kl, modulated, posterior
from latlab.predictors.training_log import FORGETFUL, TrainingLog

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
    """Number of samples of z, each of which is adapted by itself."""
    condition: bool = True
    """Whether the network reads the embedding of the device."""
    modulate: bool = True
    """Whether z modulates the head; only with `condition`."""
    learned_rates: bool = True
    """Whether the rate of each weight in the inner loop is learned (Meta-SGD), else fixed at .001 (MAML)."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The tensors of a device: inputs `x` (m, ...), labels `y` (m,), the held-out `held_x` and `held_y`, and its
    `embedding` (10,)."""

    x: Tensor
    y: Tensor
    held_x: Tensor
    held_y: Tensor
    embedding: Tensor


def draw(meta: Meta, embedding: Tensor, generator: torch.Generator) -> tuple[Tensor | None, Tensor]:
    """Draw z (T, 603) for each embedding (T, 10), differentiably, and return it with the divergences from N(0, 1) (T,).

    The divergence is that of the distribution from which z is drawn. Without a network for z there is none: None, and
    divergences of 0.
    """
    if not meta.inference:
        return None, torch.zeros(len(embedding), device=embedding.device)
    mean, deviation = posterior(meta.inference, embedding)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return mean + deviation * noise, kl(mean, deviation)


def adapted(
    trunk: Trunk,
    meta: Meta,
    z: Tensor | None,
    x: Tensor,
    y: Tensor,
    embedding: Tensor,
    *,
    steps: int,
    train: bool,
    weight: Tensor | None = None,
) -> Params:
    """Return the weights of T tasks after `steps` full-batch gradient steps on their supports.

    Args:
        z: modulation of the weights of each task, (T, 603), if there is any.
        x, y: inputs and labels of the supports, (T, n, ...) and (T, n).
        embedding: embeddings of the devices, (T, 10).
        train: keep the graph, for gradients through the steps (second order); otherwise the result is detached.
        weight: weight of each label in its task's mean error, (T, n), whose sum over n is 1; None for equal ones.
    """
    params = modulated(meta.weights, z, len(embedding))
    if not train:
        params = {name: value.detach().requires_grad_() for name, value in params.items()}
    for _ in range(steps):
        squared = (forward(trunk, params, x, embedding) - y) ** 2
        loss = squared.mean(dim=1) if weight is None else (weight * squared).sum(dim=1)
        gradients = torch.autograd.grad(loss.sum(), list(params.values()), create_graph=train)
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
    log: TrainingLog = FORGETFUL,
) -> Meta:
    """Meta-train on `pools` and return the weights that rank held-out architectures best, else the last weights.

    Args:
        validation: devices that are not trained on, but take part in the selection of the weights.
        log: is told of each episode, and keeps the state for another process.
    """
    where = pools[0].x.device
    generator = torch.Generator(where).manual_seed(seed)
    with torch.enable_grad():
        meta = initial(trunk, generator, condition=settings.condition, modulate=settings.modulate)
        learned = meta.learned(settings.learned_rates)
        for tensor in learned:
            tensor.requires_grad_()
        optimizer = torch.optim.Adam(learned, lr=settings.rate, fused=True)
        smallest = min(len(pool.y) for pool in pools)
        supports = min(settings.support, smallest // 2)
        queries = min(settings.queries, smallest - supports)
        judges = [*pools, *validation]
        held = all(len(pool.held_y) for pool in judges)
        best, selected = meta.copy(), {"rho": -2.0, "waited": 0.0}
        steps = Steps(
            log,
            settings.episodes,
            {**meta.named(), **{f"best {name}": value for name, value in best.named().items()}},
            optimizer,
            generators={"episodes": generator},
            values=selected,
        )
        for episode in steps:
            chosen = torch.randperm(len(pools), generator=generator, device=where)[: settings.devices].tolist()
            tasks = [pools[i] for i in chosen]
            rows = [
                torch.randperm(len(task.y), generator=generator, device=where)[: supports + queries] for task in tasks
            ]
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
            if held and (episode + 1) % settings.check_every == 0:
                rho = _held_out_rho(trunk, meta, judges, supports, settings, seed)
                selected["waited"] += 1
                if rho > selected["rho"]:
                    _copy(meta, best)
                    selected.update(rho=rho, waited=0)
                steps.figures = {"held_out_spearman": selected["rho"]}
                if selected["waited"] == settings.patience > 0:
                    steps.stop()
    return (best if selected["rho"] > -2 else meta).copy()


@torch.no_grad()
def _copy(source: Meta, target: Meta) -> None:
    for name, value in target.named().items():
        value.copy_(source.named()[name])


def _held_out_rho(
    trunk: Trunk, meta: Meta, pools: Sequence[Pool], supports: int, settings: Settings, seed: int
) -> float:
    """Return the mean Spearman correlation over devices, each adapted to a support and tested on held-out labels.

    Supports and z are the same each time, so that checks differ only in the weights.
    """
    where = pools[0].x.device
    generator = torch.Generator(where).manual_seed(seed)
    n = min(len(pool.held_y) for pool in pools)
    rows = [torch.randperm(len(pool.y), generator=generator, device=where)[:supports] for pool in pools]
    x = torch.stack([pool.x[row] for pool, row in zip(pools, rows, strict=True)])
    y = torch.stack([pool.y[row] for pool, row in zip(pools, rows, strict=True)])
    embedding = torch.stack([pool.embedding for pool in pools])
    z, _ = draw(meta, embedding, generator)
    params = adapted(trunk, meta, z, x, y, embedding, steps=settings.steps, train=False)
    with torch.no_grad():
        held_x = torch.stack([pool.held_x[:n] for pool in pools])
        labels = forward(trunk, params, held_x, embedding).cpu().numpy()
    rhos = [spearman(label, pool.held_y[:n].cpu().numpy()) for label, pool in zip(labels, pools, strict=True)]
    return float(np.mean(np.nan_to_num(rhos)))
