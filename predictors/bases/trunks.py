"""Networks that read architectures of a space for several tasks at once: the first part of HELP's and BRP-NAS's.

All functions take T tasks at once. A task is a device (or one sample of weights), and every task has its own weights:
tensors of shape (T, in, out), so that a layer is one batched matrix product for all tasks. Weights that are still
common to all tasks are expanded views, not copies.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latlab.predictors.base import IntArray
from latlab.search_spaces import SearchSpace
from latlab.search_spaces.nasbench201.cell import EDGES

__all__ = [
    "HIDDEN", "ChainGCNTrunk", "GCNTrunk", "MLPTrunk", "Params", "Trunk", "affine", "gcn_trunk_of", "linear_weights",
    "relu_affine", "trunk_of",
]  # fmt: skip

Params = dict[str, Tensor]

HIDDEN = 100
GCN_LAYERS = 4
GCN_START = 0.05


class Trunk(ABC):
    """A network that reads architectures and gives a vector of `width` numbers for each."""

    width: int

    @abstractmethod
    def inputs(self, genes: IntArray) -> Tensor:
        """Return the inputs of the trunk for architectures `genes` (n, genes): float32 of shape (n, ...)."""

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Params:
        """Return new weights, without the dimension of tasks."""

    @abstractmethod
    def __call__(self, params: Params, x: Tensor) -> Tensor:
        """Return the embeddings (T, n, width) of architectures with inputs `x`.

        Args:
            params: weights of T tasks.
            x: (T, n, ...), or (1, n, ...) if all tasks read the same architectures.
        """


class MLPTrunk(Trunk):
    """Layers d -> 100 -> 100 on a vector per architecture.

    The vector is HELP's own (132 numbers for FBNet, 145 for OFA) where the space has it, and else all choices as
    one-hot codes.
    """

    def __init__(self, space: SearchSpace, *, device: torch.device | str = "cpu") -> None:
        self.width = HIDDEN
        self._space, self._device = space, torch.device(device)
        self._encoding = "help" if "help" in space.encodings else "one-hot"
        self._columns = self.inputs(space.genes(space.sample(1))).shape[1]

    def inputs(self, genes: IntArray) -> Tensor:
        return torch.from_numpy(self._space.encode(genes, self._encoding)).to(self._device)

    def initial(self, generator: torch.Generator) -> Params:
        first = linear_weights("arch1", self._columns, HIDDEN, generator)
        return {**first, **linear_weights("arch2", HIDDEN, HIDDEN, generator)}

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return relu_affine(params, "arch2", relu_affine(params, "arch1", x))


class GCNTrunk(Trunk):
    """Four graph convolutions 8 -> width x 4 on cells of NAS-Bench-201, read at a global node.

    The nodes are those of the space's `graph` encoding (input, six operations, output) and the global node, to which
    all others lead. A layer is relu((A^T + I) H W + b): every node adds its predecessors to itself. The last layer is
    computed at the global node only.

    A node with few ancestors is the same in many cells, so such nodes are computed once per task and shared: the input
    (1 row), an operation on the input (5, whichever edge), an operation on the output of one of these (25). Each
    architecture has three further nodes of its own: the edge 2 -> 3, into which two edges lead, the output and the
    global node. Each of these three receives some of the shared nodes, and all own nodes before it.

    Args:
        width: number of channels of each layer; HELP has 100, BRP-NAS 600.
        norms: normalise each row before the rectifier, with learned factors and offsets, as BRP-NAS does.
    """

    OPS = 5
    SHARED = 1 + OPS + OPS**2
    OWN = 3
    FEATURES = OPS + 3
    """Number of kinds of node: input, five operations, output, global."""

    def __init__(
        self, space: SearchSpace, *, width: int = HIDDEN, norms: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.width, self._norms = width, norms
        self._space, self._device = space, torch.device(device)
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
        self._cpu_order = torch.ones(self.OWN, self.OWN).tril()
        self._cpu_features = features
        self._order = self._cpu_order.to(self._device)
        self._shared_arrivals = arrivals.to(self._device)
        self._shared_inputs = (arrivals @ features).to(self._device)

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
        first = arrivals @ self._cpu_features + self._cpu_order @ features
        return torch.cat([arrivals, first], dim=2).to(self._device)

    def initial(self, generator: torch.Generator) -> Params:
        return _convolution_weights(self.FEATURES, self.width, self._norms, generator)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        tasks, n = len(params["gcn1.weight"]), x.shape[1]
        # Rows are ordered node by node, so that products over shared nodes and over features have contiguous matrices.
        x = x.transpose(1, 2).reshape(len(x), self.OWN * n, -1).expand(tasks, -1, -1)
        arrivals = x[:, :, : self.SHARED].contiguous()
        shared = _convolved(params, 1, self._shared_inputs[None])
        own = _convolved(params, 1, x[:, :, self.SHARED :].contiguous())
        for layer in range(2, GCN_LAYERS):
            before = (self._order @ own.view(tasks, self.OWN, -1)).view(tasks, self.OWN * n, self.width)
            own = _convolved(params, layer, torch.baddbmm(before, arrivals, shared))
            shared = _convolved(params, layer, self._shared_arrivals @ shared)
        every = own.view(tasks, self.OWN, n, self.width).sum(dim=1)
        return _convolved(params, GCN_LAYERS, torch.baddbmm(every, arrivals[:, -n:], shared))


class ChainGCNTrunk(Trunk):
    """The same four graph convolutions on the `graph` encoding of any space, with a global node, computed as written.

    Args:
        width, norms: as of `GCNTrunk`.
    """

    def __init__(
        self, space: SearchSpace, *, width: int = HIDDEN, norms: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        if "graph" not in space.encodings:
            raise ValueError(f"graph convolutions need a space with the encoding graph, which {space.name} has not")
        self.width, self._norms = width, norms
        self._space, self._device = space, torch.device(device)
        self._nodes, columns = space.encode(space.genes(space.sample(1)), "graph").shape[1:]
        self._kinds = columns - self._nodes

    def inputs(self, genes: IntArray) -> Tensor:
        """Return the predecessors of each node with itself, and its kind: (n, v + 1, (v + 1) + (kinds + 1))."""
        graph = torch.from_numpy(self._space.encode(genes, "graph"))
        nodes = self._nodes
        into = torch.zeros(len(graph), nodes + 1, nodes + 1)
        into[:, :nodes, :nodes] = graph[:, :, :nodes].mT
        kinds = torch.zeros(len(graph), nodes + 1, self._kinds + 1)
        kinds[:, :nodes, :-1] = graph[:, :, nodes:]
        present = kinds.any(dim=2)
        into[:, nodes, :nodes] = present[:, :nodes].float()
        kinds[:, nodes, -1] = 1
        into.diagonal(dim1=1, dim2=2).fill_(1)
        return torch.cat([into, kinds], dim=2).to(self._device)

    def initial(self, generator: torch.Generator) -> Params:
        return _convolution_weights(self._kinds + 1, self.width, self._norms, generator)

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        tasks, n, nodes = len(params["gcn1.weight"]), x.shape[1], self._nodes + 1
        x = x.expand(tasks, -1, -1, -1)
        into, hidden = x[..., :nodes], x[..., nodes:]
        for layer in range(1, GCN_LAYERS):
            summed = (into @ hidden).reshape(tasks, n * nodes, -1)
            hidden = _convolved(params, layer, summed).view(tasks, n, nodes, self.width)
        return _convolved(params, GCN_LAYERS, (into[:, :, -1:] @ hidden)[:, :, 0])


def gcn_trunk_of(
    space: SearchSpace, *, width: int, norms: bool, device: torch.device | str = "cpu"
) -> GCNTrunk | ChainGCNTrunk:
    """Return graph convolutions for a space.

    Raises:
        ValueError: the space has no graphs.
    """
    kind = GCNTrunk if space.name == "nasbench201" else ChainGCNTrunk
    return kind(space, width=width, norms=norms, device=device)


def trunk_of(space: SearchSpace, device: torch.device | str = "cpu") -> Trunk:
    """Return the trunk for a space, as in HELP: graph convolutions for NAS-Bench-201, else linear layers."""
    return GCNTrunk(space, device=device) if space.name == "nasbench201" else MLPTrunk(space, device=device)


def _convolution_weights(features: int, width: int, norms: bool, generator: torch.Generator) -> Params:
    params: Params = {}
    for layer in range(1, GCN_LAYERS + 1):
        shape = (features if layer == 1 else width, width)
        limit = 1 / math.sqrt(shape[0]) if norms else GCN_START
        params[f"gcn{layer}.weight"] = uniform_weights(shape, limit, generator)
        params[f"gcn{layer}.bias"] = uniform_weights((width,), width**-0.5, generator)
        if norms:
            params[f"norm{layer}.weight"] = torch.ones(width, device=generator.device)
            params[f"norm{layer}.bias"] = torch.zeros(width, device=generator.device)
    return params


def _convolved(params: Params, layer: int, summed: Tensor) -> Tensor:
    """Return the output of a convolution, given the sums (T or 1, rows, channels) over what leads into each row."""
    if f"norm{layer}.weight" not in params:
        return relu_affine(params, f"gcn{layer}", summed)
    rows = F.layer_norm(affine(params, f"gcn{layer}", summed), params[f"gcn{layer}.bias"].shape[-1:])
    rows = rows * params[f"norm{layer}.weight"][:, None] + params[f"norm{layer}.bias"][:, None]
    return rows.relu()


def affine(params: Params, name: str, x: Tensor) -> Tensor:
    """Return x W + b: (T or 1, n, in) -> (T, n, out)."""
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return torch.baddbmm(bias[:, None], x.expand(len(weight), -1, -1), weight)


def relu_affine(params: Params, name: str, x: Tensor) -> Tensor:
    return affine(params, name, x).relu_()


def uniform_weights(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape, device=generator.device).uniform_(-limit, limit, generator=generator)


def linear_weights(name: str, inputs: int, outputs: int, generator: torch.Generator) -> Params:
    """Return the weights of a linear layer, drawn as PyTorch draws them."""
    limit = 1 / math.sqrt(inputs)
    return {
        f"{name}.weight": uniform_weights((inputs, outputs), limit, generator),
        f"{name}.bias": uniform_weights((outputs,), limit, generator),
    }
