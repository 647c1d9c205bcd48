"""Arch2Vec: 32 numbers per architecture from a variational graph isomorphism auto-encoder, trained without labels.

Yan et al., Does Unsupervised Architecture Representation Learning Help Neural Architecture Search? NeurIPS 2020,
section 3. The encoder is a graph isomorphism network on the undirected graph; the decoder reads a node's operation from
its latent vector and an edge from the product of two of them. An architecture's encoding is the mean over its nodes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.kept import kept
from latlab.predictors.encodings.graphs import CHUNK, Graphs, graphs_of, training_genes
from latlab.search_spaces import SearchSpace

__all__ = ["WIDTH", "arch2vec"]

WIDTH, HIDDEN, HOPS = 32, 128, 4
"""Latent numbers, hidden numbers and graph layers: the authors' 32, 128, and 5 hops, the last of which is linear."""
STEPS, BATCH, RATE = 4000, 32, 1e-3
"""The authors train on 14,062 cells of NAS-Bench-201 for ten epochs of 32, which are 4,400 steps."""
DROPOUT, LARGEST_GRADIENT = 0.3, 5.0


class _Network(nn.Module):
    """The auto-encoder of graphs whose operations are one-hot of width `kinds`."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.own_weight = nn.Parameter(torch.zeros(HOPS))
        """Epsilon of each graph layer, which weighs a node against its neighbours."""
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))
            for width in (kinds, *[HIDDEN] * (HOPS - 1))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(HIDDEN) for _ in range(HOPS))
        self.mean, self.log_deviation = nn.Linear(HIDDEN, WIDTH), nn.Linear(HIDDEN, WIDTH)
        self.decoder = nn.Linear(WIDTH, kinds)

    def encode(self, graphs: Graphs) -> tuple[Tensor, Tensor]:
        """Return the mean and log-deviation of each node's latent vector: (n, v, 32) each."""
        undirected = graphs.edges + graphs.edges.mT
        x = graphs.operations
        for own, layer, norm in zip(self.own_weight, self.layers, self.norms, strict=True):
            x = (1 + own) * x + undirected @ x
            x = F.relu(norm(layer(x.flatten(0, 1)))).view(*graphs.operations.shape[:2], HIDDEN)
        return self.mean(x), self.log_deviation(x)

    def loss(self, graphs: Graphs) -> Tensor:
        """Return the cross entropies of operations and edges plus the authors' weight of the Kullback-Leibler term."""
        n, v, _ = graphs.operations.shape
        mean, log_deviation = self.encode(graphs)
        z = F.dropout(mean + torch.randn_like(mean) * log_deviation.exp(), DROPOUT)
        operations = F.binary_cross_entropy_with_logits(self.decoder(z), graphs.operations)
        edges = F.binary_cross_entropy_with_logits(z @ z.mT, graphs.edges + graphs.edges.mT)
        divergence = 1 + 2 * log_deviation - mean**2 - (2 * log_deviation).exp()
        total: Tensor = operations + edges - 0.5 / (n * v) * divergence.sum(dim=2).mean()
        return total


def arch2vec(space: SearchSpace, genes: IntArray, *, seed: int = 0) -> FloatArray:
    """Return the encodings of architectures `genes` (n, genes): shape (n, 32).

    The first call for a space and a seed trains the network, which takes a quarter of a minute on a core, or reads it
    from the folder of kept arrays.

    Raises:
        ValueError: the space has no encoding `graph`.
    """
    network = _trained(space, seed)
    parts = [np.empty((0, WIDTH))]
    with torch.inference_mode():
        for start in range(0, len(genes), CHUNK):
            graphs = graphs_of(space, genes[start : start + CHUNK])
            weight = (graphs.present / graphs.present.sum(dim=1, keepdim=True))[..., None]
            parts.append((network.encode(graphs)[0] * weight).sum(dim=1).double().numpy())
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def _trained(space: SearchSpace, seed: int) -> _Network:
    kinds = graphs_of(space, space.genes(space.sample(1))).operations.shape[2]

    def train() -> dict[str, np.ndarray]:
        graphs = graphs_of(space, training_genes(space, seed))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = _Network(kinds).train()
            optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
            for _ in range(STEPS):
                loss = network.loss(graphs[torch.randint(len(graphs), (BATCH,))])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
                optimizer.step()
        return {name: value.numpy() for name, value in network.state_dict().items()}

    arrays = kept(f"arch2vec/{space.name}/{seed}/{torch.__version__}", (arch2vec, type(space)), train)
    network = _Network(kinds)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network.eval()
