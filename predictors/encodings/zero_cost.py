"""Thirteen zero-cost proxies: scores of an untrained network from one batch of images.

The formulas are those of zero-cost-nas (Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021) and of
NAS-Bench-Suite-Zero (Krishnakumar et al., NeurIPS 2022), and so are the details that decide ranks: networks are in
training mode, so that batch norms use the batch's own statistics; only the weights of convolutions and linear layers
count, their biases and batch norms do not; sums run over all of these weights.

The published codes initialise and run the network anew for each proxy. Here proxies share passes. With the weights w,
one forward pass gives `nwot` and the loss; its backward pass gives `grad_norm`, `snip`, `plain` and `fisher`; a second
derivative gives `grasp`; a backward pass of the summed outputs gives `jacov` and `epe_nas`. `synflow` needs a pass of
its own over one image of ones, `zen` two forward passes with other weights.

Values depend on the weights (`Weights`), the batch and its size. Compare networks of one batch and one seed only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.base import FloatArray
from latlab.predictors.encodings.names import PROXIES, check_proxies
from latlab.search_spaces import Architecture, Layer, SearchSpace

__all__ = ["Batch", "Weights", "random_batch", "weights_of", "zero_cost_proxies"]

BATCH = 16
"""Images of a batch, as in nasflat_latency's table. Time grows with it."""
SMALL = 1e-5
"""What `jacov` and `epe_nas` add to numbers before they take logarithms."""
MIX = 1e-2
"""Weight of the second image in the mixture of `zen`."""
BATCH_NORM_MOMENTUM = 0.1
"""PyTorch's momentum of batch norms: `zen` reads their running variances after two passes."""
CONVOLUTIONS = ("conv", "pointwise", "grouped", "depthwise")
ACTIVATIONS = ("relu", "hswish", "hsigmoid", "sigmoid", "gelu")
MANY_CLASSES = 100
"""Above so many classes `epe_nas` compares the classes instead of adding them up."""


class Weights(StrEnum):
    """Ways to draw the weights of a network."""

    TORCH = "torch"
    """PyTorch's own: uniform with bound 1 / sqrt(fan-in). NAS-Bench-Suite-Zero and zero-cost-nas keep them."""
    FAN_OUT = "fan-out"
    """He's normal by fan-out, and a classifier of standard deviation 0.001: nasflat_latency's FBNet, OFA's networks."""


def weights_of(space: SearchSpace) -> Weights:
    """Return the weights that published proxies of a space were computed with; PyTorch's for other spaces."""
    return Weights.FAN_OUT if space.name.startswith(("fbnet", "ofa", "compofa")) else Weights.TORCH


@dataclass(frozen=True)
class Batch:
    """Images, of shape (n, channels, height, width), and their labels, int64 of shape (n,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim < 2 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"a batch is n images and n labels, not {tuple(self.images.shape)} and {tuple(self.labels.shape)}"
            )
        if len(self.labels) < 2:
            raise ValueError("proxies compare the images of a batch, so it has at least two")


def random_batch(space: SearchSpace, arch: Architecture, *, seed: int = 0, size: int = BATCH) -> Batch:
    """Return standard normal images in the shape that `arch` takes, and random labels.

    Architectures that take the same shape get the same batch for the same seed.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(max(space.num_classes, 2), (size,), generator=generator)
    images = torch.randn((size, *space.input_shape(arch)), generator=generator)
    return Batch(images, labels)


def zero_cost_proxies(
    space: SearchSpace,
    arch: Architecture,
    *,
    batch: Batch | None = None,
    seed: int = 0,
    weights: Weights | None = None,
) -> dict[str, float]:
    """Return the thirteen proxies of an architecture by name, in the order of `PROXIES`.

    Args:
        batch: images and labels; default: `random_batch` of the seed.
        seed: seed of the weights and of the default batch.
        weights: how weights are drawn; default: `weights_of` the space.

    Returns:
        Numbers. A proxy that does not exist for a network is NaN: `jacov` and `epe_nas` of one whose output does not
        depend on its input.

    Raises:
        ValueError: the space has no proxies (`check_proxies`), or the batch does not fit the network.
    """
    check_proxies(space)
    batch = batch or random_batch(space, arch, seed=seed)
    shape = space.input_shape(arch)
    if tuple(batch.images.shape[1:]) != tuple(shape):
        raise ValueError(f"{arch} takes images of shape {shape}, not {tuple(batch.images.shape[1:])}")
    network = space.build(arch, as_written=True)
    classes = space.num_classes
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        _draw(network, weights or weights_of(space))
        found = _of_loss(network, batch, classes)
        found["l2_norm"] = float(sum(layer.weight.detach().norm() for layer in _layers(network)))
        found["synflow"] = _synflow(network, shape)
        found["zen"] = _zen(network, batch.images.shape)
    layers = space.layers(arch)
    found |= {"flops": float(_flops(space, layers)), "params": float(sum(layer.params for layer in layers))}
    return {name: found[name] for name in PROXIES}


