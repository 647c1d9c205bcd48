"""HELP's network, which reads an architecture and the embedding of a device and gives a label.

All functions take T tasks at once. A task is a device (or one sample of z), and every task has its own weights: tensors
of shape (T, in, out), so that a layer is one batched matrix product for all tasks. Weights that are still common to all
tasks are expanded views, not copies.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latlab.predictors.base import IntArray
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.nasbench201.cell import EDGES

__all__ = ["EMBEDDING", "Meta", "Params", "Trunk", "forward", "initial", "kl", "modulated", "posterior", "trunk_of"]

Params = dict[str, Tensor]

EMBEDDING = 10
"""Number of reference architectures, whose latencies embed a device."""
HIDDEN = 100
HEAD = 2 * HIDDEN
LAYERS = 3
"""Number of layers of the head: 200 -> 200 -> 200 -> 1."""
Z = LAYERS * (HEAD + 1)
"""Length of z: a factor for each input of each layer of the head, and an offset for each layer."""
Z_SCALE = 0.01
INFERENCE = 10
GCN_LAYERS = 4
GCN_START = 0.05
RATE = 1e-3
"""Initial value of each learned rate of the inner loop."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The result of meta-training: initial weights, a rate for each of them, and the weights of the network for z."""

    weights: Params
    rates: Params
    inference: Params

    def tensors(self) -> list[Tensor]:
        """Return all tensors, for the optimiser."""
        return [value for params in (self.weights, self.rates, self.inference) for value in params.values()]

    def copy(self) -> Meta:
        """Return a detached copy with its own memory."""
        parts = (self.weights, self.rates, self.inference)
        return Meta(*({name: value.detach().clone() for name, value in params.items()} for params in parts))


class Trunk(ABC):
    """The part of the network that reads architectures."""

    @abstractmethod
    def inputs(self, genes: IntArray) -> Tensor:
        """Return the inputs of the trunk for architectures `genes` (n, genes): float32 of shape (n, ...)."""

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Params:
        """Return new weights, without the dimension of tasks."""

    @abstractmethod
    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Return the embeddings (T, n, HIDDEN) of architectures with inputs `x`.

        Args:
            params: weights of T tasks.
            x: (T, n, ...), or (1, n, ...) if all tasks read the same architectures.
        """


class MLPTrunk(Trunk):
    """Layers d -> 100 -> 100 on a vector per architecture.

    The vector is HELP's own (132 numbers for FBNet, 145 for OFA) where the space has it, and else all choices as
    one-hot codes.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._encoding = "help" if "help" in space.encodings else "one-hot"
        self._width = self.inputs(space.genes(space.sample(1))).shape[1]

    def inputs(self, genes: IntArray) -> Tensor:
        return torch.from_numpy(self._space.encode(genes, self._encoding))

    def initial(self, generator: torch.Generator) -> Params:
        return {**_linear("arch1", self._width, HIDDEN, generator), **_linear("arch2", HIDDEN, HIDDEN, generator)}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return _relu_affine(params, "arch2", _relu_affine(params, "arch1", x))


class GCNTrunk(Trunk):
    """Four graph convolutions 8 -> 100 -> 100 -> 100 -> 100 on cells of NAS-Bench-201, read at a global node.

    The nodes are those of the space's `graph` encoding (input, six operations, output) and the global node, to which
    all others lead. A layer is relu((A^T + I) H W + b): every node adds its predecessors to itself. The last layer is
    computed at the global node only.

    A node with few ancestors is the same in many cells, so such nodes are computed once per task and shared: the input
    (1 row), an operation on the input (5, whichever edge), an operation on the output of one of these (25). Each
    architecture has three further nodes of its own: the edge 2 -> 3, into which two edges lead, the output and the
    global node. Each of these three receives some of the shared nodes, and all own nodes before it.
    """

    OPS = 5
    SHARED = 1 + OPS + OPS**2
    OWN = 3
    FEATURES = OPS + 3
    """Number of kinds of node: input, five operations, output, global."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        features = torch.zeros(self.SHARED, self.FEATURES)
        arrivals = torch.eye(self.SHARED)
        features[0, 0] = 1
        for op in range(self.OPS):
            first = self._on_input(op)
            features[first, 1 + op] = 1
            arrivals[first, 0] = 1
            for previous in range(self.OPS):
                second = self._on_edge(op, previous)
                features[second, 1 + op] = 1
                arrivals[second, self._on_input(previous)] = 1
        self._order = torch.ones(self.OWN, self.OWN).tril()
        self._shared_features, self._shared_arrivals = features, arrivals
        self._shared_inputs = arrivals @ features

    def _on_input(self, op: Any) -> Any:
        """Return the row of operation `op` on the cell's input."""
        return 1 + op

    def _on_edge(self, op: Any, previous: Any) -> Any:
        """Return the row of operation `op` on the output of operation `previous`, which is on the cell's input."""
        return 1 + self.OPS + self.OPS * op + previous

    def inputs(self, genes: IntArray) -> Tensor:
        """Return, for each own node, how often each shared node leads into it, and its first inputs: (n, 3, 31 + 8)."""
        by_edge = dict(zip(EDGES, torch.tensor(genes).T, strict=True))
        to_1, to_2, to_3 = (self._on_input(by_edge[node, 0]) for node in (1, 2, 3))
        between = self._on_edge(by_edge[2, 1], by_edge[1, 0])
        last = self._on_edge(by_edge[3, 1], by_edge[1, 0])
        rows = torch.arange(len(genes))
        arrivals = torch.zeros(len(genes), self.OWN, self.SHARED)
        for own, nodes in enumerate(((to_2, between), (to_3, last), (0 * to_1, to_1, to_2, between, to_3, last))):
            for node in nodes:
                arrivals[rows, own, node] += 1
        features = torch.zeros(len(genes), self.OWN, self.FEATURES)
        features[rows, 0, 1 + by_edge[3, 2]] = 1
        features[:, 1, -2] = features[:, 2, -1] = 1
        return torch.cat([arrivals, arrivals @ self._shared_features + self._order @ features], dim=2)

    def initial(self, generator: torch.Generator) -> Params:
        params: Params = {}
        for layer in range(1, GCN_LAYERS + 1):
            shape = (self.FEATURES if layer == 1 else HIDDEN, HIDDEN)
            params[f"gcn{layer}.weight"] = _uniform(shape, GCN_START, generator)
            params[f"gcn{layer}.bias"] = _uniform((HIDDEN,), HIDDEN**-0.5, generator)
        return params

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        tasks, n = len(params["gcn1.weight"]), x.shape[1]
        # Rows are ordered node by node, so that products over shared nodes and over features have contiguous matrices.
        x = x.transpose(1, 2).reshape(len(x), self.OWN * n, -1).expand(tasks, -1, -1)
        arrivals = x[:, :, : self.SHARED].contiguous()
        shared = _relu_affine(params, "gcn1", self._shared_inputs[None])
        own = _relu_affine(params, "gcn1", x[:, :, self.SHARED :].contiguous())
        for layer in range(2, GCN_LAYERS):
            before = (self._order @ own.view(tasks, self.OWN, -1)).view(tasks, self.OWN * n, HIDDEN)
            own = _relu_affine(params, f"gcn{layer}", torch.baddbmm(before, arrivals, shared))
            shared = _relu_affine(params, f"gcn{layer}", self._shared_arrivals @ shared)
        every = own.view(tasks, self.OWN, n, HIDDEN).sum(dim=1)
        return _relu_affine(params, f"gcn{GCN_LAYERS}", torch.baddbmm(every, arrivals[:, -n:], shared))


