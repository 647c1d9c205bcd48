"""CATE: 32 numbers per architecture from a Transformer that learned to fill in masked operations of pairs.

Yan et al., CATE: Computation-aware Neural Architecture Encoding with Transformers, ICML 2021. A graph encoder reads
each architecture of a pair; a node attends to itself and to the nodes that depend on it. A cross encoder reads both
side by side, so that what is masked in one can be read from the other. Pairs are neighbours by number of parameters.
The encoding is the graph encoder's last node, the output.

The authors' graph encoder has 12 layers and their cross encoder 24, trained on GPUs. Here they have 3 and 2, which
train on a core in a minute or two; widths, masks, pairs and loss are theirs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latlab.predictors.base import FloatArray, IntArray
from latlab.predictors.common.cost_totals import totals
from latlab.predictors.common.kept import kept
from latlab.predictors.encodings.graphs import CHUNK, Graphs, graphs_of, training_genes
from latlab.search_spaces import SearchSpace

__all__ = ["WIDTH", "cate"]

WIDTH, HEADS, FORWARD = 32, 8, 128
GRAPH_LAYERS, PAIR_LAYERS = 3, 2
DROPOUT, SMOOTHING, CORRUPTED = 0.1, 0.1, 0.2
STEPS, BATCH, RATE, DECAY = 1000, 32, 1e-3, 0.01
WARM_UP = 100
PARTNERS = 0.01
"""Share of the training architectures, sorted by parameters, among which a partner is drawn on either side. The authors
draw within 200,000 parameters on NAS-Bench-201 and 2,000,000 elsewhere, which is much of these spaces."""


class _Network(nn.Module):
    """The two encoders and the head that names masked operations. Operation 0 is an absent node, 1 a masked one."""

    def __init__(self, kinds: int, nodes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(kinds + 2, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(nodes, WIDTH))
        self.segment = nn.Embedding(2, WIDTH)
        self.graph, self.pair = _encoder(GRAPH_LAYERS), _encoder(PAIR_LAYERS)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, kinds + 2))

    def encode(self, tokens: Tensor, closed: Tensor) -> Tensor:
        """Return the nodes' vectors (n, v, 32) of operations (n, v), where `closed` (n, v, v) forbids attention."""
        x: Tensor = self.graph(self.embedding(tokens) + self.position, mask=_per_head(closed))
        return x

    def loss(self, tokens: Tensor, closed: Tensor) -> Tensor:
        """Return the cross entropy of the masked operations of pairs (b, 2, v)."""
        b = len(tokens)
        masked = (torch.rand(tokens.shape) < CORRUPTED) & (tokens > 0)
        x = self.encode(tokens.masked_fill(masked, 1).flatten(0, 1), closed.flatten(0, 1)).view(b, 2, -1, WIDTH)
        x = (x + self.segment.weight[:, None]).flatten(1, 2)
        y = self.head(self.pair(x, src_key_padding_mask=(tokens == 0).flatten(1)))
        target = torch.where(masked, tokens, -100).flatten()
        return F.cross_entropy(y.flatten(0, 1), target, label_smoothing=SMOOTHING)


def _encoder(layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, FORWARD, DROPOUT, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _per_head(closed: Tensor) -> Tensor:
    return closed.repeat_interleave(HEADS, dim=0)


def cate(space: SearchSpace, genes: IntArray, *, seed: int = 0) -> FloatArray:
    """Return the encodings of architectures `genes` (n, genes): shape (n, 32).

    The first call for a space and a seed trains the network, or reads it from the folder of kept arrays.

    Raises:
        ValueError: the space has no encoding `graph`.
    """
    network = _trained(space, seed)
    parts = [np.empty((0, WIDTH))]
    with torch.no_grad():
        for start in range(0, len(genes), CHUNK):
            tokens, closed = _tokens(graphs_of(space, genes[start : start + CHUNK]))
            parts.append(network.encode(tokens, closed)[:, -1].double().numpy())
    return np.concatenate(parts)


def _tokens(graphs: Graphs) -> tuple[Tensor, Tensor]:
    """Return operations (n, v), 0 for absent nodes, others from 2 on, and what each node may not attend to (n, v, v).

    A node attends to itself and to the nodes that it reaches, in the authors' form of the mask. So that each node has
    something to attend to, the output attends to all nodes, whose vector is the encoding.
    """
    tokens = torch.where(graphs.present > 0, graphs.operations.argmax(dim=2) + 2, 0)
    reaches = graphs.edges > 0
    for _ in range(int(np.ceil(np.log2(reaches.shape[1])))):
        reaches = reaches | ((reaches.float() @ reaches.float()) > 0)
    reaches = reaches | torch.eye(reaches.shape[1], dtype=torch.bool)
    reaches[:, -1] = graphs.present > 0
    return tokens, ~reaches


@lru_cache(maxsize=8)
def _trained(space: SearchSpace, seed: int) -> _Network:
    example = graphs_of(space, space.genes(space.sample(1)))
    _, nodes, kinds = example.operations.shape

    def train() -> dict[str, np.ndarray]:
        genes = training_genes(space, seed)
        genes = genes[np.argsort(totals(space)(genes, "params")[:, 0], kind="stable")]
        tokens, closed = _tokens(graphs_of(space, genes))
        near = max(2, round(PARTNERS * len(genes)))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = _Network(kinds, nodes).train()
            optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
            for step in range(STEPS):
                first = torch.randint(len(genes), (BATCH,))
                second = (first + torch.randint(-near, near + 1, (BATCH,))).clamp(0, len(genes) - 1)
                pairs = torch.stack([first, second], dim=1)
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min((step + 1) / WARM_UP, (STEPS - step) / (STEPS - WARM_UP))
                loss = network.loss(tokens[pairs], closed[pairs])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return {name: value.detach().numpy() for name, value in network.state_dict().items()}

    arrays = kept(f"cate/{space.name}/{seed}/{torch.__version__}", (cate, type(space)), train)
    network = _Network(kinds, nodes)
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network.eval()