def _flops(space: SearchSpace, layers: Sequence[Layer]) -> int:
    """Return the FLOPs of a network as torchstat counts them, and after it tensorwatch and flopth.

    Multiply-accumulates count once, an element of a batch norm twice, one of an activation or of a pooling's input
    once; additions are free. The two ReLUs of a block of FBNet are one module in the published network, which such
    counters count once.
    """
    shared = ".expand.relu" if space.name.startswith("fbnet") else None
    found = 0
    for layer in layers:
        found += layer.macs
        if layer.kind in CONVOLUTIONS:
            weights = layer.out_channels * (layer.in_channels // layer.groups) * layer.kernel**2
            found += 2 * layer.activations * (layer.params - weights >= 2 * layer.out_channels)
        elif layer.kind == "batchnorm":
            found += 2 * layer.activations
        elif layer.kind in ("pool", "mean"):
            found += layer.in_elements
        elif layer.kind in ACTIVATIONS and not (shared and layer.name.endswith(shared)):
            found += layer.activations
    return found


def _draw(network: nn.Module, weights: Weights) -> None:
    """Draw weights, reset batch norms, and set the network to training mode."""
    network.requires_grad_(True).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BATCH_NORM_MOMENTUM
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
            if weights is Weights.FAN_OUT:
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out")
                else:
                    nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """Return the layers whose weights count."""
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _of_loss(network: nn.Module, batch: Batch, classes: int) -> dict[str, float]:
    """Return the proxies that come from the loss L of the batch and from the network's outputs.

    With the gradient g of L in the weights w, and H the Hessian:
    `grad_norm`: sum over layers of ||g||.
    `snip`: sum of |w g| (Lee et al., SNIP, ICLR 2019).
    `plain`: sum of w g.
    `fisher`: sum over channels of 1/2 mean over images of (sum over pixels of a dL/da)^2 with a the channel of a
    layer's output, times the number of weights of a channel (Theis et al., 2018; Turner et al., BlockSwap, ICLR 2020).
    `grasp`: sum of -w H g (Wang et al., GraSP, ICLR 2020), with zero-cost-nas's sign.
    """
    layers = _layers(network)
    weights = [layer.weight for layer in layers]
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for layer in layers]
    order: list[nn.Module] = []
    hooks += [layer.register_forward_hook(lambda module, inputs, output: order.append(module)) for layer in layers]
    kernel = _ReluKernel(network, len(batch.labels))
    images = batch.images.clone().requires_grad_(True)
    result = network(images).flatten(1)
    for hook in (*hooks, *kernel.hooks):
        hook.remove()
    loss = F.cross_entropy(result, batch.labels % result.shape[1])
    found = torch.autograd.grad(loss, [*weights, *outputs], create_graph=True, allow_unused=True)
    gradients, of_outputs = found[: len(weights)], found[len(weights) :]
    known = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    fisher = 0.0
    for layer, output, gradient in zip(order, outputs, of_outputs, strict=True):
        if gradient is not None:
            fisher += _fisher(layer, output.detach(), gradient.detach())
    values = {
        "grad_norm": float(sum(g.detach().norm() for _, g in known)),
        "snip": float(sum((w.detach() * g.detach()).abs().sum() for w, g in known)),
        "plain": float(sum((w.detach() * g.detach()).sum() for w, g in known)),
        "fisher": fisher,
        "nwot": kernel.log_determinant(),
    }
    product = torch.stack([(g.detach() * g).sum() for _, g in known]).sum()
    curved = torch.autograd.grad(product, weights, allow_unused=True, retain_graph=True)
    values["grasp"] = float(sum(-(w.detach() * h).sum() for w, h in zip(weights, curved, strict=True) if h is not None))
    (jacobian,) = torch.autograd.grad(result.sum(), images, allow_unused=True)
    rows = np.zeros((len(images), 1)) if jacobian is None else jacobian.flatten(1).double().numpy()
    return values | {"jacov": _jacov(rows), "epe_nas": _epe_nas(rows, batch.labels.numpy(), classes)}


def _fisher(layer: nn.Module, output: Tensor, gradient: Tensor) -> float:
    product = output * gradient
    if isinstance(layer, nn.Conv2d):
        product = product.flatten(2).sum(dim=2)
    channels = product.flatten(0, -2).pow(2).mean(dim=0) / 2
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return float(channels.sum()) * layer.weight[0].numel()


