"""The predictor `nasflat`: the inputs of its network, its loss and its schedules."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from latlab.predictors.base import IntArray
from latlab.predictors.bases.fine_tuning import Schedule, Settings, TransferPredictor
from latlab.predictors.nasflat.network import Graphs, Network

__all__ = ["Nasflat", "ranking_loss"]

MARGIN = 0.1
PAIRS = 4
"""Number of pairs that are compared per architecture of a batch."""

PRETRAINING = Schedule(epochs=150, batch=128, rate=1e-3, decay=1e-5, final_rate=1e-6)
TRANSFER = {
    "nasbench201": Schedule(epochs=40, batch=16, rate=3e-3, decay=1e-5, final_rate=1e-6),
    "fbnet": Schedule(epochs=30, batch=16, rate=1e-3, decay=1e-5, final_rate=1e-6),
}
"""The authors' schedules of fine-tuning per space; other spaces use FBNet's, which has the lower rate."""
LAST_EPOCHS = 4
"""Number of last epochs whose predictions are averaged."""


class Nasflat(TransferPredictor):
    """NASFLAT: a graph network trained to rank, with one embedding of 8 numbers per device.

    It works for spaces with the encoding `graph`, and differs from the paper in three things. By default the logarithms
    of MACs, parameters, bytes and operators stand for the encoding that the authors add to the graph (without either,
    the network cannot distinguish positions in a chain); `encoding` chooses zero-cost proxies, Arch2Vec, CATE or all
    three (`caz`), as in the paper. A batch is scored once and its pairs are taken from these
    scores, while the authors score both halves of each pair. Predictions, not correlations, are averaged over the last
    four epochs.
    """

    name = "nasflat"
    title: ClassVar[str] = "NASFLAT: graph network trained to rank source devices, then fine-tuned (MLSys 2024)"

    def _default_settings(self) -> Settings:
        transfer = TRANSFER.get(self.space.name, TRANSFER["fbnet"])
        return Settings(PRETRAINING, transfer, last_epochs=LAST_EPOCHS)

    def _network(self, devices: int) -> nn.Module:
        genes = self._sample[:1]
        nodes, width = self._encode(genes).shape[1:]
        return Network(width - nodes, self._encoded(genes).shape[1], devices)

    def _encode(self, genes: IntArray) -> np.ndarray:
        return self.space.encode(genes, "graph")

    def _inputs(self, genes: IntArray) -> Graphs:
        encoded = torch.from_numpy(self._encode(genes))
        nodes = encoded.shape[1]
        operations = encoded[:, :, nodes:]
        operation = operations.argmax(dim=2)
        absent = operations.sum(dim=2) == 0
        into = encoded[:, :, :nodes].mT
        if bool((into == into[:1]).all()):
            into = into[:1]
        return Graphs(operation, into.contiguous(), absent if bool(absent.any()) else None, self._encoded(genes))

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return ranking_loss(scores, labels)


def ranking_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the pairwise hinge loss max(0, 0.1 - sign(label difference) * score difference), mean over random pairs.

    Up to 4 b pairs are drawn from all pairs of the b architectures with different labels. As in the authors' code,
    architectures of different devices are compared too, by labels scaled per device; this makes scores of devices
    comparable.
    """
    rows, columns = torch.triu_indices(len(scores), len(scores), 1)
    difference = labels[rows] - labels[columns]
    differ = difference.nonzero()[:, 0]
    chosen = differ[torch.randperm(len(differ))[: PAIRS * len(scores)]]
    sign = difference[chosen].sign()
    hinge = torch.relu(MARGIN - sign * (scores[rows[chosen]] - scores[columns[chosen]]))
    return hinge.sum() / max(len(chosen), 1)
