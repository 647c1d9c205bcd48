"""NASFLAT's network: graph layers gated by the operation of a node and the device on which it runs.

A first, small graph network reads the cell; its output node describes the surroundings of the operations. With it each
node's embedding, 40 numbers of the operation and 8 of the device, is refined to 48 numbers. The refined embeddings gate
the layers of the main graph network. An MLP reads the average of its nodes, together with an embedding of scores of the
whole architecture. Each graph layer is the mean of a dense graph flow and a graph attention layer (sections 5.1 and
5.2; the layers are those of FLAN, Akhauri and Abdelfattah, Encodings for Prediction-based Neural Architecture Search,
ICML 2024).

The mathematics is the authors', the order of computation is not. The only property of a node is whether it is the
input, so the first layer's sums are the same for all architectures with the same graph. The gates of the first network
depend on (operation, device) only and are looked up in a table. Of its last layer only the output node is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.bases.fine_tuning import mlp

__all__ = ["Graphs", "Network"]

OPERATION, DEVICE = 40, 8
EMBEDDING = OPERATION + DEVICE
NODE, HIDDEN, WIDTH, COSTS, HEAD = 24, 96, 128, 48, 200
DROPOUT = 0.1


@dataclass(frozen=True, slots=True)
class Graphs:
    """n graphs of v nodes, of which the first is the input and the last the output.

    `operation` (n, v) are indices. `into` (n, v, v), or (1, v, v) where all graphs have the same edges, is 1 where an
    edge leads into the row's node from the column's. `absent` (n, v) marks nodes that a graph does not have; it is None
    if all graphs have all nodes. `costs` (n, c) are scores of whole architectures.
    """

    operation: Tensor
    into: Tensor
    absent: Tensor | None
    costs: Tensor

    def __len__(self) -> int:
        return len(self.operation)

    def __getitem__(self, rows: Tensor) -> Graphs:
        into = self.into if len(self.into) == 1 else self.into[rows]
        absent = None if self.absent is None else self.absent[rows]
        return Graphs(self.operation[rows], into, absent, self.costs[rows])


class GraphLayer(nn.Module):
    """The mean of a dense graph flow and a graph attention layer, (n, v, inputs) -> (n, v, WIDTH).

    Flow:       s(G e) * (A x W) + x W + b
    Attention:  norm(s(G' e) * (P x W')),  P_ij = softmax_j(A_ij leaky(a . (W' x_i * W' x_j)))

    with e the embeddings of the nodes' operations and A the edges into each node. As in the authors' code, a node
    without an edge to i keeps the weight exp(0) in P_i; absent nodes have weight 0.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.flow = nn.Linear(inputs, WIDTH, bias=False)
        self.value = nn.Linear(inputs, WIDTH, bias=False)
        self.flow_gate = nn.Linear(EMBEDDING, WIDTH)
        self.value_gate = nn.Linear(EMBEDDING, WIDTH)
        self.attend = nn.Parameter(torch.empty(WIDTH))
        self.bias = nn.Parameter(torch.empty(WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        for parameter in (self.flow.weight, self.attend, self.bias):
            nn.init.uniform_(parameter, -(WIDTH**-0.5), WIDTH**-0.5)

    def gates(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gates of flow and attention for `embedding` (..., EMBEDDING), each (..., WIDTH)."""
        return torch.sigmoid(self.flow_gate(embedding)), torch.sigmoid(self.value_gate(embedding))

    def forward(
        self,
        x: Tensor,
        into: Tensor,
        gates: tuple[Tensor, Tensor],
        absent: Tensor | None,
        nodes: Tensor | slice = slice(None),
    ) -> Tensor:
        """Return the layer's output at the nodes `nodes`, whose gates are `gates`.

        A first dimension of size 1 stands for graphs that are all the same.
        """
        flow, value = self.flow(x), self.value(x)
        into = into[:, nodes]
        weights = _softmax((value[:, nodes] * self.attend) @ value.mT, into, absent)
        return self._mean(gates, into @ flow, flow[:, nodes], weights @ value)

    def at_output(self, x: Tensor, into: Tensor, gates: tuple[Tensor, Tensor], absent: Tensor | None) -> Tensor:
        """Return `forward` at the last node only, (n, 1, WIDTH), for a v-th of the work."""
        own, into = x[:, -1:], into[:, -1:]
        query = (self.value(own) * self.attend) @ self.value.weight
        weights = _softmax(query @ x.mT, into, absent)
        return self._mean(gates, self.flow(into @ x), self.flow(own), self.value(weights @ x))

    def _mean(self, gates: tuple[Tensor, Tensor], received: Tensor, own: Tensor, attended: Tensor) -> Tensor:
        # Both halves end in a bias per channel. Their sum is added once, where the normalisation adds its own bias.
        bias = self.norm.bias + self.bias
        attention = F.layer_norm(gates[1] * attended, (WIDTH,), self.norm.weight, bias)
        return 0.5 * (torch.addcmul(own, gates[0], received) + attention)


def _softmax(logits: Tensor, into: Tensor, absent: Tensor | None) -> Tensor:
    logits = F.leaky_relu(logits) * into
    if absent is not None:
        logits = logits.masked_fill(absent[:, None, :], -torch.inf)
    return logits.softmax(dim=-1)


class Network(nn.Module):
    """The network: it gives scores (n,) of n graphs, each on the device of an index (n,)."""

    def __init__(self, operations: int, costs: int, devices: int) -> None:
        super().__init__()
        self.operations = nn.Embedding(operations, OPERATION)
        self.devices = nn.Embedding(devices, DEVICE)
        self.input_node = nn.Parameter(torch.randn(NODE))
        self.other_node = nn.Parameter(torch.zeros(NODE))
        self.node = nn.Linear(NODE, HIDDEN)
        self.first, self.last = GraphLayer(HIDDEN), GraphLayer(WIDTH)
        self.main = nn.ModuleList(GraphLayer(width) for width in (HIDDEN, WIDTH, WIDTH))
        self.surroundings = nn.Sequential(mlp(WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
        self.refine_own = nn.Linear(EMBEDDING, WIDTH)
        self.refine_surroundings = nn.Linear(WIDTH, WIDTH, bias=False)
        self.refined = nn.Linear(WIDTH, EMBEDDING)
        self.costs = nn.Sequential(_dropout_mlp(costs, WIDTH, WIDTH), nn.Linear(WIDTH, COSTS))
        self.head = nn.Sequential(_dropout_mlp(WIDTH + COSTS, HEAD, HEAD, HEAD), nn.Linear(HEAD, 1))

    def forward(self, graphs: Graphs, device: Tensor) -> Tensor:
        into, absent = graphs.into, graphs.absent
        nodes = into.shape[-1]
        x = self.node(torch.stack((self.input_node, *[self.other_node] * (nodes - 1))))[None]

        # `table` has all (operation, device) embeddings, and `own` the row of each node.
        devices = len(self.devices.weight)
        operation = self.operations.weight[:, None].expand(-1, devices, -1)
        table = torch.cat([operation, self.devices.weight.expand(len(operation), -1, -1)], dim=2).flatten(0, 1)
        own = graphs.operation * devices + device[:, None]
        if len(into) == 1 and absent is None:
            # The first layer depends on operation, device and kind of node: fewer cases than nodes in a batch.
            kinds, kind = _kinds(into[0])
            flow_gate, value_gate = self.first.gates(table)
            y = F.relu(self.first(x, into, (flow_gate[:, None], value_gate[:, None]), None, kinds))
            y = F.embedding(own * len(kinds) + kind, y.flatten(0, 1))
        else:
            y = F.relu(self.first(x, into, _look_up(self.first.gates(table), own), absent))
        y = self.last.at_output(y, into, _look_up(self.last.gates(table), own[:, -1:]), absent)

        around = self.refine_surroundings(self.surroundings(y))
        embedding = self.refined(F.relu(F.embedding(own, self.refine_own(table)) + around))
        for number, layer in enumerate(self.main):
            assert isinstance(layer, GraphLayer)
            x = layer(F.relu(x) if number else x, into, layer.gates(embedding), absent)
        x = x[:, 1:]
        if absent is None:
            mean = x.mean(dim=1)
        else:
            present = (~absent[:, 1:, None]).to(x.dtype)
            mean = (x * present).sum(dim=1) / present.sum(dim=1)
        scores: Tensor = self.head(torch.cat([mean, self.costs(graphs.costs)], dim=1))[:, 0]
        return scores


def _dropout_mlp(*widths: int) -> nn.Sequential:
    """Return `mlp` with dropout after each layer."""
    return nn.Sequential(*(nn.Sequential(mlp(*pair), nn.Dropout(DROPOUT)) for pair in pairwise(widths)))


def _kinds(into: Tensor) -> tuple[Tensor, Tensor]:
    """Return one node of each kind that the first layer can distinguish, and the kind of every node (v,).

    The first layer depends on whether a node is the input, and on the numbers of its edges from the input and from
    other nodes.
    """
    is_input = torch.zeros(len(into))
    is_input[0] = 1
    keys = torch.stack([is_input, into[:, 0], into[:, 1:].sum(dim=1)], dim=1)
    same = (keys[:, None] == keys).all(dim=2)
    first = same.to(torch.int8).argmax(dim=1)
    nodes, kind = torch.unique(first, return_inverse=True)
    return nodes, kind


def _look_up(gates: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    return F.embedding(rows, gates[0]), F.embedding(rows, gates[1])