class _ReluKernel:
    """`nwot`: log-determinant of a kernel that counts, for two images, the ReLUs that both switch alike.

    Mellor et al., Neural Architecture Search without Training, ICML 2021. The published code looks at ReLU modules.
    Networks of OFA have mostly h-swish, of which those modules count, too: an input above 0 is on.
    """

    def __init__(self, network: nn.Module, images: int) -> None:
        self.kernel = np.zeros((images, images))
        self.hooks = [
            module.register_forward_pre_hook(self._count)
            for module in network.modules()
            if "ReLU" in type(module).__name__ or type(module).__name__.lower() == "hardswish"
        ]

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        on = (inputs[0].detach().flatten(1) > 0).float()
        off = 1 - on
        self.kernel += (on @ on.T + off @ off.T).double().numpy()

    def log_determinant(self) -> float:
        """Return log |det K|; minus infinity, which is what a singular kernel has, becomes NaN."""
        value = float(np.linalg.slogdet(self.kernel)[1])
        return value if math.isfinite(value) else math.nan


def _jacov(jacobian: FloatArray) -> float:
    """Return -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlations of the images' Jacobians.

    Mellor et al., Neural Architecture Search without Training, first version (2020), in NAS-Bench-Suite-Zero's form.

    Args:
        jacobian: derivatives of the sum of an image's outputs by its pixels, shape (n, pixels).
    """
    correlation = _correlations(jacobian)
    if correlation is None:
        return math.nan
    v = np.linalg.eigvalsh(correlation) + SMALL
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(-np.sum(np.log(v) + 1 / v))
    return value if math.isfinite(value) else math.nan


def _epe_nas(jacobian: FloatArray, labels: np.ndarray, classes: int) -> float:
    """Return the sum over classes of |s|, s the sum of log(|r| + k) over the correlations r of images of one class.

    Lopes et al., EPE-NAS, ICANN 2021. For more than 100 classes s is divided by the images of the class, and the mean
    over classes of the sum of differences |s - s'| is returned.
    """
    scores = []
    for label in np.unique(labels):
        own = jacobian[labels == label]
        correlation = _correlations(own)
        if correlation is None:
            return math.nan
        score = float(np.sum(np.log(np.abs(correlation) + SMALL)))
        scores.append(score / len(own) if classes > MANY_CLASSES else score)
    s = np.array(scores)
    if classes > MANY_CLASSES:
        return float(np.abs(s[:, None] - s[None, :]).sum() / len(s))
    return float(np.abs(s).sum())


def _correlations(rows: FloatArray) -> FloatArray | None:
    """Return the correlations of n rows, shape (n, n); None where a row is constant or not finite."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    if not (np.isfinite(norm).all() and (norm > 0).all()):
        return None
    unit = centred / norm
    return np.asarray(unit @ unit.T)


def _synflow(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the sum of |w dR/dw|, R the sum of the outputs for an image of ones if all weights were positive.

    Tanaka et al., Pruning neural networks without any data, NeurIPS 2020. Without batch norms, in double precision.
    The network keeps the absolute values of its weights.
    """
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    weights = [layer.weight for layer in _layers(network)]
    with _without_batch_norms(network):
        outputs = network(torch.ones((1, *shape), dtype=torch.float64))
        gradients = torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
    value = float(sum((w.detach() * g).abs().sum() for w, g in zip(weights, gradients, strict=True) if g is not None))
    network.float()
    return value if math.isfinite(value) else math.nan


@contextmanager
def _without_batch_norms(network: nn.Module) -> Iterator[None]:
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.forward = lambda x: x  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


@torch.no_grad()
def _zen(network: nn.Module, shape: torch.Size) -> float:
    """Return log of the mean over images of ||f(x) - f(x + 0.01 x')||_1, plus log sqrt(mean variance) per batch norm.

    f is the feature map before the global mean, x and x' are normal, and so are the weights. Lin et al., Zen-NAS, ICCV
    2021. The variances are running ones after both passes, as in NAS-Bench-Suite-Zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    first, second = torch.randn(shape), torch.randn(shape)
    difference = _feature_map(network, first) - _feature_map(network, first + MIX * second)
    value = float(torch.log(difference.abs().flatten(1).sum(dim=1).mean()))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            value += float(torch.log(module.running_var.mean().sqrt()))
    return value if math.isfinite(value) else math.nan


def _feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """Return the last output of a module that still has pixels; the network's own output where none has."""
    found: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found[:] = [output]

    hooks = [module.register_forward_hook(note) for module in network.modules() if not list(module.children())]
    output = network(images)
    for hook in hooks:
        hook.remove()
    return found[0] if found else output
