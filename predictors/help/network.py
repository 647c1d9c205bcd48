"""HELP's network, which reads an architecture and the embedding of a device and gives a label.

All functions take T tasks at once, each with its own weights (`bases.trunks`). A task is a device, or one sample of z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from latlab.predictors.bases.trunks import HIDDEN, Params, Trunk, affine, linear_weights, relu_affine

__all__ = ["EMBEDDING", "PARTS", "Meta", "forward", "initial", "kl", "misfit", "modulated", "posterior"]

EMBEDDING = 10
"""Number of reference architectures, whose latencies embed a device."""
HEAD = 2 * HIDDEN
LAYERS = 3
"""Number of layers of the head: 200 -> 200 -> 200 -> 1; without the embedding of the device half as wide."""
Z = LAYERS * (HEAD + 1)
"""Length of z: a factor for each input of each layer of the head, and an offset for each layer."""
Z_SCALE = 0.01
INFERENCE = 10
RATE = 1e-3
"""Each rate of the inner loop, or its initial value where rates are learned."""
PARTS = ("weights", "rates", "inference")


@dataclass(frozen=True, slots=True)
class Meta:
    """The result of meta-training: initial weights, a rate for each of them, and the weights of the network for z."""

    weights: Params
    rates: Params
    inference: Params
    """Empty where z is not used."""

    def named(self) -> Params:
        """Return all tensors by the names that files give them, such as `rates/head1.bias`."""
        return {f"{part}/{name}": value for part in PARTS for name, value in getattr(self, part).items()}

    def learned(self, learned_rates: bool) -> list[Tensor]:
        """Return the tensors that meta-training changes, for the optimiser."""
        rates = self.rates.values() if learned_rates else ()
        return [*self.weights.values(), *rates, *self.inference.values()]

    def copy(self) -> Meta:
        """Return a detached copy with its own memory."""
        parts = (self.weights, self.rates, self.inference)
        return Meta(*({name: value.detach().clone() for name, value in params.items()} for params in parts))

    def to(self, device: torch.device | str) -> Meta:
        """Return it on a device of PyTorch."""
        parts = (self.weights, self.rates, self.inference)
        return Meta(*({name: value.to(device) for name, value in params.items()} for params in parts))


def initial(trunk: Trunk, generator: torch.Generator, *, condition: bool = True, modulate: bool = True) -> Meta:
    """Return new weights; those of the head's first layer are in two halves, for the architecture and the device.

    Args:
        condition: whether the head also reads the embedding of the device.
        modulate: whether a network gives z, which modulates the head's weights; only with `condition`.
    """
    width = HEAD if condition else HIDDEN
    weights = trunk.initial(generator)
    if condition:
        weights |= linear_weights("device1", EMBEDDING, HIDDEN, generator)
        weights |= linear_weights("device2", HIDDEN, HIDDEN, generator)
    for layer in range(1, LAYERS + 1):
        weights |= linear_weights(f"head{layer}", width, width if layer < LAYERS else 1, generator)
    whole = weights.pop("head1.weight")
    weights["head1.arch"] = whole[:HIDDEN].clone()
    if condition:
        weights["head1.device"] = whole[HIDDEN:].clone()
    rates = {name: torch.full_like(value, RATE) for name, value in weights.items()}
    inference: Params = {}
    if modulate:
        inference |= linear_weights("inference1", EMBEDDING, INFERENCE, generator)
        inference |= linear_weights("inference2", INFERENCE, 2 * Z, generator)
    return Meta(weights, rates, inference)


def misfit(found: Meta, trunk: Trunk) -> str | None:
    """Return what is wrong with weights of a file, or None: each must be there, finite, and of its shape."""
    condition, modulate = "head1.device" in found.weights, bool(found.inference)
    own = found.named()
    for name, value in initial(trunk, torch.Generator(), condition=condition, modulate=modulate).named().items():
        if name not in own:
            return f"its {name} is missing"
        if own[name].shape != value.shape:
            return f"its {name} is {tuple(own[name].shape)}, not {tuple(value.shape)}"
        if not bool(own[name].isfinite().all()):
            return f"its {name} has numbers that are not finite"
    return None


def forward(trunk: Trunk, params: Params, x: Tensor, embedding: Tensor) -> Tensor:
    """Return labels of shape (T, n) of architectures `x` on devices `embedding` (T, 10).

    The embedding has no influence where the weights are those of a network without it.
    """
    # The contribution of the device to the first layer is the same for all n architectures.
    offset = params["head1.bias"][:, None]
    if "head1.device" in params:
        device = relu_affine(params, "device2", relu_affine(params, "device1", embedding[:, None]))
        offset = torch.baddbmm(offset, device, params["head1.device"])
    hidden = torch.baddbmm(offset, trunk(params, x), params["head1.arch"]).relu_()
    return affine(params, "head3", relu_affine(params, "head2", hidden))[..., 0]


def posterior(inference: Params, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of z, each (T, 603), for embeddings (T, 10)."""
    hidden = F.relu(embedding @ inference["inference1.weight"] + inference["inference1.bias"])
    mean, deviation = (hidden @ inference["inference2.weight"] + inference["inference2.bias"]).chunk(2, dim=1)
    return mean, F.softplus(deviation)


def kl(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, deviation^2), each (T, Z), from N(0, 1): shape (T,)."""
    return (0.5 * (mean**2 + deviation**2 - 1) - deviation.log()).sum(dim=1)


def modulated(weights: Params, z: Tensor | None, tasks: int) -> Params:
    """Return weights for each of T tasks, modulated by `z` (T, 603), or all the same where z is None.

    They are W (1 + 0.01 z) over inputs and b + 0.01 z in the head, else shared.
    """
    params = {name: value.expand(tasks, *value.shape) for name, value in weights.items()}
    if z is None:
        return params
    factors = 1 + Z_SCALE * z[:, : LAYERS * HEAD, None]
    offsets = Z_SCALE * z[:, LAYERS * HEAD :, None]
    inputs = {
        "head1.arch": slice(0, HIDDEN),
        "head1.device": slice(HIDDEN, HEAD),
        "head2.weight": slice(HEAD, 2 * HEAD),
        "head3.weight": slice(2 * HEAD, 3 * HEAD),
    }
    for name, part in inputs.items():
        params[name] = weights[name] * factors[:, part]
    for layer in range(LAYERS):
        name = f"head{layer + 1}.bias"
        params[name] = weights[name] + offsets[:, layer]
    return params