def trunk_of(space: SearchSpace) -> Trunk:
    """Return the trunk for a space, as in the paper: graph convolutions for NAS-Bench-201, else linear layers."""
    return GCNTrunk(space) if space.name == "nasbench201" else MLPTrunk(space)


def initial(trunk: Trunk, generator: torch.Generator) -> Meta:
    """Return new weights; those of the head's first layer are in two halves, for the architecture and the device."""
    weights = {
        **trunk.initial(generator),
        **_linear("device1", EMBEDDING, HIDDEN, generator),
        **_linear("device2", HIDDEN, HIDDEN, generator),
        **_linear("head1", HEAD, HEAD, generator),
        **_linear("head2", HEAD, HEAD, generator),
        **_linear("head3", HEAD, 1, generator),
    }
    whole = weights.pop("head1.weight")
    weights["head1.arch"], weights["head1.device"] = whole[:HIDDEN].clone(), whole[HIDDEN:].clone()
    rates = {name: torch.full_like(value, RATE) for name, value in weights.items()}
    inference = {
        **_linear("inference1", EMBEDDING, INFERENCE, generator),
        **_linear("inference2", INFERENCE, 2 * Z, generator),
    }
    return Meta(weights, rates, inference)


def forward(trunk: Trunk, params: Params, x: Tensor, embedding: Tensor) -> Tensor:
    """Return labels of shape (T, n) of architectures `x` on devices `embedding` (T, 10)."""
    device = _relu_affine(params, "device2", _relu_affine(params, "device1", embedding[:, None]))
    # The contribution of the device to the first layer is the same for all n architectures.
    offset = torch.baddbmm(params["head1.bias"][:, None], device, params["head1.device"])
    hidden = torch.baddbmm(offset, trunk(params, x), params["head1.arch"]).relu_()
    return _affine(params, "head3", _relu_affine(params, "head2", hidden))[..., 0]


def posterior(inference: Params, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of z, each (T, 603), for embeddings (T, 10)."""
    hidden = F.relu(embedding @ inference["inference1.weight"] + inference["inference1.bias"])
    mean, deviation = (hidden @ inference["inference2.weight"] + inference["inference2.bias"]).chunk(2, dim=1)
    return mean, F.softplus(deviation)


def kl(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, deviation^2), each (T, Z), from N(0, 1): shape (T,)."""
    return (0.5 * (mean**2 + deviation**2 - 1) - deviation.log()).sum(dim=1)


def modulated(weights: Params, z: Tensor) -> Params:
    """Return weights per task for `z` (T, 603): W (1 + 0.01 z) over inputs and b + 0.01 z in the head, else shared."""
    factors = 1 + Z_SCALE * z[:, : LAYERS * HEAD, None]
    offsets = Z_SCALE * z[:, LAYERS * HEAD :, None]
    params = {name: value.expand(len(z), *value.shape) for name, value in weights.items()}
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


def _affine(params: Params, name: str, x: Tensor) -> Tensor:
    """Return x W + b: (T or 1, n, in) -> (T, n, out)."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return torch.baddbmm(bias[:, None], x.expand(len(weight), -1, -1), weight)


def _relu_affine(params: Params, name: str, x: Tensor) -> Tensor:
    return _affine(params, name, x).relu_()


def _uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-limit, limit, generator=generator)


def _linear(name: str, inputs: int, outputs: int, generator: torch.Generator) -> Params:
    """Return the weights of a linear layer, drawn as PyTorch draws them."""
    limit = 1 / math.sqrt(inputs)
    return {
        f"{name}.weight": _uniform((inputs, outputs), limit, generator),
        f"{name}.bias": _uniform((outputs,), limit, generator),
    }
